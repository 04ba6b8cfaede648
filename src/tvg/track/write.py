"""The one writer of MLflow: makes it hold what `read` found, and writes nothing that it holds already.

What is known of earlier sweeps stands in MLflow itself, as tags of each run:
`tvg.store` and `tvg.id`: which results folder and which run of it (several people may share a server);
`tvg.names`: the stages and evaluations of an arm, by id; `tvg.files`: hash of its artifacts;
`tvg.begun`: how many lines of metrics.jsonl were about to be logged, and their hash; `tvg.rows`: how many were.
"""

import getpass
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvg.errors import TvgError
from tvg.track.describe import is_number
from tvg.track.page import SUPERSEDED, experiment_tags, metric_name
from tvg.track.runs import Run

if TYPE_CHECKING:
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

STATUS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
POINTS, SETTINGS = 900, 100  # MLflow's limits for one batch: 1000 entries in all, 100 parameters, 100 tags
LONGEST = {"tag": 8000, "parameter": 6000}  # characters


@dataclass
class Held:
    """What MLflow holds of one run, kept in step with what is written."""

    run_id: str
    status: str
    end: int | None  # unix milliseconds
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


@dataclass
class Written:
    """What a sweep wrote."""

    created: int = 0
    replaced: int = 0  # runs whose metrics.jsonl was cut back or started again
    metrics: int = 0
    params: int = 0
    tags: int = 0
    files: int = 0
    statuses: int = 0

    @property
    def total(self) -> int:
        return sum(vars(self).values())


