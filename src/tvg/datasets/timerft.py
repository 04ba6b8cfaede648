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
from tvg.datasets import Loaded
from tvg.datasets.audit import absent_videos, check_loss, clean, problem_row, published_file
from tvg.datasets.download import Source, download
from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.spec import Closed

log = logging.getLogger(__name__)


class Split(Closed):
    """annotations: a file's name; rows: how many items it must hold, None for any."""

    annotations: str
    rows: PositiveInt | None = None


class Settings(Closed):
    """files: what lies under annotations/. videos_from: where a person gets the videos. Else as for Charades-STA."""

    licence: str
    splits: dict[Name, Split]
    files: dict[str, Source]
    videos_from: str
    least: PositiveFloat
    may_lose: Annotated[float, Field(ge=0, le=1)]


def load(settings: Settings, split: str, folder: Path) -> Loaded:
    """Read folder/annotations. Raises TvgError: a file absent or not as pinned, items missing, too many rejected."""
    what = settings.splits[split]
    path = published_file(settings.files, folder, what.annotations)
    items = _items(path)
    if what.rows is not None and len(items) != what.rows:
        raise TvgError(
            path, "not the number of items that was published", got=len(items), expected=what.rows,
            hint="delete the file and run `tvg download` again, or correct `rows` in the data set's YAML",
        )  # fmt: skip
    loaded = Loaded([])
    for number, item in enumerate(items, 1):
        sample, problem = _read(item, number, settings.least)
        if sample is not None:
            loaded.samples.append(sample)
        if problem is not None:
            row = problem_row(path, number, json.dumps(item, ensure_ascii=False), problem)
            (loaded.rejected if sample is None else loaded.clipped).append(row)
    check_loss(path, len(items), loaded.rejected, settings.may_lose)
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


def fetch(settings: Settings, folder: Path, jobs: int) -> None:
    """Download the annotations; say which videos are absent from folder/videos. jobs: not used."""
    log.info("licence: %s", settings.licence)
    for name, source in settings.files.items():
        download(source.url, folder / "annotations" / name, source.sha256)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    items = (item for split in settings.splits.values() for item in _items(folder / "annotations" / split.annotations))
    samples = [_read(item, number, settings.least)[0] for number, item in enumerate(items, 1)]
    wanted = (sample.video for sample in samples if sample is not None)
    absent_videos(folder, wanted, settings.may_lose, f"get them from {settings.videos_from}")
