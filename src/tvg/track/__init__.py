"""MLflow, filled from the results folder: once (`sweep`), or as long as something runs (`follow`). Its only writer.

The files are the truth and MLflow is derived from them: a training never waits for it, and it may be deleted and filled
again. Writing takes a file lock, so that two of us never write at once.
"""

import fcntl
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tvg.errors import TvgError
from tvg.track.page import url
from tvg.track.read import Reader
from tvg.track.write import Writer, Written, database

__all__ = ["Summary", "Tracker", "follow", "store_uri", "sweep", "url"]
log = logging.getLogger(__name__)

SECONDS_BETWEEN_SWEEPS = 5.0


@dataclass(frozen=True)
class Summary:
    """What a sweep found and wrote. experiment: MLflow's id, None where nothing has run. problems: file -> what."""

    experiment: str | None
    runs: int
    written: Written
    problems: dict[str, str]
    seconds: float


class Tracker:
    """Sweeps one results/{scale} into MLflow, again and again at little cost."""

    def __init__(self, results: Path, uri: str | None = None, artifacts: Path | None = None):
        self.root = results.resolve()
        self.uri = uri or store_uri(self.root)
        self.artifacts = artifacts or self.root.parent / "mlartifacts"
        self.reader = Reader(self.root)
        self._writer: Writer | None = None
        self._last: list | None = None
        self._stamp: int | None = None

    def sweep(self) -> Summary:
        """Raises whatever MLflow, its server or the file system raise; the next sweep starts afresh then."""
        began, runs, written = time.monotonic(), self.reader.runs(), Written()
        if runs and (runs != self._last or self._stale()):
            self._last = None
            with _alone(self.root.parent) as file:
                written = self._write(file, runs)
            self._last = runs
        problems = self.reader.problems | (self._writer.problems if self._writer else {})
        experiment = self._writer.experiment if self._writer else None
        return Summary(
            experiment, sum(1 + len(run.children) for run in runs), written, problems, time.monotonic() - began
        )

    def _write(self, file: IO[str], runs: list) -> Written:
        if self._writer is None or self._stale() or os.fstat(file.fileno()).st_mtime_ns != self._stamp:
            self._writer = Writer(self.uri, f"tvg-{self.root.name}", self.artifacts, _name(file))
        writer, self._writer = self._writer, None  # kept only if all goes well
        writer.written = Written()
        writer.write(runs, complete=self.reader.complete)
        if writer.written.total:
            os.utime(file.fileno())  # tells another of us to look again
        self._stamp, self._writer = os.fstat(file.fileno()).st_mtime_ns, writer
        return writer.written

    def _stale(self) -> bool:
        """Whether the database was deleted since."""
        file = database(self.uri)
        return file is not None and not file.exists()


def store_uri(results: Path) -> str:
    """The store of a results root: results/mlflow.db, for results/{scale}."""
    return f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def sweep(results: Path, uri: str | None = None, artifacts: Path | None = None) -> Summary:
    """Write all that has run under `results` (results/{scale}) and is not in MLflow yet.

    uri: an MLflow server or database; results/mlflow.db if None. artifacts: where a database keeps files;
    results/mlartifacts if None. Raises TvgError if it cannot be written.
    """
    try:
        summary = Tracker(results, uri, artifacts).sweep()
    except _failures() as error:
        raise TvgError(
            uri or store_uri(results), "cannot write to MLflow", got=error, expected="an MLflow server or database",
            hint="nothing is lost: mend it and run `tvg track` again; a broken results/mlflow.db may be deleted",
        ) from error  # fmt: skip
    _say(summary)
    return summary


def follow(
    results: Path,
    uri: str | None = None,
    artifacts: Path | None = None,
    *,
    parent: int | None = None,
    seconds: float = SECONDS_BETWEEN_SWEEPS,
) -> Summary | None:
    """Sweep every few seconds until SIGTERM or SIGINT, or until the process `parent` is gone; then once more.

    A failed sweep is logged and tried again: MLflow never stops what it watches. Returns the last sweep, None if that
    failed.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    tracker, summary = Tracker(results, uri, artifacts), None
    try:
        while True:
            last = stop.is_set() or not _alive(parent)
            try:
                summary = tracker.sweep()
                _say(summary)
            except _failures() as error:
                summary = None
                log.warning("MLflow is behind: %s%s", error, "" if last else f"; next try in {seconds:g} s")
            if last:
                return summary
            stop.wait(seconds)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(summary: Summary) -> None:
    wrote = summary.written
    log.log(
        logging.INFO if wrote.created or wrote.statuses else logging.DEBUG,  # not for each new step
        "MLflow: %d runs, %d new, %d metric values, %d files, %.1f s",
        summary.runs, wrote.created, wrote.metrics, wrote.files, summary.seconds,
    )  # fmt: skip


def _failures() -> tuple[type[Exception], ...]:
    """What can go wrong without its being ours: looked up late, because importing MLflow takes seconds."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, TvgError


@contextmanager
def _alone(folder: Path) -> Iterator[IO[str]]:
    """The lock of a results root, held: a file that also names it."""
    with (folder / "track.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another `tvg track` is writing: waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _name(file: IO[str]) -> str:
    """The random name of a results root, so that runs of several people on one server stay apart."""
    file.seek(0)
    name = file.read().strip()
    if not name:
        name = uuid.uuid4().hex[:12]
        file.write(name + "\n")
        file.flush()
    return name


def _alive(process: int | None) -> bool:
    if process is None:
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
