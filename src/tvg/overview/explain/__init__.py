"""An experiment's arm as the methods section of a paper: plain text, Markdown-friendly, at most 100 columns wide."""

from tvg.arms import MAIN
from tvg.overview.explain import differences
from tvg.overview.explain.choices import choice
from tvg.overview.explain.results import results
from tvg.overview.explain.stages import KINDS, about, formats, in_order, inversion, numbers, questions, training
from tvg.overview.explain.subject import Subject, split, weights
from tvg.overview.layout import several
from tvg.overview.selection import loads
from tvg.overview.sources import header, sources
from tvg.overview.text import bullets, columns, first_paragraph, heading, listed, paragraph, sentence, value
from tvg.parse import PARSERS, strict_answer
from tvg.resolve import Resolver
from tvg.settings import FramesSettings
from tvg.spec import CollectSpec, EvaluationSpec, FilterSpec, Floor

PROTOCOLS = {
    "strict": "every annotated query counts, a missing video or an unreadable answer is a zero; R1@m counts IoU > m"
}


def explain(text: str, resolver: Resolver) -> list[str]:
    """`EXPERIMENT[-ARM]` in words, as lines. Raises TvgError for an unknown name, with the nearest one."""
    subject = Subject.of(text, resolver)
    lines = [
        *_title(subject, resolver.config.scale),
        *differences.arm(subject),
        *_data(subject),
        *(line for name in subject.stages for line in _stage(subject, name)),
        *_evaluation(subject),
        *differences.paper(subject),
        *differences.scale(subject),
        *results(subject),
    ]
    return lines[:-1]


def _stage(subject: Subject, name: str) -> list[str]:
    """The section of one stage."""
    makes_data = isinstance(subject.stages[name], FilterSpec | CollectSpec)
    return choice(subject, name) if makes_data else training(subject, name)


def _title(subject: Subject, asked: str) -> list[str]:
    only = listed(list(subject.experiment.scales or ()))
    elsewhere = f"It does not exist at the scale {asked}, only at {only}: this is {subject.scale}."
    return [
        *heading(f"{subject.title}, scale {subject.scale}", 1),
        *paragraph(elsewhere if asked != subject.scale else ""),
        *paragraph(header(subject.file)),
        *paragraph(_in_one_sentence(subject)),
        *paragraph(f"Paper: {subject.experiment.paper}. File: {subject.file}."),
        *paragraph(_arms(subject)),
    ]


def _arms(subject: Subject) -> str:
    """The other arms of the main arm's file."""
    others = subject.resolver.arms(subject.name)[1:] if subject.arm == MAIN else []
    return f"Its other arms, each by `tvg explain {subject.name}-ARM`: {', '.join(others)}." if others else ""


def _in_one_sentence(subject: Subject) -> str:
    """What is trained from what on what, and scored on what."""
    experiment, run, stages = subject.experiment, subject.run, subject.lineage
    model = subject.evaluated.model
    scored = listed([f"`{name}`" for name in run.evaluations])
    if isinstance(model, Floor):
        return f"Nothing is trained and no video is seen: every query of {scored} is answered with {weights(model)}."
    if not stages:
        return sentence(
            f"{subject.start(experiment.evaluate, model)} is scored on {scored} as it is: nothing is trained"
        )
    others = [name for name in subject.stages if name not in stages]
    makers = listed([f"`{name}` ({experiment.stages[name].kind})" for name in others])
    data = f" What it trains on is made by {several(len(others), 'other stage')}: {makers}." if others else ""
    return sentence(f"{_trained(subject, stages)}, and scored on {scored}") + data


def _trained(subject: Subject, stages: list[str]) -> str:
    """A chain of trainings, from what it starts from."""
    experiment, run = subject.experiment, subject.run
    start = subject.start(experiment.stages[stages[0]].init, run.stages[stages[0]].init)
    steps, said = [], set()
    for name in stages:
        told, data = experiment.stages[name], run.stages[name].data
        of = f"`{told.data}`" if data.made_by is None else subject.data(told.data, data)
        steps.append(f"by {told.kind.upper() if told.kind in said else KINDS[told.kind]} on {of}")
        said.add(told.kind)
    return f"{start} is trained {', then '.join(steps)}"


def _data(subject: Subject) -> list[str]:
    folder, limit = subject.resolver.folder / "datasets", subject.resolver.config.limit
    names = dict.fromkeys(data.samples.dataset.name for data in subject.reads.values())
    return [
        *heading("Data"),
        *bullets(f"`{role}`: {split(data)}" for role, data in subject.reads.items()),
        *(line for name in names for line in paragraph(f"`{name}`: {header(folder / f'{name}.yaml')}")),
        *paragraph(f"Of each split only the first {limit} samples are read (`limit`)." if limit else ""),
        *([] if isinstance(subject.evaluated.model, Floor) else _frames(subject)),
    ]


def _frames(subject: Subject) -> list[str]:
    """How videos become frames at this scale, with the scale file's own comments."""
    frames, told = subject.resolver.scale.frames, sources(subject.resolver.folder / "scales" / f"{subject.scale}.yaml")
    own = f" At {subject.scale}: {sentence(told['frames'])}" if "frames" in told else ""
    rows = [(key, value(given), type(frames).model_fields[key].description or "") for key, given in frames]
    return [*paragraph(first_paragraph(FramesSettings.__doc__) + own), *columns(rows)]


def _evaluation(subject: Subject) -> list[str]:
    spec = subject.evaluated
    lines = [*heading("Evaluation"), *paragraph(_scored(subject, spec))]
    if isinstance(spec.model, Floor):
        return lines
    asked = [stage for stage in subject.stages.values() if loads(stage) is not None]
    experiment, shown = subject.experiment, [stage.prompt.texts for stage in asked]
    new = {task: text for task, text in spec.prompt.texts.items() if text not in [texts.get(task) for texts in shown]}
    if new:
        lines += questions(
            subject, experiment.prompt, experiment.inversion_prompt, spec.prompt.model_copy(update={"texts": new})
        )
    return [
        *lines,
        *heading("Answers", 3),
        *bullets(_readers(spec)),
        *numbers(subject, "evaluation", subject.written.evaluation, experiment.evaluation, {"tasks", "protocol"}),
    ]


def _scored(subject: Subject, spec: EvaluationSpec) -> str:
    """What is asked of whom, and how it is scored."""
    settings, benchmarks = spec.settings, listed([f"`{name}`" for name in subject.run.evaluations])
    rules = f"Protocol {settings.protocol}: {PROTOCOLS.get(settings.protocol, 'see tvg.evaluate')}."
    if isinstance(spec.model, Floor):
        return rules
    asked = f"{subject.start(subject.experiment.evaluate, spec.model)} answers every query of {benchmarks}"
    asked += f", greedily decoded, as {listed(in_order(settings.tasks))}"
    trained = [task for stage in subject.stages.values() for task in getattr(stage, "every_task", ())]
    told = set(settings.tasks) <= {"ground", *trained}
    return " ".join([sentence(asked), rules, *([] if told else inversion(settings.tasks, spec.data.samples.verbs))])


def _readers(spec: EvaluationSpec) -> list[str]:
    """How an evaluation reads answers: our parser, and the authors' beside it."""
    contract = spec.prompt.answer
    legacy = (
        [f"The authors' own, beside it, `{contract.legacy}`: {about(PARSERS[contract.legacy])}"]
        if contract.legacy
        else []
    )
    return [
        f"Segment, `strict_answer`: {about(strict_answer)}",
        *legacy,
        *formats(contract, "Format rate"),
    ]
