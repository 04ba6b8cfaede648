"""TimeRFT, the 2,500 queries that Time-R1 is post-trained on: a JSON list, some items a cut of a longer file.

The videos come from six collections and must be brought by the user; annotations are cleaned as for any training
(systems.md 3): `clean` cuts or rejects the segments that overrun their video, some by hours.
"""

import json
import logging
import math
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from tvg.config import Name
from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import Claim, Stock, annotation_files, unwritable
from tvg.datasets.audit import clean, problem_row, published_file
from tvg.datasets.download import Source
from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import Closed

log = logging.getLogger(__name__)


class Split(Closed):
    """The file of one split, by name."""

    annotations: str
    """a JSON list of items"""
    rows: PositiveInt | None = None
    """how many items there must be; without it, any"""


class Settings(Closed):
    """`kind: timerft`: a JSON list; a person brings the videos."""

    licence: str
    """said before anything is downloaded"""
    splits: dict[Name, Split]
    """name -> its file"""
    files: dict[str, Source]
    """what lies under annotations/, and where it comes from"""
    videos_from: str
    """where a person gets the videos"""
    least: PositiveFloat
    """seconds that a cleaned segment must keep"""
    may_lose: Annotated[float, Field(ge=0, le=1)]
    """share of the items that may be rejected, and of the videos that may be absent"""


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read folder/annotations. measure: not used. Raises TvgError: a file absent or not as pinned, items missing."""
    what = settings.splits[split]
    path = published_file(settings.files, folder, what.annotations)
    items = _items(path)
    if what.rows is not None and len(items) != what.rows:
        raise TvgError(
            path, "not the number of items that was published", got=len(items), expected=what.rows,
            hint="delete the file and run `tvg download` again, or correct `rows` in the data set's YAML",
        )  # fmt: skip
    loaded = Loaded([], source=path, lines=len(items), may_lose=settings.may_lose)
    for number, item in enumerate(items, 1):
        sample, problem = _read(item, number, settings.least)
        if sample is not None:
            loaded.samples.append(sample)
        if problem is not None:
            row = problem_row(path, number, json.dumps(item, ensure_ascii=False), problem)
            (loaded.rejected if sample is None else loaded.clipped).append(row)
    return loaded


def _items(path: Path) -> list[dict]:
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TvgError(
            path, "not JSON", got=error, expected="a list of items", hint="delete the file and run `tvg download` again"
        ) from error
    return items if isinstance(items, list) else []


def _read(item: dict, number: int, least: float) -> tuple[Sample | None, str | None]:
    """The sample of an item, None if it gives none; and what was wrong with it, None if nothing."""
    try:
        duration, query = float(item["duration"]), str(item["sentence"])
        video = PurePosixPath(item["video"]).name
        segment = Segment(*map(float, item["timestamp"]))
        cut = (item["video_start"], item["video_end"])
        clip = Segment(*map(float, cut)) if None not in cut else None
    except (KeyError, TypeError, ValueError) as error:
        return None, f"not an item of TimeRFT ({error!r})"
    if not all(map(math.isfinite, (duration, *segment))):
        return None, "a time is not finite"
    segment, problem = clean(segment, duration, least)
    if segment is None:
        return None, problem
    return Sample(f"timerft-{number}", video, duration, query, (segment,), clip=clip), problem


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Download the annotations; folder/videos is the user's to fill. jobs: not used."""
    log.info("licence: %s", settings.licence)
    annotation_files(settings.files, folder)
    videos = folder / "videos"
    if not videos.exists() and not unwritable(folder):
        videos.mkdir(parents=True)
    hint = f"get them from {settings.videos_from}"
    return Stock(videos, _wanted(settings, folder), frozenset(), settings.may_lose, hint)


def _wanted(settings: Settings, folder: Path) -> dict[str, frozenset[Claim]]:
    """The videos of all usable items: as long as stated or, of a cut, still the longer file that it is a part of."""
    wanted: dict[str, frozenset[Claim]] = {}
    for split in settings.splits.values():
        for number, item in enumerate(_items(folder / "annotations" / split.annotations), 1):
            sample, _ = _read(item, number, settings.least)
            if sample is not None:
                claim = Claim(sample.duration, sample.clip.end if sample.clip else None)
                wanted[sample.video] = wanted.get(sample.video, frozenset()) | {claim}
    return wanted
