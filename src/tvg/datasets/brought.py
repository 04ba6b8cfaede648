"""Published annotations whose videos a person brings: what the kinds that read them have in common.

A kind says how its files become `Item`s and an item a `Sample`, with all times as they are written. Here: the published
counts are checked, training splits cleaned, evaluation splits kept (systems.md 3), and every row that gives no sample,
or another than is written, is listed. Quirks of the files: data_quirks.md.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt

from tvg.config import Name
from tvg.datasets.adopt import Claim, Stock, annotation_files, unwritable
from tvg.datasets.audit import Loaded, clean_all, problem_row, published_file
from tvg.datasets.download import Source
from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.settings import Closed

log = logging.getLogger(__name__)
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)  # what reading a broken row raises
AGAIN = "delete the file and run `tvg download` again"


class Split(Closed):
    """The file of one split, by name."""

    annotations: str
    """its file under annotations/"""
    rows: PositiveInt | None = None
    """how many queries there must be; without it, any"""
    videos: PositiveInt | None = None
    """in how many videos; without it, any"""
    clean: bool
    """train-time cleaning: reversed, overlong and too short segments; never of a split that is scored"""


class Brought(Closed):
    """Annotations from the web, videos from a person."""

    licence: str
    """said before anything is downloaded"""
    splits: dict[Name, Split]
    """name -> its file"""
    files: dict[str, Source]
    """what lies under annotations/, and where it comes from"""
    videos_from: str
    """where a person gets the videos, and how their files are named"""
    least: PositiveFloat
    """seconds that a cleaned segment must keep"""
    may_lose: Annotated[float, Field(ge=0, le=1)]
    """share of a split's queries that may be rejected, and of the videos that may be absent"""


class Item(NamedTuple):
    """One query of an annotation file. number: its line, or its place, from 1; text: for a listing of problems."""

    number: int
    text: str
    content: Any


Items = Callable[[Path], Iterable[Item]]
# content of an item -> its sample, and what of it is not as written, None if nothing; raises one of MALFORMED
Read = Callable[[Any], tuple[Sample, str | None]]


# ---------------------------------------------------------------- annotations


def load_split(settings: Brought, split: str, folder: Path, items: Items, read: Read) -> Loaded:
    """Read folder/annotations. Raises TvgError: a file absent or not as pinned, other counts than published."""
    what = settings.splits[split]
    path = published_file(settings.files, folder, what.annotations)
    found = list(items(path))
    _check_count(path, "queries", len(found), what.rows)
    loaded, seen, videos = Loaded([], source=path, lines=len(found), may_lose=settings.may_lose), set(), set()
    for item in found:
        sample, problem = _read(item, read, seen, what.clean, settings.least)
        if sample is not None:
            videos.add(sample.video)
            if sample.segments:
                loaded.samples.append(sample)
        if problem is not None:
            row = problem_row(path, item.number, item.text, problem)
            (loaded.clipped if sample and sample.segments else loaded.rejected).append(row)
    _check_count(path, "videos", len(videos), what.videos)
    counts = len(loaded.samples), len(loaded.clipped), len(loaded.rejected)
    log.info("%s: %d queries, %d samples (%d changed), %d rejected", path.name, len(found), *counts)
    return loaded


def _read(item: Item, read: Read, seen: set[str], cleaned: bool, least: float) -> tuple[Sample | None, str | None]:
    """The sample of an item, None of a broken one, without segments where cleaning leaves none; and what was wrong."""
    try:
        sample, note = read(item.content)
        sample = _checked(sample, seen)
    except MALFORMED as error:
        return None, f"not a row of this data set: {error if type(error) is ValueError else repr(error)}"
    notes = [note] if note else []
    if cleaned:
        kept, reasons = clean_all(sample.segments, sample.duration, least)
        sample, notes = replace(sample, segments=tuple(kept)), notes + reasons
    return sample, "; ".join(notes) or None


def _check_count(path: Path, what: str, got: int, expected: int | None) -> None:
    if expected is not None and got != expected:
        raise TvgError(
            path, f"not the number of {what} that was published", got=got, expected=expected,
            hint=f"{AGAIN}, or correct the number in the data set's YAML",
        )  # fmt: skip


def _checked(sample: Sample, seen: set[str]) -> Sample:
    """The sample with its query on one line, without outer spaces. seen: ids so far. Raises one of MALFORMED."""
    query = " ".join(sample.query.split())
    if not query:
        raise ValueError("the query is empty")
    if not sample.segments:
        raise ValueError("no segment is given")
    if sample.id in seen:
        raise ValueError(f"the id {sample.id} is that of another row")
    segments = (*sample.segments, sample.clip or (0.0, 0.0))
    if not all(math.isfinite(time) for segment in segments for time in segment) or not 0 < sample.duration < math.inf:
        raise ValueError("a time is not finite, or the duration is not above 0")
    if sample.video in ("", ".", "..") or PurePosixPath(sample.video).name != sample.video:
        raise ValueError(f"{sample.video!r} is no file name")
    seen.add(sample.id)
    return replace(sample, query=query)


def read_json(path: Path, kind: type) -> Any:
    """The file's content, a `kind` (dict or list). Raises TvgError."""
    expected = "one JSON object" if kind is dict else "one JSON list"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise TvgError(path, "not JSON", got=error, expected=expected, hint=AGAIN) from error
    if not isinstance(content, kind):
        raise TvgError(path, "other JSON than was published", got=type(content).__name__, expected=expected, hint=AGAIN)
    return content


# ---------------------------------------------------------------- videos


def files_of(folder: Path) -> frozenset[str]:
    """Names of what lies in folder/videos."""
    videos = folder / "videos"
    return frozenset(path.name for path in videos.iterdir()) if videos.is_dir() else frozenset()


def file_name(candidates: Iterable[str], there: frozenset[str]) -> str:
    """The first of the names that a video may have that is there; of an absent video, the first of all."""
    names = list(candidates)
    return next((name for name in names if name in there), names[0])


def take(settings: Brought, folder: Path, items: Items, read: Read, claim: Callable[[Sample], Claim]) -> Stock:
    """Download the annotations; folder/videos is the user's to fill. claim: how long a sample says its file is."""
    log.info("licence: %s", settings.licence)
    annotation_files(settings.files, folder)
    videos = folder / "videos"
    if not videos.exists() and not unwritable(folder):
        videos.mkdir(parents=True)
    wanted: dict[str, frozenset[Claim]] = {}
    for split in settings.splits.values():
        for sample in _readable(folder / "annotations" / split.annotations, items, read):
            wanted[sample.video] = wanted.get(sample.video, frozenset()) | {claim(sample)}
    return Stock(videos, wanted, frozenset(), settings.may_lose, f"get them from {settings.videos_from}")


def videos_of(path: Path, items: Items, read: Read, which: Callable[[Sample], bool] = lambda sample: True) -> set[str]:
    """Names of the files that an annotation file asks about, in samples of a kind; none where it is absent."""
    return {sample.video for sample in _readable(path, items, read) if which(sample)} if path.exists() else set()


def _readable(path: Path, items: Items, read: Read) -> Iterator[Sample]:
    """The samples of all rows that give one, as they are written; `load_split` lists the others."""
    for item in items(path):
        try:
            sample = _checked(read(item.content)[0], set())
        except MALFORMED:
            continue
        yield sample
