"""One MLflow run as it should be, and how an arm's is put together from its stages and evaluations."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

State = Literal["running", "finished", "stopped", "failed"]
HEADLINES = ("r1_at_0.5", "miou")  # fractions in [0, 1]; on an arm too, so that a collapsed table has its numbers


@dataclass(frozen=True)
class Run:
    """One MLflow run as it should be. Times in unix seconds.

    key: unique under its parent. metrics: newest values. history: a metrics.jsonl. files: path -> file or text.
    names: what an arm's pointer names. stamp: of the files behind it, so that equal runs need no second look.
    """

    key: str
    name: str
    state: State
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: Path | None = None
    files: dict[str, Path | str] = field(default_factory=dict)
    start: float | None = None
    end: float | None = None
    stamp: tuple = ()
    names: dict[str, str] = field(default_factory=dict)
    children: tuple["Run", ...] = ()


def arm(
    pointer: dict,
    stages: dict[str, Run],
    evaluations: dict[str, Run],
    params: dict[str, dict[str, str]],
    more: dict[str, str],
) -> Run | None:
    """The run of one arm and seed; None while nothing of it has begun.

    pointer: its file. stages, evaluations: what there is of it. params: of every planned stage. more: further tags.
    """
    if not stages and not evaluations:
        return None
    experiment, seed, first = pointer["experiment"], pointer["seed"], next(iter(pointer["evaluations"]), None)
    edited = [pointer["arm"]] if pointer["arm"] != "main" else []
    name = " · ".join([*edited, *([f"seed {seed}"] if seed else []), experiment])
    tags = {"experiment": experiment, "arm": pointer["arm"], "seed": str(seed)} | more
    parts = {"kind": "arm", "stage": ", ".join(pointer["stages"]), "benchmark": first or ""}
    children = [_child(run, "stage", part, name, tags) for part, run in stages.items()]
    children += [_child(run, "benchmark", part, name, tags) for part, run in evaluations.items()]
    return Run(
        key=f"{experiment}/{pointer['arm']}/seed-{seed}",
        name=name,
        state=_together(stages, evaluations, pointer),
        tags=tags | parts | _sources(children),
        params={f"{part}.{key}": value for part, found in params.items() for key, value in found.items()},
        metrics=_summary(evaluations, first),
        start=min((run.start for run in children if run.start), default=None),
        end=max((run.end for run in children if run.end), default=None),
        names={f"{kind}/{part}": ident for kind in ("stages", "evaluations") for part, ident in pointer[kind].items()},
        children=tuple(children),
    )


def _child(run: Run, kind: str, part: str, parent: str, tags: dict[str, str]) -> Run:
    """The run under one of the arms that use it; an evaluation's headlines also stand under the benchmark's name."""
    own = _headlines(part, run) if kind == "benchmark" else {}
    return replace(run, name=f"{part} · {parent}", tags=tags | run.tags | {kind: part}, metrics=own | run.metrics)


def _summary(evaluations: dict[str, Run], first: str | None) -> dict[str, float]:
    """An arm's numbers: `test/` is its first benchmark, and each benchmark stands under its own name."""
    found = _headlines("test", evaluations[first]) if first in evaluations else {}
    for benchmark, run in evaluations.items():
        found |= _headlines(benchmark, run)
    return found


def _headlines(prefix: str, run: Run) -> dict[str, float]:
    return {f"{prefix}/{name}": run.metrics[f"test/{name}"] for name in HEADLINES if f"test/{name}" in run.metrics}


def _together(stages: dict[str, Run], evaluations: dict[str, Run], pointer: dict) -> State:
    """An arm is finished when all it is evaluated on is, with or without the weights still there."""
    decisive = "evaluations" if pointer["evaluations"] else "stages"
    found = {"stages": stages, "evaluations": evaluations}[decisive]
    if len(found) == len(pointer[decisive]) and all(run.state == "finished" for run in found.values()):
        return "finished"
    states = {run.state for run in (*stages.values(), *evaluations.values())}
    return next((state for state in ("failed", "running", "stopped") if state in states), "running")


def _sources(children: Iterable[Run]) -> dict[str, str]:
    commits = list(dict.fromkeys(run.tags["git"] for run in children if "git" in run.tags))
    return {"git": ", ".join(commits)} if commits else {}
