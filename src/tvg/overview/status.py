"""How far every planned training, choice of data and evaluation is, from what lies in the store: `tvg status`.

It reads files only, so that it can be asked while a workflow runs, on another machine, or without Snakemake.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvg.overview import states
from tvg.overview.cost.counts import Counts
from tvg.overview.layout import duration, number, several, table
from tvg.overview.selection import Job, Selection
from tvg.overview.text import bullets, listed, paragraph
from tvg.plan import Plan
from tvg.store import Store

SILENT = 300.0  # seconds without a word after which a running job is remarked on, or so many steps:
SILENT_STEPS = 5


@dataclass(frozen=True)
class StageStatus:
    """One training. step, steps: steps is None where it is not known yet. left: seconds. slurm_job: its id, if any.

    warnings: named, with step and figures.
    """

    id: str
    serves: str
    state: str
    step: int
    steps: int | None
    reward: float | None
    loss: float | None
    step_seconds: float | None
    left: float | None
    slurm_job: str | None
    host: str | None
    remark: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceStatus:
    """One filter or collect stage. answers: made so far, of `asked`, which is 0 where no model is asked.

    kept: of `read` samples or completions; both None until it is done. asked: None where it is not known yet.
    """

    id: str
    serves: str
    state: str
    answers: int
    asked: int | None
    kept: int | None
    read: int | None
    remark: str | None


@dataclass(frozen=True)
class EvaluationStatus:
    """One evaluation. predictions: made so far, of `questions`, None where that is not known yet."""

    id: str
    serves: str
    state: str
    predictions: int
    questions: int | None
    remark: str | None


@dataclass(frozen=True)
class Status:
    scale: str
    stages: list[StageStatus]
    choices: list[ChoiceStatus]
    evaluations: list[EvaluationStatus]


def status(plan: Plan, names: Iterable[str] = ()) -> Status:
    """Of the plan's runs, or of the arms named."""
    selection, counts = Selection(plan, names), Counts(plan.store)
    return Status(
        plan.config.scale,
        [_stage(selection, counts, job) for job in selection.stages.values()],
        [_choice(selection, counts, job) for job in selection.choices.values()],
        [_evaluation(selection, counts, job) for job in selection.evaluations.values()],
    )


def _stage(selection: Selection, counts: Counts, job: Job) -> StageStatus:
    plan, found, steps = selection.plan, states.stage(selection.plan.store, job.ident), counts.steps(job.spec).value
    open_ = found.state in ("running", "stopped", "failed")
    step = found.step if found.state in ("running", "done") else found.kept
    left = (steps - step) * found.pace if open_ and steps and found.pace else None
    run = found.run
    return StageStatus(
        job.ident, selection.serves(job, briefly=True), found.state, step, steps, found.reward, found.loss, found.pace,
        left, run.get("slurm_job"), run.get("host"), _remark(plan, job, found), found.warnings,
    )  # fmt: skip


def _remark(plan: Plan, job: Job, found: states.StageState) -> str | None:
    """What a person should know beside the numbers."""
    match found.state:
        case "waiting":
            return _waits_for(plan, job)
        case "running":
            silent = max(SILENT, SILENT_STEPS * (found.pace or 0))
            where = _where(found.run)
            quiet = found.quiet is not None and found.quiet > silent
            return f"{where}; no sign for {duration(found.quiet)}: is it still alive?" if quiet else where
        case "stopped":
            lost = f"it had reached step {found.step:,}; " if found.step > found.kept else ""
            why = found.note or "asked to stop"
            return f"{why}; {lost}the next start goes on after step {found.kept:,}"
        case "failed":
            return f"{found.note}; {_log(found.log)}"
    return None


def _where(run: dict) -> str:
    job = f"SLURM job {run['slurm_job']} on " if run.get("slurm_job") else "on "
    return job + str(run.get("host", "an unknown machine"))


def _log(path: Path | None) -> str:
    return f"see {path}" if path else "it left no log"


def _waits_for(plan: Plan, job: Job) -> str:
    """What must be there before the job can start."""
    absent = [Path(path) for path in plan.inputs(job.ident) if not Path(path).exists()]
    if not absent:
        return "can start"
    return f"waits for {listed(list(dict.fromkeys(_called(plan.store, path) for path in absent)))}"


def _called(store: Store, path: Path) -> str:
    """An input in a few characters: a stage's id, the frames of a data set, a file of samples."""
    within = path.relative_to(store.root).parts if path.is_relative_to(store.root) else path.parts
    if within[0] == "stages":
        return within[1]
    if within[0] == "frames":
        whole = sum(1 for _ in path.parent.glob("*-of-*.json"))
        return f"the frames of {within[1].split('.')[0]} ({several(whole, 'shard')} there)"
    return f"the samples {path.stem.rsplit('-', 1)[0]}" if within[0] == "samples" else str(path)


