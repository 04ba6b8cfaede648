"""The one way in which the product samples a video: what is on screen at k/fps seconds, upright, in the pixel budget.

Frames are chosen by their timestamps, never by a mean rate. Decoding is sequential PyAV: exact on every file tried,
and no slower than decord, which is wrong on open GOPs, HEVC and edit lists (benchmarks/frames.py).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame
from PIL import Image

from tvg.segment import Segment
from tvg.settings import FramesSettings
from tvg.video.budget import fit
from tvg.video.probe import DAMAGED, Probe, opened, probe, refused, walk

log = logging.getLogger(__name__)
EPSILON = 1e-6  # seconds: far below a container's clock, far above float error


@dataclass(frozen=True, eq=False)
class Frames:
    """The sampled frames of a clip.

    pixels: (T, H, W, 3) uint8, RGB, upright; T >= 1. times: (T,) float64, when each frame appeared, in seconds from
    the first frame. Frame k is the one on screen at k / fps, fps being the effective rate. duration: seconds, until
    the end of the last frame's display. backend: what decoded it.
    """

    pixels: np.ndarray
    times: np.ndarray
    fps: float
    duration: float
    backend: str

    def __len__(self) -> int:
        return len(self.times)

    def crop(self, segment: Segment, min_seconds: float = 2.0, min_frames: int = 4) -> "Frames":
        """The frames on screen in the segment, times re-based to 0; no pixels are copied.

        A short segment grows on both sides to `min_seconds` and `min_frames`, inside the clip (systems.md 8, row 13).
        """
        segment = segment.clipped(self.duration)
        needed = min(max(min_seconds, min_frames / self.fps, segment.length), self.duration)
        middle = (segment.start + segment.end) / 2
        start = min(max(middle - needed / 2, 0.0), self.duration - needed)
        first = min(int(np.ceil((start - EPSILON) * self.fps)), len(self) - 1)
        last = min(max(int(np.ceil((start + needed - EPSILON) * self.fps)), first + 1), len(self))
        end = self.duration if last == len(self) else last / self.fps
        times = self.times[first:last] - self.times[first]
        return Frames(self.pixels[first:last], times, self.fps, end - first / self.fps, self.backend)


def sample(path: Path, settings: FramesSettings) -> Frames:
    """Decode one video. Raises TvgError for a file that is missing, damaged, cut short or has no video stream."""

    def resizer(first: VideoFrame, count: int) -> Callable[[VideoFrame], np.ndarray]:
        size = fit(*_upright_size(first), count, settings)
        return lambda frame: _picture(frame, size)

    source, which, fps, pictures = _decode(Path(path), settings.fps, settings.max_frames, resizer)
    return Frames(np.stack([pictures[i] for i in which]), source.times[which], fps, source.duration, "pyav")


def describe(path: Path, fps: float = 2.0) -> dict[str, Any]:
    """What `sample` would take from a video, without the pixels; decodes it all the same, so that damage shows.

    timestamps: seconds, of the frames on screen at k/fps, the first at 0. height, width: of the source, upright.
    rotation: degrees counter-clockwise that turn the stored picture upright. stream: index in the file.
    """
    settings = FramesSettings(fps=fps)

    def facts(first: VideoFrame, count: int) -> Callable[[VideoFrame], tuple[int, int, int]]:
        return lambda frame: (*_upright_size(frame), frame.rotation)

    source, which, rate, pictures = _decode(Path(path), settings.fps, settings.max_frames, facts)
    height, width, rotation = pictures[0]
    return {
        "backend": "pyav", "codec": source.codec, "stream": source.stream, "duration": source.duration, "fps": rate,
        "frames": len(which), "height": height, "width": width, "rotation": rotation,
        "timestamps": source.times[which].tolist(),
    }  # fmt: skip


def moments(times: np.ndarray, duration: float, fps: float, max_frames: int) -> tuple[np.ndarray, float]:
    """Which frames are on screen at k/fps seconds, k = 0, 1, ... before the end, and the effective fps.

    times: (N,) seconds, increasing from 0. Where that were more than `max_frames`, as many evenly spaced moments.
    """
    count = max(1, int(np.ceil((duration - EPSILON) * fps)))
    if count > max_frames:
        count, fps = max_frames, max_frames / duration
    wanted = np.arange(count) / fps
    return np.searchsorted(times, wanted + EPSILON, side="right") - 1, fps


class _Mistimed(Exception):
    """The pictures do not come as the packets announce them."""


Picture = Any
Prepare = Callable[[VideoFrame, int], Callable[[VideoFrame], Picture]]


def _decode(path: Path, fps: float, max_frames: int, prepare: Prepare):
    """(source, which, effective fps, {position: picture}); `prepare(first frame, count)` makes frame -> picture."""
    source = probe(path)
    if not source.walked:
        try:
            return _decode_timed(source, fps, max_frames, prepare)
        except _Mistimed as reason:
            log.info("%s: %s; reading the times from the pictures", path, reason)
            source = walk(path)
    return _decode_timed(source, fps, max_frames, prepare)


def _decode_timed(source: Probe, fps: float, max_frames: int, prepare: Prepare):
    which, rate = moments(source.times, source.duration, fps, max_frames)
    pictures, convert = {}, None
    for position, frame in _frames(source, set(which.tolist())):
        convert = convert or prepare(frame, len(which))
        pictures[position] = convert(frame)
    return source, which, rate, pictures


def _frames(source: Probe, wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames with their positions, in order. Raises _Mistimed when one does not come where expected."""
    position_of = {int(tick): position for position, tick in enumerate(source.ticks)}
    ticks = {int(source.ticks[position]) for position in wanted}
    missing, last = set(wanted), -1
    for ordinal, frame in enumerate(_pictures(source, ticks)):
        position = ordinal if source.walked else position_of.get(frame.pts, -1)
        if position <= last:
            raise _Mistimed(f"frame {ordinal} has timestamp {frame.pts} after {source.ticks[last]}")
        last = position
        if position in missing:
            missing.remove(position)
            yield position, frame
    if missing:
        raise _Mistimed(f"no picture for {len(missing)} of {len(wanted)} timestamps")


def _pictures(source: Probe, wanted: set[int]) -> Iterator[VideoFrame]:
    """All pictures in order of display, less those that are neither wanted nor needed by others."""
    with opened(source.path) as container:
        stream = container.streams[source.stream]
        context = stream.codec_context
        context.thread_count = 1  # videos are decoded side by side, one a core
        for packet in container.demux(stream):
            if source.skips:
                context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise refused(source.path, DAMAGED, f"a broken picture at {frame.time} s", "whole pictures")
                yield frame


def _orientation(frame: VideoFrame) -> tuple[bool, int, int]:
    """How the picture is put upright, from its display matrix: transpose?, then the steps of rows and of columns."""
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return False, 1, 1
    a, b, _, c, d = np.frombuffer(stored, np.int32)[:5]  # x' = ax + cy, y' = bx + dy
    transposed = abs(b) > abs(a)
    right, down = (c, b) if transposed else (a, d)
    return transposed, -1 if down < 0 else 1, -1 if right < 0 else 1


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    """(height, width)"""
    return (frame.width, frame.height) if _orientation(frame)[0] else (frame.height, frame.width)


def _picture(frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of the given upright size. Bicubic with antialiasing, as the released models saw it."""
    transposed, rows, columns = _orientation(frame)
    height, width = reversed(size) if transposed else size
    image = Image.fromarray(frame.to_ndarray(format="rgb24", threads=1))  # else as many as there are cores, a video
    picture = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return (picture.swapaxes(0, 1) if transposed else picture)[::rows, ::columns]
