"""Videos that carry their own frame numbers in the picture, so that a wrong frame is seen, not guessed.

A picture is BITS columns, column b white in its upper half and black in its lower half where bit b of the number is
set, the other way round where it is not: a turned, flipped or half-blended picture reads as None.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10
MILLISECONDS = Fraction(1, 1000)
H264 = {"preset": "veryfast", "x264-params": "log-level=none"}
HEVC = {"preset": "veryfast", "x265-params": "log-level=none"}


@dataclass(frozen=True)
class Track:
    """One video stream: frame i shows number first + i from times[i] on, in ticks of `clock` seconds.

    The last frame stays for `last` ticks where the container can say so (mp4), else for 1 / rate seconds. `noise`
    levels (at most 19) keep a picture from being a few bytes.
    """

    times: Sequence[int]
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: H264)
    size: tuple[int, int] = (160, 96)
    clock: Fraction = MILLISECONDS
    rate: int = 30
    last: int = 33
    first: int = 0
    noise: int = 0
    disposition: str | None = None


def drawn(number: int, size: tuple[int, int] = (160, 96)) -> np.ndarray:
    """(height, width, 3) uint8; size is (width, height)."""
    width, height = size
    bits = (number >> np.arange(BITS)) & 1
    upper = np.repeat(bits, -(-width // BITS))[:width]
    rows = np.where(np.arange(height)[:, None] < height // 2, upper, 1 - upper)
    return np.repeat((rows * 220 + 16).astype(np.uint8)[..., None], 3, axis=2)


def read_number(picture: np.ndarray) -> int | None:
    """The number in an (H, W, 3) picture of any size, None where it is not upright or not one frame."""
    height, width = picture.shape[:2]
    columns = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    upper, lower = (picture[int(height * y), columns].mean(axis=1) / 255 for y in (0.25, 0.75))
    if np.any(np.abs(upper - lower) < 0.5):
        return None
    return int(((upper > lower) << np.arange(BITS)).sum())


def steady(count: int, fps: int, start: int = 0) -> list[int]:
    """Milliseconds of a constant rate."""
    return [start + round(1000 * i / fps) for i in range(count)]


def make_video(
    path: Path, *tracks: Track, audio_seconds: float = 0.0, muxer: dict[str, str] | None = None, title: str = ""
) -> Path:
    """Write the tracks into one file, the container by the suffix; sound, if any, comes as the last stream."""
    with av.open(str(path), "w", options=muxer or {}) as out:
        out.metadata["title"] = title
        streams = [_add(out, track) for track in tracks]
        sound = out.add_stream("aac", rate=16000) if audio_seconds else None
        for stream, track in zip(streams, tracks, strict=True):
            _draw(out, stream, track)
        if sound:
            _add_silence(out, sound, audio_seconds)
    return path


def _add(out, track: Track):
    stream = out.add_stream(track.codec, rate=track.rate, options=track.options)
    stream.width, stream.height = track.size
    stream.pix_fmt = "yuvj420p" if track.codec == "mjpeg" else "yuv420p"
    stream.codec_context.time_base = stream.time_base = track.clock  # keeps the ticks as they are
    stream.codec_context.thread_count = 1
    if track.disposition:
        stream.disposition = av.stream.Disposition[track.disposition]
    return stream


def _draw(out, stream, track: Track) -> None:
    stays = dict(zip(track.times, [*np.diff(track.times).tolist(), track.last], strict=True))
    for i, tick in enumerate([*track.times, None]):
        frame = None
        if tick is not None:
            picture = drawn(track.first + i, track.size)
            if track.noise:
                picture = picture + np.random.default_rng(i).integers(0, track.noise, picture.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, track.clock
        for packet in stream.encode(frame):
            packet.duration = stays[packet.pts]
            out.mux(packet)


def _add_silence(out, sound, seconds: float) -> None:
    for start in range(0, int(16000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        out.mux(sound.encode(frame))
    out.mux(sound.encode())


def remux(source: Path, target: Path, after: float) -> Path:
    """Copy the packets from the last keyframe before `after` seconds, as `ffmpeg -ss AFTER -c copy` does.

    The container then hides what comes before AFTER with an edit list (mp4).
    """
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        begin = round(after / stream.time_base)
        old.seek(begin, stream=stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                packet.stream = copy
                new.mux(packet)
    return target


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write the 2 x 2 part (a, b, c, d) of the display matrix into the first track header of an mp4, in place."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8  # version and flags, times and ids, reserved, layer to volume
    for value, offset in zip(matrix, (0, 4, 12, 16), strict=True):
        data[at + offset : at + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path
