"""Stopping a job: a signal raises a flag, and the trainer looks at it where no weight is half updated."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tvg.train import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """The job was asked to stop. `code`: the exit status, 130 for SIGINT and 143 for the scheduler's signals."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.code = 130 if signum == signal.SIGINT else 143

    @property
    def grace(self) -> float:
        """Seconds to stay alive once all is saved: SLURM requeues a preempted job only if it stays until killed."""
        return 0.0 if self.code == 130 else float(os.environ.get("TVG_GRACE_SECONDS", "0"))


class Stop:
    """Whether the job was asked to stop: of several processes, any."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def check(self) -> None:
        """Raises Interrupted once a signal has come, in all processes at once: all call this equally often."""
        if signum := processes.most(self.signum or 0):
            raise Interrupted(signum)


@contextmanager
def caught() -> Iterator[Stop]:
    """Catch the signals that stop a job. A second Ctrl-C acts as it always did: the user is in earnest."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(signum: int, _frame: object) -> None:
        if stop.signum is not None and signum == signal.SIGINT:
            signal.signal(signum, before[signum])
            signal.raise_signal(signum)
        stop.signum = stop.signum or signum

    before = {signum: signal.signal(signum, note) for signum in SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
