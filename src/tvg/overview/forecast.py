"""What would be done now, what of it is shared or done already, and what it costs: `tvg plan`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tvg.config import ABSENT
from tvg.overview import states
from tvg.overview.cost import memory, space
from tvg.overview.cost.counts import Count, Counts, asks_a_model
from tvg.overview.cost.figures import TIMED
from tvg.overview.cost.memory import Dial, Memory
from tvg.overview.cost.seconds import Costs, Estimate
from tvg.overview.cost.space import Item
from tvg.overview.layout import several
from tvg.overview.selection import CHOICES, STAGES, Job, Selection, loads
from tvg.overview.text import listed
from tvg.plan import Plan
from tvg.settings import Closed, Runtime
from tvg.spec import (
    CollectSpec,
    DatasetIdentity,
    DataSpec,
    EvaluationSpec,
    FilterSpec,
    FramesSpec,
    HubModel,
    StageSpec,
    nested,
)
from tvg.store import Store, identify

TO_DO = ("to train", "half done", "running", "failed")


@dataclass(frozen=True)
class Training:
    """One stage. state: done, to train, half done, running, failed, not needed. step: where a start would go on.

    memory: of its GPU at the peak, None where nothing tells or nothing is left to do; dials: what would lower it.
    """

    id: str
    kind: str
    serves: str
    arms: int
    state: str
    step: int
    steps: Count
    estimate: Estimate
    memory: Memory | None
    dials: list[Dial]


@dataclass(frozen=True)
class Choice:
    """One filter or collect stage. state: done, to choose, half done, failed, not needed.

    reads: samples or completions. kept: of these, None until it is done. answered: answers made so far, of `answers`.
    """

    id: str
    kind: str
    serves: str
    arms: int
    state: str
    reads: Count
    kept: int | None
    answered: int
    answers: Count
    estimate: Estimate
    memory: Memory | None
    dials: list[Dial]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. predictions: made so far, of `questions`."""

    id: str
    benchmark: str
    data: str
    serves: str
    state: str
    predictions: int
    questions: Count
    estimate: Estimate
    memory: Memory | None
    dials: list[Dial]


@dataclass(frozen=True)
class Forecast:
    """All of it. absent: files of the user's that are not there. by_hand: videos that the user brings."""

    title: str
    trainings: list[Training]
    choices: list[Choice]
    evaluations: list[Evaluation]
    downloads: list[Item]
    kept: list[Item]
    checkpoints: Item | None
    absent: list[str]
    by_hand: list[str]
    reference: str  # where estimates come from that nothing here was measured for
    notice: str | None = None

    @property
    def shared(self) -> int:
        return sum(one.arms > 1 for one in self.trainings)

    def to_train(self) -> list[Training]:
        return [one for one in self.trainings if one.state in TO_DO]

    def to_choose(self) -> list[Choice]:
        return [one for one in self.choices if one.state not in ("done", "not needed")]

    def to_evaluate(self) -> list[Evaluation]:
        return [one for one in self.evaluations if one.state != "done"]


class Peaks:
    """GPU memory of the jobs of one store; the length of the longest video is looked up once."""

    def __init__(self, store: Store, runtime: Runtime):
        self.store, self.runtime = store, runtime
        self._longest: dict[tuple, int | None] = {}

    def __call__(self, spec: StageSpec | FilterSpec | EvaluationSpec) -> tuple[Memory | None, list[Dial]]:
        frames = self._frames(spec.data)
        return memory.peak(spec, self.runtime, frames), memory.dials(spec, self.runtime, frames)

    def _frames(self, data: DataSpec) -> int | None:
        key = identify(data.samples), data.limit, identify(data.frames)
        if key not in self._longest:
            self._longest[key] = memory.longest(self.store, data)
        return self._longest[key]


def forecast(plan: Plan, names: Iterable[str] = ()) -> Forecast:
    """The forecast of the plan's runs, or of the arms named. Reads the store and writes nothing."""
    selection, store = Selection(plan, names), plan.store
    counts = Counts(store)
    costs, peaks = Costs(store, plan.scale.runtime, counts), Peaks(store, plan.scale.runtime)
    evaluations = [_evaluation(selection, counts, costs, peaks, job) for job in selection.evaluations.values()]
    waiting = [selection.evaluations[one.id].spec for one in evaluations if one.state != "done"]
    needed = _needed(plan, waiting)
    of_all = selection, counts, costs, peaks
    trainings = [_training(*of_all, job, job.ident in needed) for job in selection.stages.values()]
    choices = [_choice(*of_all, job, job.ident in needed) for job in selection.choices.values()]
    jobs = [*waiting, *(selection.stages[one.id].spec for one in trainings if one.state in TO_DO)]
    jobs += [selection.choices[one.id].spec for one in choices if one.state not in ("done", "not needed")]
    specs = list({identify(spec): spec for job in jobs for spec in _stands_on(job)}.values())
    models = [model for model in map(loads, jobs) if isinstance(model, HubModel)]
    stages = [spec for spec in jobs if isinstance(spec, STAGES)]
    return Forecast(
        title=_title(selection),
        trainings=trainings,
        choices=choices,
        evaluations=evaluations,
        downloads=space.downloads(store, counts, specs, models),
        kept=space.kept(store, counts, specs, models, plan.scale.runtime, stages),
        checkpoints=space.while_training(stages),
        absent=[line for spec in specs if isinstance(spec, DatasetIdentity) for line in absent_files(spec)],
        by_hand=space.by_hand(store, specs),
        reference=TIMED[plan.scale.runtime.policy].source,
        notice=plan.notice,
    )


