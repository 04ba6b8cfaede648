"""Where an arm's stages and evaluations lie, how far they are, and which other arms they serve too."""

from collections.abc import Mapping

from tvg.arms import MAIN
from tvg.overview.explain.subject import Subject
from tvg.overview.states import is_done
from tvg.overview.text import columns, heading, listed, paragraph
from tvg.resolve import Run
from tvg.settings import Closed
from tvg.spec import CollectSpec, FilterSpec, StageSpec, TrainedModel
from tvg.store import identify


def results(subject: Subject) -> list[str]:
    """Where each stage and evaluation lies, for every seed, and with which other arms it is shared."""
    resolver, root = subject.resolver, subject.store.root
    runs = [resolver.run(subject.name, subject.arm, seed) for seed in resolver.config.seeds]
    return [
        *heading("Results"),
        *columns([row for run in runs for row in _places(subject, run)]),
        *paragraph(f"Stages lie in {root}/stages, evaluations in {root}/evaluations."),
        *paragraph(" ".join(_shared(subject))),
    ]


def _places(subject: Subject, run: Run) -> list[tuple[str, str, str, str]]:
    """(seed, stage or benchmark, id, how far it is)."""
    store, rows = subject.store, []
    for name, spec in (_base(subject, run.seed) | {name: run.stages[name] for name in subject.stages}).items():
        made = "chosen" if isinstance(spec, FilterSpec | CollectSpec) else "trained"
        rows.append((name, identify(spec), made if is_done(store, spec) else f"to be {made}"))
    for name, spec in run.evaluations.items():
        there = (store.evaluation(spec) / "metrics.json").exists()
        rows.append((name, identify(spec), "scored" if there else "to be scored"))
    return [(f"seed {run.seed}", *row) for row in rows]


def _base(subject: Subject, seed: int) -> dict[str, StageSpec]:
    """The stage that is the base model at this scale, where this arm starts from one."""
    starts = "base" in subject.starts
    model = subject.resolver.model("base", subject.name, subject.arm, seed) if starts else None
    return {"base": model.stage} if isinstance(model, TrainedModel) else {}


def _shared(subject: Subject) -> list[str]:
    """Which other arms are at this scale the same run, or train the same stages."""
    others, mine = _others(subject), _ids(subject.run.evaluations)
    same = [name for name, run in others.items() if _ids(run.evaluations) == mine]
    lines = [f"At {subject.scale} this arm equals {listed(same)}: one and the same run, made once."] if same else []
    for stage_name, ident in _ids(subject.stages).items():
        users = [name for name, run in others.items() if name not in same and ident in _ids(run.stages).values()]
        if users:
            what = "choice" if isinstance(subject.stages[stage_name], FilterSpec | CollectSpec) else "training"
            lines.append(f"The {what} `{stage_name}` also serves {listed(users)}.")
    return lines or ["No other configured arm shares its trainings or its evaluations."]


def _others(subject: Subject) -> dict[str, Run]:
    """Every other configured arm that exists here, and the other arms of this experiment, under the first seed."""
    resolver, config = subject.resolver, subject.resolver.config
    wanted = {subject.name: resolver.arms(subject.name)}
    wanted |= {name: arms for name, arms in resolver.selected().items() if name != subject.name}
    arms = [(name, arm) for name, of in wanted.items() for arm in of]
    return {
        f"`{name if arm == MAIN else f'{name}-{arm}'}`": resolver.run(name, arm, config.seeds[0])
        for name, arm in arms
        if (name, arm) != (subject.name, subject.arm) and resolver.exists_here(name, arm)
    }


def _ids(specs: Mapping[str, Closed]) -> dict[str, str]:
    return {name: identify(spec) for name, spec in specs.items()}
