"""The frame cache: every video decoded once, uint8, memory-mapped by whoever reads it.

A shard `03-of-64` is one file of pixels (.bin) and one index (.json), written last. Beside them a journal
(.journal.jsonl) lists what is safely in the .bin, so that a killed job keeps what it decoded.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tvg.errors import TvgError
from tvg.progress import progress
from tvg.sample import write_lines
from tvg.settings import FramesSettings
from tvg.video.decode import Frames
from tvg.video.workers import decode_all

log = logging.getLogger(__name__)
FORMAT = 1  # of the files; the science's version is in the FramesSpec
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def shard_of(video: str, of: int) -> int:
    """Which of `of` shards holds a video: by its name alone, the same on every machine."""
    return int(hashlib.sha256(video.encode()).hexdigest(), 16) % of


def write_shard(
    index_path: Path,
    videos: Iterable[str],
    settings: FramesSettings,
    jobs: int,
    video_dir: Path,
    *,
    max_failures: float = 0.05,
    time_limit: float = 600.0,
) -> None:
    """Decode the videos that belong to the shard `NN-of-MM.json`, resuming what an earlier run left.

    videos: the names of *all* videos of the data set, relative to `video_dir`; the shard takes its own. jobs: how
    many processes decode. time_limit: seconds for one video. Videos that fail are listed with the reason in the index
    and in NN-of-MM.failures.jsonl. Raises TvgError, without an index, when the shards of this folder have lost more
    than `max_failures` of all videos by now, when every video of this shard failed, or when the disk is full.
    """
    shard, of = _position(index_path)
    names = sorted(set(videos))
    mine = [video for video in names if shard_of(video, of) == shard]
    with _room(index_path), _Journal(index_path, settings) as journal:
        todo = {v: video_dir / v for v in mine if not journal.holds(v, video_dir / v)}
        failures = {}
        log.info("%s: %d videos, %d already decoded", index_path.name, len(mine), len(mine) - len(todo))
        for video, result in progress(decode_all(todo, settings, jobs, time_limit), "decoding", "videos", len(todo)):
            if isinstance(result, Frames):
                journal.append(video, result, (video_dir / video).stat().st_size)
            else:
                failures[video] = result
                log.warning("%s: %s", video, result)
        _write_failures(index_path, failures)
        _check_failures(index_path, of, len(names), len(mine), len(failures), max_failures)
        index = {
            "format": FORMAT,
            "settings": settings.model_dump(),
            "videos": {video: journal.entries[video] for video in mine if video not in failures},
            "failures": dict(sorted(failures.items())),
        }
        write_lines(index_path, [json.dumps(index)])


class FrameCache(Mapping[str, Frames]):
    """Video name -> Frames, over all shards of a folder. Pixels are read-only maps of the files, opened at each access,
    so that a cache can be sent to other processes. A video without frames raises KeyError; `failures` says why.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.failures: dict[str, str] = {}
        self._entries: dict[str, tuple[Path, dict]] = {}
        for path in _complete_shards(self.folder):
            index = json.loads(path.read_text(encoding="utf-8"))
            _check_length(path, index)
            self.failures |= index["failures"]
            self._entries |= {video: (path.with_suffix(".bin"), entry) for video, entry in index["videos"].items()}

    def __getitem__(self, video: str) -> Frames:
        if video not in self._entries:
            raise KeyError(f"{video}: {self.failures.get(video, 'not in this cache')}")
        path, entry = self._entries[video]
        pixels = np.memmap(path, np.uint8, "r", entry["offset"], tuple(entry["shape"]))
        return Frames(pixels, np.array(entry["times"]), entry["fps"], entry["duration"], entry["backend"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class _Journal:
    """The pixels of one shard and the list of what is safely in them.

    Pixels are on disk before their line is written: a line that is whole, and within the length of the pixels, holds.
    """

    def __init__(self, index_path: Path, settings: FramesSettings):
        self.entries: dict[str, dict] = {}
        self._bin = index_path.with_suffix(".bin")
        self._list = index_path.with_suffix(".journal.jsonl")
        self._head = json.dumps({"format": FORMAT, "settings": settings.model_dump()})

    def __enter__(self) -> "_Journal":
        self._bin.parent.mkdir(parents=True, exist_ok=True)
        self._bin.touch()
        length = self._bin.stat().st_size
        rows = [row for row in self._rows() if _end(row) <= length]
        self.entries = {row["video"]: row for row in rows}
        # Lines that do not hold must go: later pixels will lie where theirs were.
        write_lines(self._list, [self._head, *(json.dumps(row) for row in self.entries.values())])
        os.truncate(self._bin, max(map(_end, self.entries.values()), default=0))
        self._pixels, self._lines = self._bin.open("ab"), self._list.open("ab")
        return self

    def _rows(self) -> Iterator[dict]:
        """What the journal lists, if it is of these settings."""
        lines = self._list.read_text(encoding="utf-8").split("\n") if self._list.exists() else []
        if lines and lines[0] == self._head:
            yield from map(json.loads, lines[1:-1])  # what follows the last line's end was never finished

    def __exit__(self, *_) -> None:
        self._pixels.close()
        self._lines.close()

    def holds(self, video: str, path: Path) -> bool:
        """Whether a video is here, and is still the file that was decoded (or has gone since)."""
        entry = self.entries.get(video)
        return entry is not None and (not path.exists() or path.stat().st_size == entry["source_bytes"])

    def append(self, video: str, frames: Frames, source_bytes: int) -> None:
        entry = {
            "video": video,
            "offset": self._pixels.tell(),
            "shape": frames.pixels.shape,
            "times": frames.times.tolist(),
            "fps": frames.fps,
            "duration": frames.duration,
            "backend": frames.backend,
            "source_bytes": source_bytes,
        }
        _store(self._pixels, frames.pixels.data)
        _store(self._lines, json.dumps(entry).encode() + b"\n")
        self.entries[video] = entry


def _store(file, data) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _end(entry: dict) -> int:
    return entry["offset"] + math.prod(entry["shape"])


def _position(index_path: Path) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)-of-(\d+)", index_path.stem)
    if match is None or int(match[1]) >= int(match[2]):
        raise TvgError(
            index_path, "not the name of a shard", got=index_path.name, expected="NN-of-MM.json with NN < MM",
            hint="the names come from tvg.store.Store.shards",
        )  # fmt: skip
    return int(match[1]), int(match[2])


@contextmanager
def _room(where: Path) -> Iterator[None]:
    """A full disk or quota is the user's to mend; what is in the journal stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise TvgError(
            where, "no room for the frames", got=error.strerror, expected="room for about 17 MB per video",
            hint="free some space and run again: the videos decoded so far are kept",
        ) from error  # fmt: skip


def _write_failures(index_path: Path, failures: dict[str, str]) -> None:
    rows = (json.dumps({"video": v, "reason": failures[v]}, ensure_ascii=False) for v in sorted(failures))
    write_lines(index_path.with_suffix(".failures.jsonl"), rows)


def _check_failures(index_path: Path, of: int, total: int, mine: int, failed: int, max_failures: float) -> None:
    """One bad video must not fail a small shard, so the share is over the data set, as far as its shards are known."""
    lists = [path.read_text(encoding="utf-8") for path in index_path.parent.glob(f"*-of-{of:02d}.failures.jsonl")]
    known = sum(text.count("\n") for text in lists)
    if known > max_failures * total or (failed == mine > 1 and max_failures < 1):
        raise TvgError(
            index_path.with_suffix(".failures.jsonl"), "too many videos without frames",
            got=f"{failed} of {mine} in this shard, {known} of {total} in the shards so far",
            expected=f"at most {max_failures:.0%} of the data set",
            hint="the file lists each with its reason: mend them and run again, or raise max_failures",
        )  # fmt: skip


def _complete_shards(folder: Path) -> list[Path]:
    """The index files of one complete set of shards."""
    paths = sorted(folder.glob("*-of-*.json"))
    for of in sorted({_position(path)[1] for path in paths}):
        shards = [path for path in paths if _position(path)[1] == of]
        if len(shards) == of:
            return shards
    raise TvgError(
        folder, "the frame cache is not complete", got=[path.name for path in paths] or "no index files",
        expected="an index file for each shard", hint="run the workflow's frames rules, or `tvg frames`, to the end",
    )  # fmt: skip


def _check_length(path: Path, index: dict) -> None:
    needed = max((_end(entry) for entry in index["videos"].values()), default=0)
    pixels = path.with_suffix(".bin")
    got = pixels.stat().st_size if pixels.exists() else 0
    if got < needed:
        raise TvgError(
            pixels, "the frames are not all there", got=f"{got} bytes", expected=f"{needed} bytes or more",
            hint=f"delete {path.name} and run again",
        )  # fmt: skip
