"""Starting the processes of one training, one a GPU, and ending them together.

torchrun would do but for signals: it knows no SIGUSR1, and kills what has not ended 30 s after a SIGTERM, which is less
than a checkpoint of 3 billion parameters takes.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.distributed import TCPStore

from tvg.errors import TvgError
from tvg.train.signals import SIGNALS

log = logging.getLogger(__name__)
TO_FOLLOW = 10.0  # seconds that the others have to end by themselves, once one process has failed
LOCAL = "127.0.0.1"


def check_gpus(asked: int) -> None:
    """Raises TvgError where there are fewer GPUs."""
    if (found := torch.cuda.device_count()) < asked:
        raise TvgError(
            "--gpus",
            "fewer GPUs than asked for",
            got=f"{found}" + (f" (CUDA_VISIBLE_DEVICES={v})" if (v := os.environ.get("CUDA_VISIBLE_DEVICES")) else ""),
            expected=asked,
            hint="set the job's resource `gpu` to what a node has: --set-resources train:gpu=1, or the profile's line",
        )


def launch(command: Sequence[str], count: int) -> int:
    """Run the command as `count` processes that train together (tvg.train.processes); returns the exit status.

    Signals that stop a job go to all of them, and all end with 130 or 143. Where one fails the others are killed, since
    they would wait for it, and the status is its own; 128 + n where signal n has killed it.
    """
    store = TCPStore(LOCAL, 0, is_master=True, wait_for_workers=False)  # at a free port
    together = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "MASTER_ADDR": LOCAL,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is here, not in the first process
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    workers: list[subprocess.Popen] = []
    with _passed_on(workers):
        try:
            for rank in range(count):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # in a session of its own: the terminal's Ctrl-C must come once, from here
                workers.append(subprocess.Popen(command, env=together | place, start_new_session=True))
            return _end(workers)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


@contextmanager
def _passed_on(workers: list[subprocess.Popen]) -> Iterator[None]:
    """Signals that stop a job go to the workers, those that come while they are being started too late for some."""

    def pass_on(signum: int, _frame: object) -> None:
        for worker in workers:
            worker.send_signal(signum)

    before = {signum: signal.signal(signum, pass_on) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _end(workers: list[subprocess.Popen]) -> int:
    """Wait for all; the status of the first to fail, which the others may only follow for so long."""
    first = None
    while None in [worker.poll() for worker in workers]:
        time.sleep(0.1)
        if first is None:
            first = next((worker for worker in workers if worker.returncode), None)
            failed = time.monotonic()
        elif time.monotonic() - failed > TO_FOLLOW:
            log.error("process %d of %d failed: stopping the others", workers.index(first) + 1, len(workers))
            break
    first = first or next((worker for worker in workers if worker.returncode), workers[0])
    return first.returncode if first.returncode >= 0 else 128 - first.returncode