def _choice(selection: Selection, counts: Counts, job: Job) -> ChoiceStatus:
    found, asked = states.choice(selection.plan.store, job.ident), counts.answers(job.spec).value
    answers = found.answered * getattr(job.spec, "num_generations", 0)
    return ChoiceStatus(
        job.ident, selection.serves(job, briefly=True), "begun" if found.state == "stopped" else found.state,
        answers, asked, found.kept, found.read, _remark_unrecorded(selection.plan, job, found),
    )  # fmt: skip


def _remark_unrecorded(plan: Plan, job: Job, found: states.ChoiceState | states.EvaluationState) -> str | None:
    """Of a job that is not a training: its answers and its log tell how it fares."""
    match found.state:
        case "failed":
            return f"{found.note}; {_log(found.log)}"
        case "stopped":
            return f"last sign {duration(found.quiet)} ago" if found.quiet is not None else None
        case "waiting":
            return f"begun, without an answer yet; {_log(found.log)}" if found.log else _waits_for(plan, job)
    return None


def _evaluation(selection: Selection, counts: Counts, job: Job) -> EvaluationStatus:
    plan, found = selection.plan, states.evaluation(selection.plan.store, job.ident)
    state = found.state
    if state == "stopped":
        whole = (plan.store.evaluation(job.ident) / "predictions.jsonl").exists()
        state = "predicted" if whole else "begun"
    return EvaluationStatus(
        job.ident,
        selection.serves(job, briefly=True),
        state,
        found.predictions,
        counts.questions(job.spec).value,
        _remark_unrecorded(plan, job, found),
    )


# ---------------------------------------------------------------- on a terminal


def as_json(found: Status) -> dict[str, Any]:
    """The same as data: times in seconds, null where unknown."""
    return asdict(found)


def as_text(found: Status) -> str:
    """Readable at 100 columns."""
    lines = paragraph(_summary(found))
    if found.stages:
        head = ("training", "state", "step", "reward", "a step", "left", "arms")
        lines += [*table(head, map(_row, found.stages)), ""]
    if found.choices:
        head = ("choice of data", "state", "answers", "kept", "arms")
        lines += [*table(head, map(_chosen, found.choices)), ""]
    if found.evaluations:
        rows = [(one.id, one.state, _of(one.predictions, one.questions), one.serves) for one in found.evaluations]
        lines += [*table(("evaluation", "state", "answers", "arms"), rows), ""]
    remarks = _remarks(found)
    return "\n".join([*lines, *bullets(remarks)]).rstrip()


def _row(one: StageStatus) -> tuple[str, ...]:
    value = one.loss if one.reward is None else one.reward
    shown = "" if value is None else f"{value:.3f}" if one.reward is not None else f"loss {value:.3f}"
    pace = "" if one.step_seconds is None else f"{one.step_seconds:.3g} s"
    left = "" if one.left is None else duration(one.left)
    return one.id, one.state, _of(one.step, one.steps), shown, pace, left, one.serves


def _chosen(one: ChoiceStatus) -> tuple[str, ...]:
    answers = "" if one.asked == 0 else _of(one.answers, one.asked)
    kept = "" if one.kept is None else _of(one.kept, one.read)
    return one.id, one.state, answers, kept, one.serves


def _of(done: int, total: int | None) -> str:
    return f"{done:,}/{number(total) if total is not None else '?'}"


def _summary(found: Status) -> str:
    def counted(jobs: list) -> str:
        kinds = dict.fromkeys(job.state for job in jobs)
        return ", ".join(f"{sum(job.state == kind for job in jobs)} {kind}" for kind in kinds)

    told = [f"Scale {found.scale}"]
    jobs_of = {"training": found.stages, "choice of data": found.choices, "evaluation": found.evaluations}
    for name, jobs in jobs_of.items():
        many = "choices of data" if jobs is found.choices else None
        told += [f"{several(len(jobs), name, many)} ({counted(jobs)})"] if jobs else []
    return f"{told[0]}: {'; '.join(told[1:]) or 'nothing is planned'}"


def _remarks(found: Status) -> list[str]:
    """One line for each remark, however many jobs it is about."""
    told = [(one.remark, one.id) for one in (*found.stages, *found.choices, *found.evaluations) if one.remark]
    about: dict[str, list[str]] = {}
    for remark, ident in [*told, *((warning, one.id) for one in found.stages for warning in one.warnings)]:
        about.setdefault(remark, []).append(ident)
    return [f"{_some(ids)}: {remark}" for remark, ids in about.items()]


def _some(ids: list[str], shown: int = 2) -> str:
    rest = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(ids[:shown]) + rest