class Writer:
    """One MLflow experiment, `tvg-{scale}`, and the runs in it that come from the results folder `store`."""

    def __init__(self, uri: str, experiment: str, artifacts: Path, store: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("DO_NOT_TRACK", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7, its default, is minutes without a server
        from mlflow import MlflowClient

        self.store, self.written, self.problems = store, Written(), {}
        if file := database(uri):
            os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # else a deleted file is written on
            if not file.exists():
                _create(file, artifacts)
        self.client = MlflowClient(tracking_uri=uri)
        self.experiment, self._experiment_tags = self._open(experiment, None if _is_server(uri) else artifacts)
        self._held: dict[tuple[str, str], list[Held]] = {}  # (parent's run id, key) -> newest first
        for found in self._search():
            self._remember(_held(found))
        self._done: dict[str, Run] = {}

    def write(self, runs: list[Run], complete: bool = True) -> None:
        """Everything that is not there yet. complete: what is not among `runs` is no longer planned."""
        current = set()
        for run in runs:
            held = self._put(run)
            current.add(held.run_id)
            for child in run.children:
                self._put(child, held.run_id)
        if complete:
            self._supersede(current)
        for key, value in experiment_tags(runs).items():
            if self._experiment_tags.get(key) != value:
                self.client.set_experiment_tag(self.experiment, key, value)
                self._experiment_tags[key] = value
                self.written.tags += 1

    # ------------------------------------------------------------ one run

    def _put(self, run: Run, parent: str = "") -> Held:
        held = next((h for h in self._held.get((parent, run.key), []) if _same_plan(h, run)), None)
        if held and self._done.get(held.run_id) == run:
            return held
        lines = _lines(run.history)
        if held and lines is not None and not _begins_with(lines, held.tags.get("tvg.begun")):
            self.client.delete_run(held.run_id)  # metrics cannot be taken back, so the curve is drawn anew
            self._held[parent, run.key].remove(held)
            held, self.written.replaced = None, self.written.replaced + 1
        held = held or self._create_run(run, parent)
        self._describe(held, run)
        self._draw(held, lines or [], run.history)
        self._attach(held, run.files)
        self._mark(held, run)
        self._done[held.run_id] = run
        return held

    def _create_run(self, run: Run, parent: str) -> Held:
        tags = _tags(run) | {"tvg.store": self.store, "tvg.id": run.key, "mlflow.source.name": "tvg"}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        with suppress(KeyError, OSError):  # a container without a user name
            tags["mlflow.user"] = getpass.getuser()
        held = _held(self.client.create_run(self.experiment, _milliseconds(run.start), tags, run.name))
        self._remember(held)
        self.written.created += 1
        return held

    def _describe(self, held: Held, run: Run) -> None:
        """Tags, parameters and newest metrics. MLflow changes no parameter, nor does what a spec's id stands for."""
        from mlflow.entities import Metric, Param, RunTag

        now = round(time.time() * 1000)
        tags = {k: v for k, v in _tags(run).items() if held.tags.get(k) != v}
        params = {k: v for name, v in run.params.items() if (k := metric_name(name)) not in held.params}
        metrics = {k: v for name, v in run.metrics.items() if not _same(held.metrics.get(k := metric_name(name)), v)}
        for part in _slices(list(tags.items()), SETTINGS):
            self.client.log_batch(held.run_id, tags=[RunTag(k, v) for k, v in part])
        for part in _slices(list(params.items()), SETTINGS):
            self.client.log_batch(held.run_id, params=[Param(k, v[: LONGEST["parameter"]]) for k, v in part])
        for part in _slices(list(metrics.items()), POINTS):
            self.client.log_batch(held.run_id, metrics=[Metric(k, v, now, 0) for k, v in part])
        held.tags |= tags
        held.params |= params
        held.metrics |= metrics
        self._count(tags=len(tags), params=len(params), metrics=len(metrics))

    def _draw(self, held: Held, lines: list[bytes], source: Path | None) -> None:
        """The rows of metrics.jsonl that are new. MLflow drops points that it has, so a sweep cut short is repeated."""
        done = int(held.tags.get("tvg.rows", 0))
        if len(lines) <= done:
            return
        self._tag(held, "tvg.begun", _fingerprint(lines, len(lines)))
        points, broken = [], []
        for number, line in enumerate(lines[done:], done + 1):
            row = []
            try:
                row = _points(line)
            except (ValueError, KeyError, TypeError, AttributeError):
                broken.append(number)
            if len(points) + len(row) > POINTS:
                self._log(held, points, number - 1)
                points = []
            points += row
        self._log(held, points, len(lines))
        if broken:
            self.problems[str(source)] = f"lines {', '.join(map(str, broken))} are no metrics"
            log.warning("%s: %s, left out of MLflow", source, self.problems[str(source)])

    def _log(self, held: Held, points: "list[Metric]", rows: int) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(held.run_id, metrics=points, tags=[RunTag("tvg.rows", str(rows))])
        held.tags["tvg.rows"] = str(rows)
        self._count(metrics=len(points), tags=1)

    def _attach(self, held: Held, files: dict[str, Path | str]) -> None:
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            whole = hashlib.sha256()
            for name, source in sorted(files.items()):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(source, Path):
                    shutil.copyfile(source, path)
                else:
                    path.write_text(source, encoding="utf-8")
                whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
            if held.tags.get("tvg.files") != (digest := whole.hexdigest()[:16]):
                self.client.log_artifacts(held.run_id, folder)
                self._tag(held, "tvg.files", digest)
                self._count(files=len(files))

    def _mark(self, held: Held, run: Run) -> None:
        status, end = STATUS[run.state], _milliseconds(run.end)
        if status == held.status and (status == "RUNNING" or end in (None, held.end)):
            return
        if status == "RUNNING":
            self.client.update_run(held.run_id, status)
        else:
            self.client.set_terminated(held.run_id, status, end)
        held.status, held.end = status, end
        self._count(statuses=1)

    # ------------------------------------------------------------ all runs

    def _supersede(self, current: set[str]) -> None:
        """Arms that no pointer describes any more stay, with a state that says so."""
        everything = [held for found in self._held.values() for held in found]
        gone = {held.run_id for held in everything if held.tags["kind"] == "arm" and held.run_id not in current}
        for held in everything:
            of_gone = held.run_id in gone or held.tags.get("mlflow.parentRunId") in gone
            if of_gone and held.tags["state"] != SUPERSEDED:
                self._tag(held, "state", SUPERSEDED)
                self._done.pop(held.run_id, None)

    def _tag(self, held: Held, key: str, value: str) -> None:
        self.client.set_tag(held.run_id, key, value)
        held.tags[key] = value
        self._count(tags=1)

    def _count(self, **more: int) -> None:
        for what, count in more.items():
            setattr(self.written, what, getattr(self.written, what) + count)

    def _remember(self, held: Held) -> None:
        slot = held.tags.get("mlflow.parentRunId", ""), held.tags["tvg.id"]
        self._held.setdefault(slot, []).insert(0, held)

    def _search(self) -> Iterator[Any]:
        """Our runs, oldest first."""
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.`tvg.store` = '{self.store}'", max_results=1000,
                order_by=["attributes.start_time ASC"], page_token=token,
            )  # fmt: skip
            yield from page
            token = page.token
            if not token:
                return

    def _open(self, name: str, artifacts: Path | None) -> tuple[str, dict[str, str]]:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            with suppress(MlflowException):  # another machine was faster: then it is there now
                self.client.create_experiment(name, (artifacts / name).resolve().as_uri() if artifacts else None)
            found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage == "deleted":
            raise TvgError(
                name, "the MLflow experiment cannot be written", got="deleted" if found else "not created",
                expected="an active experiment", hint="restore it in MLflow's page, or delete it there for good",
            )  # fmt: skip
        return found.experiment_id, dict(found.tags)


# ---------------------------------------------------------------- MLflow's ways


def database(uri: str) -> Path | None:
    """The file of a sqlite store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _create(file: Path, artifacts: Path) -> None:
    """The tables under another name, then renamed: a server that starts meanwhile never meets half of them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{partial}", artifacts.resolve().as_uri()).engine.dispose()
    partial.rename(file)


def _held(found: Any) -> Held:
    info, data = found.info, found.data
    return Held(info.run_id, info.status, info.end_time, dict(data.tags), dict(data.params), dict(data.metrics))


def _same_plan(held: Held, run: Run) -> bool:
    """Nothing that both name has another id: an arm that gains a benchmark stays itself, an edited one is another."""
    before = json.loads(held.tags.get("tvg.names", "{}"))
    return all(before.get(name, ident) == ident for name, ident in run.names.items())


def _tags(run: Run) -> dict[str, str]:
    tags = run.tags | {"state": run.state}
    if run.names:
        tags["tvg.names"] = json.dumps(run.names)
    return {key: value[: LONGEST["tag"]] for key, value in tags.items()}


def _lines(path: Path | None) -> list[bytes] | None:
    """The whole lines of a file that may be growing; None where there is none."""
    return path.read_bytes().split(b"\n")[:-1] if path and path.exists() else None


def _fingerprint(lines: list[bytes], count: int) -> str:
    return f"{count} {hashlib.sha256(b''.join(lines[:count])).hexdigest()[:16]}"


def _begins_with(lines: list[bytes], begun: str | None) -> bool:
    return begun is None or _fingerprint(lines, int(begun.split()[0])) == begun


def _points(line: bytes) -> "list[Metric]":
    from mlflow.entities import Metric

    row = json.loads(line)
    when, step = _milliseconds(row.pop("time")), int(row.pop("step"))
    return [Metric(metric_name(k), float(v), when, step) for k, v in row.items() if is_number(v)]


def _same(held: float | None, value: float) -> bool:
    return held is not None and (held == value or (math.isnan(held) and math.isnan(value)))


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _slices(items: list, size: int) -> Iterator[list]:
    return (items[k : k + size] for k in range(0, len(items), size))
