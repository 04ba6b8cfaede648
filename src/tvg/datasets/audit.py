"""What downloaded annotations go through: is it the published file, is the segment usable, how much was lost."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from tvg.datasets.download import Source, verify
from tvg.errors import TvgError
from tvg.sample import write_lines
from tvg.segment import Segment

log = logging.getLogger(__name__)


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
        return inside, f"the segment is clipped to the {duration} s of the video"
    return segment, None


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


def check_loss(path: Path, count: int, rejected: list[dict[str, object]], may_lose: float) -> None:
    """Raises TvgError when more than a share `may_lose` of `count` rows was rejected."""
    if len(rejected) > may_lose * count:
        shown = "; ".join(f"line {row['line']}: {row['reason']}" for row in rejected[:3])
        raise TvgError(
            path, "too many annotation lines rejected", got=f"{len(rejected)} of {count} ({shown})",
            expected=f"at most {may_lose:.1%}", hint="mend the file, or raise `may_lose` in the data set's YAML",
        )  # fmt: skip


def absent_videos(folder: Path, wanted: Iterable[str], may_lose: float, hint: str) -> list[str]:
    """The wanted names that folder/videos lacks, listed in folder/videos.absent.txt.

    Raises TvgError with `hint` when they are more than a share `may_lose`.
    """
    wanted, videos, listed = sorted(set(wanted)), folder / "videos", folder / "videos.absent.txt"
    absent = [name for name in wanted if not (videos / name).exists()]
    write_lines(listed, absent)
    log.log(logging.WARNING if absent else logging.INFO, "%d of %d videos absent", len(absent), len(wanted))
    if len(absent) > may_lose * len(wanted):
        raise TvgError(
            videos, "too many videos absent", got=f"{len(absent)} of {len(wanted)}, listed in {listed}",
            expected=f"at most {may_lose:.1%}", hint=f"{hint}, or raise `may_lose` in the data set's YAML",
        )  # fmt: skip
    return absent
