"""How long many videos are: as their headers say, which is quick, or by their packets, which reads every byte."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av

from tvg.errors import TvgError
from tvg.progress import progress
from tvg.video.probe import opened, probe


def measure(paths: Iterable[Path], exact: bool, jobs: int = 1) -> dict[str, float | str]:
    """File name -> seconds, or in words why the file has none. Threads wait for the disk side by side.

    exact: as frames are sampled, by the packets, so that a file that is cut short is found; else as the header says.
    """
    paths = sorted(set(paths))
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        found = pool.map(_exactly if exact else _as_stated, paths)
        found = progress(found, "reading packets" if exact else "reading headers", "videos", len(paths))
        return {path.name: length for path, length in zip(paths, found, strict=True)}


def _as_stated(path: Path) -> float | str:
    try:
        with opened(path) as container:
            stream = container.streams.best("video")
            if stream is None:
                return "no video stream"
            if stream.duration:
                return float(stream.duration * stream.time_base)
            if container.duration:  # of the longest stream
                return container.duration / av.time_base
    except TvgError as error:
        return f"{error.what}: {error.got}"
    return _exactly(path)


def _exactly(path: Path) -> float | str:
    try:
        return probe(path).duration
    except TvgError as error:
        return f"{error.what}: {error.got}"
