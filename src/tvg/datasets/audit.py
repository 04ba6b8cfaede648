"""What downloaded annotations go through: is it the published file, is the segment usable, how much was lost."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tvg.datasets.download import Source, verify
from tvg.errors import TvgError
from tvg.sample import Sample, write_lines
from tvg.segment import Segment


@dataclass(frozen=True)
class Loaded:
    """One split. Nothing is dropped or changed in silence:

    rejected: rows that gave no sample, clipped: rows whose segment was cut to the duration; both as
    {"file", "line", "text", "reason"}. captions: video -> its dense captions in order of time, where there are any.
    source, lines: the annotation file and how many rows it has. may_lose: the share of them that may be rejected.
    """

    samples: list[Sample]
    rejected: list[dict[str, object]] = field(default_factory=list)
    clipped: list[dict[str, object]] = field(default_factory=list)
    captions: dict[str, list[tuple[Segment, str]]] | None = None
    source: Path | None = None
    lines: int = 0
    may_lose: float = 0.0

    def list_problems(self, beside: Path) -> None:
        """Write {beside}.rejected.jsonl and {beside}.clipped.jsonl, also when they are empty."""
        for what, rows in (("rejected", self.rejected), ("clipped", self.clipped)):
            write_lines(beside.with_suffix(f".{what}.jsonl"), (json.dumps(row, ensure_ascii=False) for row in rows))

    def check_loss(self, listed: str) -> None:
        """Raises TvgError when more was rejected than may be lost; `listed` says where all of it stands."""
        if len(self.rejected) <= self.may_lose * self.lines:
            return
        shown = "; ".join(f"line {row['line']}: {row['reason']}" for row in self.rejected[:3])
        raise TvgError(
            self.source, "too many annotation lines rejected",
            got=f"{len(self.rejected)} of {self.lines} ({shown}){listed}", expected=f"at most {self.may_lose:.1%}",
            hint="mend the file, or raise `may_lose` in the data set's YAML",
        )  # fmt: skip


def clean(segment: Segment, duration: float, least: float) -> tuple[Segment | None, str | None]:
    """The segment that training may use, None if none; and what was wrong with it, None if nothing."""
    if segment.end <= segment.start:
        return None, f"the segment ends at {segment.end} s, not after its start at {segment.start} s"
    inside = segment.clipped(duration)
    if round(inside.length, 6) < least:
        return (
            None,
            f"{inside.length:.2f} s of the segment lie inside the {duration} s of the video, less than {least} s",
        )
    if inside != segment:
        return (
            inside,
            f"the segment from {segment.start} s to {segment.end} s is clipped to the {duration} s of the video",
        )
    return segment, None


def clean_all(segments: Iterable[Segment], duration: float, least: float) -> tuple[list[Segment], list[str]]:
    """The segments that training may use, and what was changed or dropped."""
    both = [clean(segment, duration, least) for segment in segments]
    prefix = [f"segment {k}: " if len(both) > 1 else "" for k in range(1, len(both) + 1)]
    reasons = [f"{before}{problem}" for before, (_, problem) in zip(prefix, both, strict=True) if problem]
    return [segment for segment, _ in both if segment is not None], reasons


def published_file(files: Mapping[str, Source], folder: Path, name: str) -> Path:
    """folder/annotations/name, as pinned. Raises TvgError: absent, or other content."""
    path = folder / "annotations" / name
    if not path.exists():
        raise TvgError(
            path, "annotation file absent", got="no such file", expected="the published file",
            hint="run `tvg download` for this data set, or put the file there",
        )  # fmt: skip
    if name in files:
        verify(path, files[name].sha256, "delete it and run `tvg download` again, or set its sha256 in the YAML")
    return path


def problem_row(path: Path, line: int, text: str, reason: str) -> dict[str, object]:
    """One entry of Loaded.rejected or Loaded.clipped."""
    return {"file": path.name, "line": line, "text": text, "reason": reason}
