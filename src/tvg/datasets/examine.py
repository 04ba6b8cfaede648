"""`tvg data check`: one file of the user's own rows, looked at as the loader and the download job would."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tvg.datasets import rows
from tvg.datasets.adopt import Measure
from tvg.datasets.jsonl import Settings
from tvg.datasets.rows import Verdict
from tvg.errors import TvgError


@dataclass(frozen=True)
class Examined:
    """verdicts: of every line. extra: keys that are not read, in words. looked: whether the videos were opened."""

    path: Path
    cleaned: bool
    verdicts: list[Verdict]
    extra: list[str]
    looked: bool

    @property
    def broken(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.broken]

    @property
    def changed(self) -> list[Verdict]:
        """Lines that are fine, but will not be used quite as they are written."""
        return [verdict for verdict in self.verdicts if verdict.reasons and not verdict.broken]

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "split_kind": "train" if self.cleaned else "eval",
            "videos_opened": self.looked,
            "lines": len(self.verdicts),
            "broken": [_entry(verdict) for verdict in self.broken],
            "changed": [_entry(verdict) for verdict in self.changed],
            "keys_not_read": self.extra,
            **_summary(self.verdicts),
        }


def examine(path: Path, cleaned: bool, videos: Path | None, measure: Measure, least: float | None = None) -> Examined:
    """videos: their folder; None leaves out all that only the files can tell. Raises TvgError: no file, no rows."""
    try:
        lines = rows.read(path.read_bytes())
    except OSError as error:
        raise _nothing(path, error.strerror) from error
    if not lines:
        raise _nothing(path, "an empty file")
    if videos is not None and not videos.is_dir():
        raise TvgError(
            videos, "no such folder", got=videos, expected="the folder of the videos", hint="correct --videos"
        )
    named = {line.row.video for line in lines if line.row}
    lengths = {} if videos is None else measure([videos / name for name in named], True)
    least = Settings.model_fields["least"].default if least is None else least
    verdicts = [rows.judge(line, lengths, cleaned, least) for line in lines]
    return Examined(path, cleaned, verdicts, list(rows.not_read(lines)), videos is not None)


def _nothing(path: Path, got: object) -> TvgError:
    return TvgError(
        path, "no rows to check", got=got, expected=rows.SHAPE, hint="see `tvg data check --help`",
    )  # fmt: skip


def _entry(verdict: Verdict) -> dict[str, Any]:
    return {"line": verdict.line.number, "reasons": list(verdict.reasons)}


def _summary(verdicts: list[Verdict]) -> dict[str, Any]:
    """Of the rows that would be used. Times in seconds; null where nothing is known."""
    samples = [verdict.sample for verdict in verdicts if verdict.sample]
    by_video = Counter(sample.video for sample in samples)
    durations = {sample.video: sample.duration for sample in samples if sample.duration < math.inf}
    lengths = [segment.length for sample in samples for segment in sample.segments]
    return {
        "rows": len(samples),
        "videos": len(by_video),
        "queries_per_video": round(len(samples) / len(by_video), 2) if by_video else None,
        "several_segments": sum(len(sample.segments) > 1 for sample in samples),
        "completions": sum(sample.completion is not None for sample in samples),
        "captioned": sum(bool(sample.captions) for sample in samples),
        "duration_s": _middle(list(durations.values())),
        "segment_s": _middle(lengths),
    }


def _middle(values: list[float]) -> dict[str, float] | None:
    return {"mean": round(fmean(values), 2), "median": round(median(values), 2)} if values else None
