"""Which trainings, choices of data and evaluations an overview is about, each once, and which arms they serve."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

from tvg.errors import TvgError
from tvg.overview.layout import several
from tvg.overview.text import listed
from tvg.plan import Plan
from tvg.select import asks
from tvg.settings import Closed
from tvg.spec import (
    CollectSpec,
    DataStageSpec,
    EvaluationSpec,
    FilterSpec,
    Model,
    StageSpec,
    nested,
)
from tvg.store import identify

STAGES = get_args(get_args(StageSpec)[0])  # that make a model
CHOICES = get_args(get_args(DataStageSpec)[0])  # that make data
Arm = tuple[str, str]  # experiment and arm
NAMED = 3  # arms of an experiment that are listed by name; more are counted


@dataclass
class Job:
    """A training, a choice of data or an evaluation. arms: whom it serves, in the order of the plan; seeds: theirs."""

    ident: str
    spec: Closed
    arms: dict[Arm, None] = field(default_factory=dict)
    seeds: dict[int, None] = field(default_factory=dict)


class Selection:
    """The jobs behind some runs of a plan; a stage stands after those that it starts from."""

    def __init__(self, plan: Plan, names: Iterable[str] = ()):
        self.plan = plan
        names = list(names)
        wanted = {arm for name in names for arm in _arms(plan, name)}
        self.runs = [run for run in plan.runs.values() if not names or (run.experiment, run.arm) in wanted]
        self.stages: dict[str, Job] = {}
        self.choices: dict[str, Job] = {}
        self.evaluations: dict[str, Job] = {}
        for run in plan.runs.values():  # all of them, so that a job knows whom else it serves
            for spec in (*run.stages.values(), *run.evaluations.values()):
                for needed in nested(spec):
                    self._add(needed, (run.experiment, run.arm), run.seed)
        if names:
            self.stages, self.choices, self.evaluations = (
                {ident: job for ident, job in jobs.items() if wanted & job.arms.keys()}
                for jobs in (self.stages, self.choices, self.evaluations)
            )

    def _add(self, spec: Closed, arm: Arm, seed: int) -> None:
        kinds = ((STAGES, self.stages), (CHOICES, self.choices), (EvaluationSpec, self.evaluations))
        jobs = next((jobs for kind, jobs in kinds if isinstance(spec, kind)), None)
        if jobs is None:
            return
        ident = identify(spec)
        job = jobs.setdefault(ident, Job(ident, spec))
        job.arms[arm], job.seeds[seed] = None, None

    @cached_property
    def _whole(self) -> dict[str, list[str]]:
        """experiment -> its planned arms."""
        found: dict[str, dict[str, None]] = {}
        for name, arm, _ in self.plan.runs:
            found.setdefault(name, {})[arm] = None
        return {name: list(arms) for name, arms in found.items()}

    def serves(self, job: Job, briefly: bool = False) -> str:
        """Whom a job serves, in words; which seed, where it is not all of them."""
        if briefly and len(job.arms) > NAMED:
            return f"{len(job.arms)} arms of {several(len({name for name, _ in job.arms}), 'experiment')}"
        arms: dict[str, list[str]] = {}
        for name, arm in job.arms:
            arms.setdefault(name, []).append(arm)
        told = ", ".join(self._some(name, of) for name, of in arms.items())
        shared = f"{len(job.arms)} arms share it: " if len(job.arms) > 1 else ""
        seeds = list(job.seeds) if len(job.seeds) < len(self.plan.config.seeds) else []
        return shared + told + (f"; seed {listed(list(map(str, seeds)))}" if seeds else "")

    def _some(self, name: str, arms: list[str]) -> str:
        every = self._whole[name]
        if len(arms) > NAMED:
            return f"all {len(arms)} of {name}" if len(arms) == len(every) else f"{len(arms)} of {name}"
        return ", ".join(f"{name}-{arm}" for arm in arms)


def loads(job: Closed) -> Model | None:
    """The model that a job begins with; None for a choice that asks none, and reads text alone."""
    if isinstance(job, CollectSpec) or (isinstance(job, FilterSpec) and not asks(job)):
        return None
    return job.model if isinstance(job, EvaluationSpec | FilterSpec) else job.init


def _arms(plan: Plan, text: str) -> list[Arm]:
    """`EXPERIMENT` (every arm of it) or `EXPERIMENT-ARM`, which must be planned."""
    name, arm = plan.resolver.named(text)
    every = "-" not in text
    found = list(dict.fromkeys((n, a) for n, a, _ in plan.runs if n == name and (every or a == arm)))
    if not found:
        planned = sorted({n for n, _, _ in plan.runs})
        raise TvgError(
            text, f"not planned at scale {plan.config.scale}", got=text, expected=", ".join(planned),
            hint="another scale may have it: --config scale=3b",
        )  # fmt: skip
    return found
