"""Charades-STA: `VIDEO start end##query` a line, durations from the csv files of Charades.

Training splits are cleaned, test splits never (systems.md 3): the truth of a benchmark is scored as it was published.
Quirks that a line or a duration may have: data_quirks.md.
"""

import csv
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt

from tvg.config import Name
from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import Claim, Stock, annotation_files, unwritable
from tvg.datasets.audit import clean, problem_row, published_file
from tvg.datasets.download import Source, download, unpack
from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import Closed

log = logging.getLogger(__name__)
# The first `##` ends the numbers: seven queries hold a single `#`, and a query may hold another `##`.
LINE = re.compile(
    r"([A-Za-z0-9_-]+)[ \t]+(-?\d+(?:\.\d+)?)[ \t]+(-?\d+(?:\.\d+)?)[ \t]*##(.*\S.*)", re.ASCII | re.DOTALL
)


class Split(Closed):
    """The files of one split, by name."""

    annotations: str
    """lines of `VIDEO start end##query`"""
    durations: str
    """a CSV with the columns id and length, in seconds"""
    rows: PositiveInt | None = None
    """how many annotation lines there must be; without it, any"""
    clean: bool
    """train-time cleaning: reversed, overlong and too short segments"""


class Settings(Closed):
    """`kind: charades_sta`: lines of text, durations in a CSV, videos in a zip."""

    licence: str
    """said before anything is downloaded"""
    splits: dict[Name, Split]
    """name -> its files"""
    files: dict[str, Source]
    """what lies under annotations/, and where it comes from"""
    videos: Source
    """a zip of `VIDEO.mp4`"""
    least: PositiveFloat
    """seconds that a cleaned segment must keep"""
    may_lose: Annotated[float, Field(ge=0, le=1)]
    """share of a split's lines that may be rejected, and of the videos that may be absent"""


class Line(NamedTuple):
    video: str
    segment: Segment
    query: str


def parse(text: str) -> Line | None:
    """One annotation line without its line end; None if it is not `VIDEO start end##query` with finite numbers."""
    found = LINE.fullmatch(text)
    if found is None:
        return None
    segment = Segment(float(found[2]), float(found[3]))
    return Line(found[1], segment, found[4]) if all(map(math.isfinite, segment)) else None


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read folder/annotations. measure: not used. Raises TvgError: a file absent or not as pinned, lines missing."""
    what = settings.splits[split]
    path = published_file(settings.files, folder, what.annotations)
    durations = read_durations(published_file(settings.files, folder, what.durations))
    lines = list(_lines(path))
    if what.rows is not None and len(lines) != what.rows:
        raise TvgError(
            path, "not the number of annotation lines that were published", got=len(lines), expected=what.rows,
            hint="delete the file and run `tvg download` again, or correct `rows` in the data set's YAML",
        )  # fmt: skip
    loaded = Loaded([], source=path, lines=len(lines), may_lose=settings.may_lose)
    for number, text in lines:
        sample, problem = _read(text, number, durations, settings, what)
        if sample is not None:
            loaded.samples.append(sample)
        if problem is not None:
            row = problem_row(path, number, text, problem)
            (loaded.rejected if sample is None else loaded.clipped).append(row)
    log.info(
        "%s: %d lines, %d samples (%d clipped to the video), %d rejected",
        path.name, len(lines), len(loaded.samples), len(loaded.clipped), len(loaded.rejected),
    )  # fmt: skip
    return loaded


def _read(
    text: str, number: int, durations: dict[str, float], settings: Settings, split: Split
) -> tuple[Sample | None, str | None]:
    """The sample of a line, None if it gives none; and what was wrong with it, None if nothing."""
    line = parse(text)
    if line is None:
        return None, "not `VIDEO start end##query`"
    if line.video not in durations:
        return None, f"no duration of {line.video} in {split.durations}"
    duration, segment, problem = durations[line.video], line.segment, None
    if split.clean:
        segment, problem = clean(segment, duration, settings.least)
    if segment is None:
        return None, problem
    return Sample(f"{line.video}-{number}", f"{line.video}.mp4", duration, line.query, (segment,)), problem


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank. Only \\n ends a line: a query may hold any other separator."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            yield from ((number, line.rstrip("\r\n")) for number, line in enumerate(file, 1) if line.strip())
    except UnicodeDecodeError as error:
        raise TvgError(
            path, "not UTF-8 text", got=error, expected="lines of `VIDEO start end##query`",
            hint="delete the file and run `tvg download` again",
        ) from error  # fmt: skip


def read_durations(path: Path) -> dict[str, float]:
    """Video -> seconds, from the columns id and length; a row without a positive number gives none."""
    durations = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        if not {"id", "length"} <= set(table.fieldnames or ()):
            raise TvgError(
                path, "columns missing", got=table.fieldnames, expected="id and length among them",
                hint="delete the file and run `tvg download` again",
            )  # fmt: skip
        for row in table:
            if re.fullmatch(r"\d+(\.\d+)?", row["length"] or "", re.ASCII) and float(row["length"]) > 0:
                durations[row["id"]] = float(row["length"])
    return durations


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Download annotations and, unless all videos are in folder/videos already, the archive, kept in `folder`.

    Where the folder cannot be written to, nothing is downloaded: what is absent is then for the check to judge.
    jobs: not used, there is one archive.
    """
    log.info("licence: %s", settings.licence)
    annotation_files(settings.files, folder)
    wanted, videos = _wanted(settings, folder), folder / "videos"
    absent = [name for name in sorted(wanted) if not (videos / name).exists()]
    if absent and not (unwritable(videos) or unwritable(folder)):
        archive = folder / settings.videos.url.rsplit("/", 1)[-1]
        download(settings.videos.url, archive, settings.videos.sha256)
        unpack(archive, videos, absent)
        log.info("%s is unpacked and may be deleted", archive)
    new = frozenset(name for name in absent if (videos / name).exists())
    return Stock(videos, wanted, new, settings.may_lose, f"put them into {videos}")


def _wanted(settings: Settings, folder: Path) -> dict[str, frozenset[Claim]]:
    """The videos of all splits, and how long they are by the csv files that are there."""
    wanted = {}
    for split in settings.splits.values():
        path = folder / "annotations" / split.durations
        durations = read_durations(path) if path.exists() else {}
        for line in _parsed(folder, split):
            claims = {Claim(durations[line.video])} if line.video in durations else set()
            wanted[f"{line.video}.mp4"] = frozenset(claims)
    return wanted


def _parsed(folder: Path, split: Split) -> Iterator[Line]:
    return filter(None, (parse(text) for _, text in _lines(folder / "annotations" / split.annotations)))
