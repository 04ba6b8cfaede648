"""What a video file says before it is decoded: which stream counts, when each frame is shown, whether all is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from tvg.errors import TvgError

DEFAULT_BONUS = 5_000_000  # pixels; ffmpeg's own weight of the "default" flag against resolution (map_auto_video)
WHOLE_PICTURES = {"mov", "matroska"}  # containers in which a packet is a whole picture, never a single field
MOST_MISSING = 0.5  # seconds that a file may end before its header says: padding, rounding
DAMAGED = "not a video, damaged or cut short"
LONGEST_GAP = 1.0  # seconds without a decodable picture where packets say that there are some


@dataclass(frozen=True, eq=False)
class Probe:
    """The chosen video stream and its timetable.

    stream: index in the file. ticks: (N,) int64, when each frame is first shown, in order, in units of time_base
    seconds. shown_last: how long the last frame stays, in seconds. walked: the ticks are those of decoded
    pictures, not of packets. skips: the decoder may leave out pictures that no other picture refers to.
    """

    path: Path
    stream: int
    codec: str
    ticks: np.ndarray
    time_base: Fraction
    shown_last: float
    skips: bool = False
    walked: bool = False

    @property
    def times(self) -> np.ndarray:
        """(N,) float64 seconds; the first frame is at 0."""
        return (self.ticks - self.ticks[0]) * float(self.time_base)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last frame's display."""
        return float(self.times[-1]) + self.shown_last


@dataclass
class _Packets:
    """The packets of one stream: presentation ticks (None where the container has none) and durations in ticks."""

    time_base: Fraction
    ticks: list[int | None]
    durations: list[int]

    def reach(self) -> float:
        """The last moment in seconds, or the length where the first packet is before 0."""
        shown = [
            (tick, tick + length) for tick, length in zip(self.ticks, self.durations, strict=True) if tick is not None
        ]
        first, last = min((s for s, _ in shown), default=0), max((e for _, e in shown), default=0)
        return float(max(last, last - first) * self.time_base)


