"""Sampling a video at 2 frames per second: what `tvg.video.decode.sample` costs beside decord, and who is right.

    python benchmarks/frames.py [--seconds 30] [--repeats 5] > benchmarks/results/frames.json

Each clip is drawn, 854 x 480 at 30 frames per second, and carries its frame number in the picture, so that a wrong
frame counts. Both backends pick frames from timestamps, on one thread, and end with the same bicubic resize. CPU time
is what a node that decodes one video per core pays.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tvg.settings import FramesSettings
from tvg.video.budget import fit
from tvg.video.decode import moments, sample

try:
    import decord
except ImportError:
    decord = None

WIDTH, HEIGHT, RATE, BITS, BLOCK = 854, 480, 30, 10, 48
CLIPS = {
    "h264.mp4": ("libx264", {}),
    "h264_open_gop.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=60"}),
    "h264_keyframe_each_second.mp4": ("libx264", {"g": "30"}),
    "h264_no_b_frames.mp4": ("libx264", {"bf": "0"}),
    "hevc.mp4": ("libx265", {"preset": "fast", "x265-params": "log-level=none"}),
}


def draw(path: Path, codec: str, options: dict[str, str], seconds: int) -> Path:
    """A grainy texture that pans; the number's bits are black and white blocks along the top."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (HEIGHT // 16 + 20, WIDTH // 16 + 20, 3), np.uint8)
    texture = np.asarray(Image.fromarray(small).resize((WIDTH + 300, HEIGHT + 300), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * RATE):
            x, y = int(150 + 140 * np.sin(number / 40)), int(150 + 140 * np.cos(number / 55))
            grain = random.integers(-6, 7, (HEIGHT, WIDTH, 1), np.int16)
            picture = np.clip(texture[y : y + HEIGHT, x : x + WIDTH] + grain, 0, 255).astype(np.uint8)
            bits = (number >> np.arange(BITS) & 1).repeat(BLOCK) * 255
            picture[:BLOCK, : BITS * BLOCK] = bits[None, :, None]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


def number_of(picture: np.ndarray) -> int:
    columns = (np.arange(BITS) + 0.5) * BLOCK * picture.shape[1] / WIDTH
    row = picture[int(BLOCK / 2 * picture.shape[0] / HEIGHT), columns.astype(int)]
    return int(((row.mean(axis=1) > 128) << np.arange(BITS)).sum())


def with_tvg(path: Path) -> np.ndarray:
    return sample(path, FramesSettings()).pixels


def with_decord(path: Path) -> np.ndarray:
    reader = decord.VideoReader(str(path), num_threads=1)
    shown = reader.get_frame_timestamp(range(len(reader)))
    begins = shown[:, 0] - shown[0, 0]
    which, _ = moments(begins, float(shown[-1, 1] - shown[0, 0]), 2.0, 768)
    pictures = reader.get_batch(which.tolist()).asnumpy()
    height, width = fit(*pictures.shape[1:3], len(which), FramesSettings())
    small = [Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC) for p in pictures]
    return np.stack([np.asarray(picture) for picture in small])


def measure(decode: Callable[[Path], np.ndarray], path: Path, repeats: int, seconds: int) -> dict:
    """Milliseconds of CPU and of wall clock, and how many frames are not the ones on screen."""
    cpu, wall = [], []
    for _ in range(repeats):
        began, ticked = time.perf_counter(), time.process_time()
        pictures = decode(path)
        cpu.append(1000 * (time.process_time() - ticked))
        wall.append(1000 * (time.perf_counter() - began))
    wanted = [k * RATE // 2 for k in range(2 * seconds)]
    wrong = sum(number_of(p) != n for p, n in zip(pictures, wanted, strict=False)) + abs(len(pictures) - len(wanted))
    times = {
        name: {"median": round(statistics.median(ms)), "least": round(min(ms)), "most": round(max(ms))}
        for name, ms in (("cpu_ms", cpu), ("wall_ms", wall))
    }
    return {**times, "frames": len(pictures), "wrong": wrong}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=30, help="length of the clips")
    options.add_argument("--repeats", type=int, default=5)
    options = options.parse_args()
    backends = {"tvg": with_tvg} | ({"decord": with_decord} if decord else {})
    result = {
        "benchmark": "frames", "machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
        "av": av.__version__, "decord": decord.__version__ if decord else None,
        "seconds": options.seconds, "size": f"{WIDTH}x{HEIGHT}", "clips": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, (codec, encoding) in CLIPS.items():
            path = draw(Path(folder) / name, codec, encoding, options.seconds)
            result["clips"][name] = {
                backend: measure(decode, path, options.repeats, options.seconds) for backend, decode in backends.items()
            }
    print(json.dumps(result, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
