"""What MLflow should hold, read from results/{scale}: arms with their stages and evaluations, and the report.

A stage that several arms share appears under each of them: whoever opens an arm sees its training curve.
"""

import csv
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tvg.errors import TvgError
from tvg.evaluate.predictions import read_predictions
from tvg.rows import Rows
from tvg.settings import Closed
from tvg.spec import EvaluationSpec
from tvg.store import FOLDERS, Store, read_spec, read_stage
from tvg.track.describe import ancestors, flatten, is_number, sample, settings, signs
from tvg.track.runs import Run, State, arm

log = logging.getLogger(__name__)

SIGNS = ("warnings.jsonl", "verbs.jsonl")
STAGE = ("spec.json", "run.json", "metrics.jsonl", "model.done", *SIGNS)
EVALUATION = ("run.json", "metrics.json", "predictions.jsonl")
REPORT = ("tables/*.md", "tables/*.csv", "plots/**/*.png", "report/*.html")
POINTER = {"experiment", "arm", "seed", "stages", "evaluations"}
SIGNALS = (130, 143)  # exit codes of a training that was asked to stop, and saved


class Reader:
    """Reads a scale's results again and again, opening only files that changed. `problems`: file -> what is wrong."""

    def __init__(self, root: Path):
        self.root, self.store = root, Store(root)
        self.problems: dict[str, str] = {}
        self._known: dict[Any, tuple[tuple, Any]] = {}

    def runs(self) -> list[Run]:
        """What arms start from and nobody plans, every arm of which something has begun, the report."""
        pointers = [pointer for path in self._pointers() if (pointer := self._json(path)).keys() >= POINTER]
        named = {ident for pointer in pointers for ident in pointer["stages"].values()}
        used = [ident for p in pointers for part in ("stages", "evaluations") for ident in p[part].values()]
        bases = dict.fromkeys(base for ident in used for base in self._ancestors(ident))
        found = [
            *(self._base(ident) for ident in bases if ident not in named),
            *map(self._arm, pointers),
            self._report(),
        ]
        return [run for run in found if run]

    @property
    def complete(self) -> bool:
        """Whether every pointer could be read."""
        return not any(str(path) in self.problems for path in self._pointers())

    def _pointers(self) -> list[Path]:
        return [path for path in sorted(self.root.glob("*/*/seed-*.json")) if path.parts[-3] not in FOLDERS]

    def _arm(self, pointer: dict) -> Run | None:
        tables = self._tables().get((pointer["experiment"], pointer["arm"]))
        more = {"scale": self.root.name} | ({"table": ", ".join(tables)} if tables else {})
        return arm(
            pointer,
            {part: run for part, ident in pointer["stages"].items() if (run := self._stage(ident))},
            {part: run for part, ident in pointer["evaluations"].items() if (run := self._evaluation(ident))},
            {part: self._params(ident) for part, ident in pointer["stages"].items()},
            more,
        )

    def _base(self, ident: str) -> Run | None:
        """A training that several experiments start from, once, beside the arms."""
        run, seed = self._stage(ident), getattr(self._spec(ident), "seed", None) or 0
        name = " · ".join(["base", *([f"seed {seed}"] if seed else []), ident.split("-")[0]])
        tags = {"experiment": "base", "seed": str(seed), "scale": self.root.name}
        return replace(run, name=name, tags=tags | run.tags) if run else None

    def _stage(self, ident: str) -> Run | None:
        folder = self.store.stage(ident)

        def build(stamp: tuple) -> Run:
            run = self._json(folder / "run.json")
            warnings, verbs = (Rows(folder / name).rows() for name in SIGNS)
            return Run(
                key=f"stages/{ident}",
                name=ident,
                state=_state(run, (folder / "model.done").exists()),
                tags={"kind": "stage", "id": ident, **_source(run), **signs(warnings, verbs)},
                params=self._params(ident),
                history=folder / "metrics.jsonl",
                files=_present(folder, ("spec.json", *(["run.json"] if run.get("ended") else []))),
                start=_seconds(run.get("started")),
                end=_seconds(run.get("ended")),
                stamp=stamp,
            )

        return self._once([folder / name for name in STAGE], build) if folder.is_dir() else None

    def _evaluation(self, ident: str) -> Run | None:
        folder, spec = self.store.evaluation(ident), self.store.spec(ident)

        def build(stamp: tuple) -> Run:
            run, metrics = self._json(folder / "run.json"), self._json(folder / "metrics.json")
            files = _present(folder, ("run.json", "metrics.json")) | ({"spec.json": spec} if spec.exists() else {})
            if metrics and (folder / "predictions.jsonl").exists():
                files["predictions.md"] = self._sample(folder / "predictions.jsonl")
            written = (folder / "metrics.json").stat().st_mtime if metrics else None
            return Run(
                key=f"evaluations/{ident}",
                name=ident,
                state=_state(run, bool(metrics)),
                tags={"kind": "evaluation", "id": ident, **_source(run)},
                params=self._params(ident),
                metrics={f"test/{name}": value for name, value in flatten(metrics, "/") if is_number(value)},
                files=files,
                start=_seconds(run.get("started")) or written,
                end=_seconds(run.get("ended")) or written,
                stamp=stamp,
            )

        return self._once([*(folder / name for name in EVALUATION), spec], build) if folder.is_dir() else None

    def _report(self) -> Run | None:
        """Every table, plot and page of the scale."""
        paths = sorted(path for pattern in REPORT for path in self.root.glob(pattern))
        if not paths:
            return None
        times = [path.stat().st_mtime for path in paths]
        return Run(
            key="report",
            name="report",
            state="finished",
            tags={"kind": "report", "scale": self.root.name},
            files={str(path.relative_to(self.root)): path for path in paths},
            start=min(times),
            end=max(times),
            stamp=tuple(map(_stamp, paths)),
        )

    def _tables(self) -> dict[tuple[str, str], list[str]]:
        """(experiment, arm) -> the tables and figures whose rows it fills."""
        paths = sorted(self.root.glob("tables/*.csv"))

        def build(_: tuple) -> dict[tuple[str, str], list[str]]:
            found: dict[tuple[str, str], list[str]] = {}
            for path in paths:
                with path.open(encoding="utf-8", newline="") as lines:
                    rows = {(row.get("experiment"), row.get("arm")) for row in csv.DictReader(lines)}
                for row in rows:
                    found.setdefault(row, []).append(path.stem)
            return found

        return self._once(paths, build, "tables")

    def _params(self, ident: str) -> dict[str, str]:
        """The settings of a planned stage or evaluation, flat, defaults filled in."""
        spec = self._spec(ident)
        if isinstance(spec, dict):  # of another version of this code: what stands there, as it stands
            return {key: str(value) for key, value in spec.items() if not isinstance(value, (dict, list))}
        return settings(spec)

    def _ancestors(self, ident: str) -> tuple[str, ...]:
        return self._once([self._spec_path(ident)], lambda _: tuple(ancestors(self._spec(ident))), f"ancestors {ident}")

    def _spec_path(self, ident: str) -> Path:
        planned = self.store.spec(ident)
        return planned if planned.exists() else self.store.stage(ident) / "spec.json"  # brought here without its plan

    def _spec(self, ident: str) -> Closed | dict:
        path = self._spec_path(ident)

        def build(_: tuple) -> Closed | dict:
            raw = self._json(path)
            try:
                return read_spec(EvaluationSpec, path) if raw.get("kind") == "evaluation" else read_stage(path)
            except (TvgError, ValidationError):
                return raw

        return self._once([path], build, f"spec {ident}")

    def _sample(self, path: Path) -> str:
        try:
            return sample(read_predictions(path))
        except (TvgError, ValueError, KeyError) as error:
            self._complain(path, error)
            return ""

    def _json(self, path: Path) -> dict:
        """{} where the file is absent or broken; what is broken is said."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or (path.name.startswith("seed-") and not found.keys() >= POINTER):
                raise ValueError("not the keys that were expected")
        except FileNotFoundError:
            return {}
        except ValueError as error:
            self._complain(path, error)
            return {}
        self.problems.pop(str(path), None)
        return found

    def _complain(self, path: Path, error: Exception) -> None:
        if self.problems.get(str(path)) != str(error):
            log.warning("%s: not readable, left out of MLflow (%s)", path, error)
        self.problems[str(path)] = str(error)

    def _once(self, paths: list[Path], build: Callable[[tuple], Any], key: Any = None) -> Any:
        """`build(stamp)`, again only where one of the files changed."""
        stamp, key = tuple(map(_stamp, paths)), key or paths[0]
        if key not in self._known or self._known[key][0] != stamp:
            self._known[key] = (stamp, build(stamp))
        return self._known[key][1]


# ---------------------------------------------------------------- small readings


def _state(run: dict, done: bool) -> State:
    if done:
        return "finished"
    code = run.get("exit")
    return "running" if code in (None, 0) else "stopped" if code in SIGNALS else "failed"


def _source(run: dict) -> dict[str, str]:
    """Which code and machine made it."""
    tags = {key: str(run[key]) for key in ("host", "device", "precision", "policy") if run.get(key)}
    if run.get("commit"):
        tags["git"] = run["commit"][:10] + (" with uncommitted edits" if run.get("dirty") else "")
        tags["mlflow.source.git.commit"] = run["commit"]
    return tags


def _present(folder: Path, names: Iterable[str]) -> dict[str, Path | str]:
    return {name: folder / name for name in names if (folder / name).exists()}


def _seconds(when: str | float | None) -> float | None:
    return datetime.fromisoformat(when).timestamp() if isinstance(when, str) else when


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return path.name, found.st_mtime_ns, found.st_size
