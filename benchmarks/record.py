"""One run of a benchmark: a clock that waits for the GPU, and a JSON object that is on disk as it grows."""

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

import tvg.model  # noqa: F401 imported before transformers is: tvg.model.shim
from tvg import facts

Result = TypeVar("Result")


class Record:
    """The run's `values`, and on stderr, with the seconds since its start, what it is about to do.

    file: a JSON list that the run is the last entry of, written again whenever a part is done; None: stdout alone.
    """

    def __init__(self, benchmark: str, options: argparse.Namespace):
        here = facts.here(options.device)
        self.values = {
            "benchmark": benchmark, "commit": options.commit or here["commit"], "dirty": here["dirty"],
            "started": facts.now(), "gpu": here["device"], "versions": here["versions"], "command": sys.argv[1:],
            "failed": {},
        }  # fmt: skip
        self.file, self._began = options.append, time.monotonic()
        found = json.loads(self.file.read_text()) if self.file and self.file.exists() else []
        self._before = found if isinstance(found, list) else [found]

    def say(self, text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:7.1f} s  {text}\n")
        sys.stderr.flush()

    def add(self, **values: object) -> None:
        """Put these among the values, and the values on disk; an object that is there already is added to."""
        for name, value in values.items():
            known = self.values.get(name)
            self.values[name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_suffix(".partial")
            partial.write_text(json.dumps([*self._before, self.values], indent=1) + "\n")
            partial.replace(self.file)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What fails in here is told and recorded in `failed`; the parts after it are still measured."""
        self.say(name)
        try:
            yield
        except Exception as error:  # noqa: BLE001 minutes on a GPU are too few to lose the other parts to one
            traceback.print_exc()
            self.add(failed={name: f"{type(error).__name__}: {str(error)[:500]}"})

    def end(self) -> int:
        """Print the object; the exit status, 1 where a part failed."""
        self.add(seconds=round(time.monotonic() - self._began, 1))
        print(json.dumps(self.values, indent=1))  # noqa: T201
        return int(bool(self.values["failed"]))


def arguments(text: str) -> argparse.ArgumentParser:
    """The options that every benchmark of the model side has."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--append", type=Path, metavar="FILE", help="a JSON list to put the result into, newest last")
    options.add_argument("--commit", help="where git cannot tell (default: this checkout's)")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--shape", default="3b", choices=("3b", "tiny"))
    options.add_argument("--compile", action="store_true", help="let torch.compile fuse what it can of ours")
    options.add_argument("--policy", default="shared", choices=("shared", "plain"), help="which implementation is ours")
    return options


def wait() -> None:
    """Until the GPU has done what it was told."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(work: Callable[[], Result], repeats: int = 1, warm: Callable[[], object] | None = None) -> tuple:
    """Median seconds of `work` after a run of `warm` (of itself, if not given), and its last result."""
    (warm or work)()
    taken = []
    for _ in range(repeats):
        result = None  # two results side by side would be memory that the path does not need
        wait()
        began = time.perf_counter()
        result = work()
        wait()
        taken.append(time.perf_counter() - began)
    return shortened(statistics.median(taken)), result


def peak_gb(work: Callable[[], object]) -> float | None:
    """The most that is allocated on the GPU while `work` runs, weights included, in 10^9 bytes; None on a CPU."""
    if not torch.cuda.is_initialized():
        work()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    wait()
    return shortened(torch.cuda.max_memory_allocated() / 1e9)


def shortened(value: float) -> float:
    """To four digits, which is more than a clock is good for."""
    return float(f"{value:.4g}")