@dataclass(frozen=True)
class _Listing:
    """A file's headers and packets, read without decoding.

    end: tick at which the stream ends, as its header says. stated: the length in seconds, as the header of the
    stream, or else of the file, says. Both None where nothing is said.
    """

    path: Path
    stream: int
    codec: str
    skips: bool
    mean_shown: float
    packets: _Packets
    others: list[_Packets]
    end: int | None
    stated: float | None


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a video; whatever ffmpeg reports inside the block becomes a TvgError."""
    try:
        # Some cameras write metadata that is not UTF-8, which is no reason to refuse the pictures.
        with av.open(str(path), metadata_errors="ignore") as container:
            yield container
    except av.FFmpegError as error:
        what = "no such video" if isinstance(error, FileNotFoundError) else DAMAGED
        raise refused(path, what, error.strerror, "a video file that ffmpeg decodes to its end") from error


def probe(path: Path) -> Probe:
    """Read the headers and the packet list; decodes nothing. Raises TvgError, also for a file that is cut short."""
    listing = _read(path)
    packets = listing.packets
    if None in packets.ticks:
        return walk(path)
    _check_complete(listing, packets.reach())
    ticks = np.unique(np.array(packets.ticks, np.int64))
    stated = dict(zip(packets.ticks, packets.durations, strict=True))[int(ticks[-1])]
    shown_last = _shown_last(ticks, stated, listing)
    return Probe(path, listing.stream, listing.codec, ticks, packets.time_base, shown_last, skips=listing.skips)


def walk(path: Path) -> Probe:
    """The timetable of the pictures that really leave the decoder, for files whose packets do not tell it.

    Pictures come in the order of display; where their timestamps do not (AVI with B-frames), the timestamps are
    sorted, as players do. Raises TvgError.
    """
    listing = _read(path)
    with opened(path) as container:
        stream = container.streams[listing.stream]
        stream.codec_context.thread_count = 1
        shown = [(frame.pts, frame.duration) for frame in container.decode(stream)]
    known = [tick for tick, _ in shown if tick is not None]
    if not shown or len(known) != len(shown):
        raise refused(path, "frames without timestamps", f"{len(known)} timestamps on {len(shown)} frames", "one each")
    ticks = np.sort(np.array(known, np.int64))
    base = listing.packets.time_base
    shown_last = _shown_last(ticks, shown[-1][1], listing)
    _check_complete(listing, float(max(ticks[-1], ticks[-1] - ticks[0]) * base) + shown_last)
    _check_gaps(listing, ticks)
    return Probe(path, listing.stream, listing.codec, ticks, base, shown_last, walked=True)


def _read(path: Path) -> _Listing:
    with opened(path) as container:
        found = {s.index: _Packets(s.time_base, [], []) for s in container.streams if s.time_base}
        for packet in container.demux():
            if packet.size and not packet.is_discard and packet.stream_index in found:
                found[packet.stream_index].ticks.append(packet.pts)
                found[packet.stream_index].durations.append(packet.duration or 0)
        stream = _choose(path, container, found)
        mine = found.pop(stream.index)
        codec, others, end, stated = stream.codec_context.codec.canonical_name, [], None, None
        if stream.duration:
            end, stated = (stream.start_time or 0) + stream.duration, float(stream.duration * stream.time_base)
        elif container.duration:  # of the longest stream: sound often outlasts the picture
            stated, others = container.duration / av.time_base, list(found.values())
        # In H.264 "no reference" is final; in HEVC a picture of a higher temporal layer may still refer to it.
        skips = codec == "h264" and not WHOLE_PICTURES.isdisjoint(container.format.name.split(","))
        mean_shown = float(1 / stream.average_rate) if stream.average_rate else 0.0
        return _Listing(path, stream.index, codec, skips, mean_shown, mine, others, end, stated)


def _choose(path: Path, container: InputContainer, packets: dict[int, _Packets]) -> VideoStream:
    """The stream that `ffmpeg -i path` picks: the largest picture, with a bonus for the default flag; no cover art."""

    def score(stream: VideoStream) -> int:
        return stream.width * stream.height + DEFAULT_BONUS * bool(stream.disposition & Disposition.default)

    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    usable = [s for s in moving if s.codec_context is not None and s.index in packets and packets[s.index].ticks]
    if not usable:
        got = ", ".join(stream.type for stream in container.streams) or "no streams"
        raise refused(path, "no video stream that can be decoded", got, "a video stream with frames")
    return max(usable, key=score)


def _shown_last(ticks: np.ndarray, stated: int | None, listing: _Listing) -> float:
    """How long the last frame stays, in seconds: as stated, else as long as the one before, else at the mean rate.

    MP4 states the time between two packets, which is another thing with B-frames: the stream's end is the limit.
    """
    last = int(ticks[-1])
    if not stated and len(ticks) > 1:
        stated = last - int(ticks[-2])
    if stated and listing.end is not None and listing.end > last:
        stated = min(stated, listing.end - last)
    return float(stated * listing.packets.time_base) if stated else listing.mean_shown


def _check_complete(listing: _Listing, reached: float) -> None:
    """A cut file ends silently: compare the end of its frames, in seconds, with what its header promises."""
    if listing.stated is None:
        return
    reached = max([reached, *(packets.reach() for packets in listing.others)])
    if reached < listing.stated - min(MOST_MISSING, 0.1 * listing.stated):
        raise refused(
            listing.path, "the video is cut short", f"frames up to {reached:.2f} s",
            f"{listing.stated:.2f} s, as its header says",
        )  # fmt: skip


def _check_gaps(listing: _Listing, ticks: np.ndarray) -> None:
    """Single packets without a picture are normal (hidden frames); a second of them is damage."""
    listed = np.array([tick for tick in listing.packets.ticks if tick is not None and tick >= ticks[0]], np.int64)
    if not len(listed):
        return
    gap = float((listed - ticks[np.searchsorted(ticks, listed, side="right") - 1]).max() * listing.packets.time_base)
    if gap > LONGEST_GAP:
        raise refused(listing.path, DAMAGED, f"no picture for {gap:.2f} s", "a picture per packet")


def refused(path: Path, what: str, got: object, expected: str) -> TvgError:
    """The error of a video that cannot be used."""
    hint = "download it again; if it plays, re-encode it: ffmpeg -i IN OUT.mp4"
    return TvgError(path, what, got=got, expected=expected, hint=hint)