def absent_files(identity: DatasetIdentity) -> list[str]:
    """The user's own files that were not there when the plan was made: their identity says `absent`."""

    def walk(value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            return
        if value.get("sha256") == ABSENT:
            yield str(value.get("file"))
        for item in value.values():
            yield from walk(item)

    return [f"{identity.name}: {path}" for path in walk(identity.settings)]


def _title(selection: Selection) -> str:
    plan = selection.plan
    arms = {(run.experiment, run.arm) for run in selection.runs}
    seeds = [str(seed) for seed in dict.fromkeys(run.seed for run in selection.runs)]
    experiments = several(len({name for name, _ in arms}), "experiment")
    told = f"{experiments}, {several(len(arms), 'arm')}, seed{'s' * (len(seeds) > 1)} {listed(seeds)}"
    return f"Scale {plan.config.scale}: {told}; results in {plan.store.root}"


def _needed(plan: Plan, evaluations: Iterable[EvaluationSpec]) -> set[str]:
    """Ids of the stages that must be made for these evaluations: not those behind a finished one."""
    found: set[str] = set()

    def need(spec: Closed) -> None:
        for name in type(spec).model_fields:
            walk(getattr(spec, name))

    def walk(value: object) -> None:
        if not isinstance(value, Closed):
            return
        if isinstance(value, (*STAGES, *CHOICES)):
            ident = identify(value)
            if ident in found or states.is_done(plan.store, value):
                return
            found.add(ident)
        need(value)

    for spec in evaluations:
        need(spec)
    return found


def _training(selection: Selection, counts: Counts, costs: Costs, peaks: Peaks, job: Job, needed: bool) -> Training:
    found, steps = states.stage(selection.plan.store, job.ident), counts.steps(job.spec)
    state = {"waiting": "to train", "stopped": "half done"}.get(found.state, found.state)
    if state == "half done" and not found.kept:
        state = "to train"
    if state != "done" and not needed:
        state = "not needed"
    step = found.step if state in ("done", "running") else found.kept
    left = None if steps.value is None else max(0, steps.value - step) * (state in TO_DO)
    estimate = costs.training(job.spec, left) if state in TO_DO else Estimate(0.0, 0.0, state)
    if steps.most and job.spec.data.made_by is not None:
        estimate = estimate.at_most()
    peak, dials = peaks(job.spec) if state in TO_DO else (None, [])
    return Training(
        job.ident, job.spec.kind, selection.serves(job), len(job.arms), state, step, steps, estimate, peak, dials
    )


def _choice(selection: Selection, counts: Counts, costs: Costs, peaks: Peaks, job: Job, needed: bool) -> Choice:
    found, reads, answers = (
        states.choice(selection.plan.store, job.ident),
        counts.read(job.spec),
        counts.answers(job.spec),
    )
    state = {"waiting": "to choose", "stopped": "half done"}.get(found.state, found.state)
    if state != "done" and not needed:
        state = "not needed"
    answered = found.answered * getattr(job.spec, "num_generations", 0)
    left = None if answers.value is None else max(0, answers.value - answered)
    estimate = Estimate(0.0, 0.0, state) if state in ("done", "not needed") else costs.choice(job.spec, left)
    if answers.most and job.spec.data.made_by is not None:
        estimate = estimate.at_most()
    return Choice(
        job.ident, job.spec.kind, selection.serves(job), len(job.arms), state, reads, found.kept, answered, answers,
        estimate, *(peaks(job.spec) if answers.value != 0 and state not in ("done", "not needed") else (None, [])),
    )  # fmt: skip


def _evaluation(selection: Selection, counts: Counts, costs: Costs, peaks: Peaks, job: Job) -> Evaluation:
    found, asked, samples = (
        states.evaluation(selection.plan.store, job.ident),
        counts.questions(job.spec),
        job.spec.data.samples,
    )
    done = found.state == "done"
    left = None if asked.value is None else max(0, asked.value - found.predictions)
    estimate = Estimate(0.0, 0.0, "done") if done else costs.evaluation(job.spec, left)
    return Evaluation(
        job.ident, job.spec.benchmark, f"{samples.dataset.name}.{samples.split}", selection.serves(job),
        "done" if done else "half done" if found.predictions else "to evaluate", found.predictions, asked, estimate,
        *((None, []) if done or not asks_a_model(job.spec) else peaks(job.spec)),
    )  # fmt: skip


def _stands_on(job: Closed) -> list[Closed]:
    """The data sets and the frames that a job reads; a floor and a choice of completions look at no frame."""
    floor = isinstance(job, EvaluationSpec) and not asks_a_model(job)
    found = list(nested(job.data.samples)) + (list(nested(job.model)) if floor else [])
    if not floor and not isinstance(job, CollectSpec):
        found += nested(job.data.frames)
    return [spec for spec in found if isinstance(spec, DatasetIdentity | FramesSpec)]


def totals(found: Forecast) -> dict[str, Any]:
    """Sums of what is known, and how many numbers are not."""
    todo = [*found.to_train(), *found.to_choose(), *found.to_evaluate()]
    times = {}
    for device in ("GPU", "CPU"):
        known = [one.estimate for one in todo if one.estimate.device == device and one.estimate.high]
        times[device] = [sum(e.low for e in known), sum(e.high for e in known)] if known else None
    return {
        "trainings": len(found.trainings),
        "trainings_done": sum(one.state == "done" for one in found.trainings),
        "trainings_shared": found.shared,
        "choices": len(found.choices),
        "choices_done": sum(one.state == "done" for one in found.choices),
        "seconds": times,
        "seconds_unknown": sum(one.estimate.high is None for one in todo),
        "download": space.total(found.downloads)[0],
        "download_unknown": len(space.total(found.downloads)[1]),
        "keep": space.total(found.kept)[0],
        "keep_unknown": len(space.total(found.kept)[1]),
    }
