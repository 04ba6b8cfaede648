"""Data of the user's own: a folder of videos and, for each split, a file of rows (tvg.datasets.rows).

Training splits are cleaned as those of the papers are; evaluation splits are kept as they were written. A broken line
is named with its number and the rest still read.
"""

import hashlib
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, field_validator

from tvg.config import ABSENT, Name
from tvg.datasets.adopt import Claim, Measure, Stock
from tvg.datasets.audit import Loaded, problem_row
from tvg.datasets.rows import SHAPE, Verdict, judge, not_read, read
from tvg.errors import TvgError
from tvg.settings import Closed

log = logging.getLogger(__name__)


class Split(Closed):
    """One file of JSON lines."""

    file: str
    """relative to the folder where snakemake is called"""
    clean: bool | None = None
    """train-time cleaning; without it, of the splits whose name starts with `train`"""
    sha256: str | None = None
    """of the file; filled in when the data set is read, a value in the YAML is a pin"""


class Settings(Closed):
    """`kind: jsonl`, data of the user's own."""

    videos: Annotated[str, Field(min_length=1)]
    """the folder of the videos, relative to the folder where snakemake is called"""
    splits: Annotated[dict[Name, Split], Field(min_length=1)]
    """name -> a file of JSON lines, or {file, clean}"""
    least: PositiveFloat = 0.5
    """seconds that a cleaned segment keeps, systems.md 3"""
    may_lose: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of a split's lines that may be rejected, and of its videos that may be absent"""
    hint: Annotated[str, Field(min_length=1)] | None = None
    """where the files come from; said where one is absent"""

    def advice(self, usual: str) -> str:
        return f"{self.hint.strip()}; {usual}" if self.hint else usual

    @field_validator(
        "splits", mode="before", json_schema_input_type=Annotated[dict[Name, str | Split], Field(min_length=1)]
    )
    @classmethod
    def short_form(cls, splits: Any) -> Any:
        if not isinstance(splits, dict):
            return splits
        return {name: {"file": split} if isinstance(split, str) else split for name, split in splits.items()}


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read the split's file; `folder` is not read. measure: for rows without a duration. Raises TvgError: no file, no
    rows, or another file than was planned with.
    """
    what = settings.splits[split]
    path = Path(what.file).expanduser()
    lines = read(_planned(what, settings))
    if not lines:
        raise TvgError(path, "no rows", got="an empty file", expected=SHAPE, hint="see `tvg data check --help`")
    if keys := ", ".join(not_read(lines)):
        log.warning("%s: keys that are not read: %s", path, keys)
    unstated = {line.row.video for line in lines if line.row and line.row.duration is None}
    videos = Path(settings.videos).expanduser()
    lengths = dict.fromkeys(unstated, "no duration is stated, and the file was not opened")
    if unstated and measure:
        lengths = measure([videos / name for name in unstated], True)
    cleaned = is_cleaned(split, what)
    verdicts = [judge(line, lengths, cleaned, settings.least) for line in lines]
    log.info("%s: %s", path, "cleaned for training" if cleaned else "kept as written")
    return _sorted_out(path, verdicts, cleaned, settings.may_lose)


def is_cleaned(name: str, split: Split) -> bool:
    """As the split says, else by its name: a truth that is scored must stay as written, a reward needs a sound one."""
    return name.startswith("train") if split.clean is None else split.clean


def _sorted_out(path: Path, verdicts: list[Verdict], cleaned: bool, may_lose: float) -> Loaded:
    loaded = Loaded([], source=path, lines=len(verdicts), may_lose=may_lose)
    for line, sample, reasons, _ in verdicts:
        row = problem_row(path, line.number, line.text, "; ".join(reasons))
        if sample is None:
            loaded.rejected.append(row)
            log.warning("%s:%d: %s", path, line.number, row["reason"])
            continue
        loaded.samples.append(sample)
        if reasons and cleaned:
            loaded.clipped.append(row)
        elif reasons:
            log.warning("%s:%d: kept as written: %s", path, line.number, row["reason"])
    return loaded


def _planned(split: Split, settings: Settings) -> bytes:
    """The content of the file that the plan was made with."""
    path = Path(split.file).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TvgError(
            path, "cannot read this annotation file", got=error.strerror, expected=SHAPE,
            hint=settings.advice("put it there, or correct `file` in the data set's YAML, then run snakemake again"),
        ) from error  # fmt: skip
    found = hashlib.sha256(content).hexdigest()
    if split.sha256 not in (None, found):
        raise TvgError(
            path, "not the file that was planned with", got=f"sha256 {found}", expected=split.sha256,
            hint="run snakemake again, which plans anew; where the data set's YAML pins a sha256, correct it there",
        )  # fmt: skip
    return content


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Copies nothing: says which videos the rows name. `folder` and `jobs` are not used.

    A file that was absent when planned fails in the job that reads its annotations, unless there is no other.
    """
    there = [split for split in settings.splits.values() if split.sha256 != ABSENT]
    wanted: dict[str, frozenset[Claim]] = {}
    for split in there or settings.splits.values():
        for row in filter(None, (line.row for line in read(_planned(split, settings)))):
            claims = {Claim(row.duration)} if row.duration else set()
            wanted[row.video] = wanted.get(row.video, frozenset()) | claims
    videos = Path(settings.videos).expanduser()
    hint = settings.advice(f"put them into {videos}, or correct `videos` in the data set's YAML")
    return Stock(videos, wanted, frozenset(), settings.may_lose, hint)
