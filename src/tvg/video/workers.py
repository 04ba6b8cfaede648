"""Decode videos side by side, in processes that may hang or die without taking the run along."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tvg.errors import TvgError
from tvg.settings import FramesSettings
from tvg.video.decode import Frames, sample

_SPAWN = multiprocessing.get_context("spawn")  # a fork would inherit the locks of whatever threads the caller has


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    video: str = ""
    deadline: float = 0.0

    @classmethod
    def start(cls, settings: FramesSettings) -> "_Worker":
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, settings), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def give(self, video: str, path: Path, time_limit: float) -> None:
        self.video, self.deadline = video, time.monotonic() + time_limit
        with suppress(BrokenPipeError):  # it died while idle: `take` will say so
            self.pipe.send(path)

    def take(self) -> Frames | str | None:
        """The result, or None where the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def kill(self) -> int | None:
        """End the process; returns its exit status."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def decode_all(
    videos: dict[str, Path], settings: FramesSettings, jobs: int, time_limit: float
) -> Iterator[tuple[str, Frames | str]]:
    """Yield (video, frames) or (video, reason of its failure) as they come, on `jobs` processes.

    A video that takes more than `time_limit` seconds, or on which the decoder crashes, costs a process, not the run.
    """
    waiting, idle, busy = deque(videos.items()), [], {}
    try:
        while waiting or busy:
            while waiting and len(busy) < max(1, jobs):
                worker = idle.pop() if idle else _Worker.start(settings)
                busy[worker.pipe] = worker
                worker.give(*waiting.popleft(), time_limit)
            nearest = min(worker.deadline for worker in busy.values())
            for pipe in wait(busy, timeout=max(0.0, nearest - time.monotonic())):
                worker = busy.pop(pipe)
                result = worker.take()
                if result is None:
                    result = f"the decoder crashed (exit status {worker.kill()})"
                else:
                    idle.append(worker)
                yield worker.video, result
            for worker in _overdue(busy):
                worker.kill()
                yield worker.video, f"decoding took more than {time_limit:g} s"
    finally:
        for worker in [*idle, *busy.values()]:
            worker.kill()


def _overdue(busy: dict[Connection, _Worker]) -> list[_Worker]:
    now = time.monotonic()
    late = [pipe for pipe, worker in busy.items() if worker.deadline <= now and not pipe.poll()]
    return [busy.pop(pipe) for pipe in late]


def _serve(pipe: Connection, settings: FramesSettings) -> None:
    """Decode what comes through the pipe until it closes. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            path = pipe.recv()
            try:
                result = sample(path, settings)
            except TvgError as error:
                result = f"{error.what}: {error.got}"
            pipe.send(result)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
