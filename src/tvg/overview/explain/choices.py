"""A stage that makes data in words: who is asked what, which thresholds keep a sample, and its numbers."""

from collections.abc import Iterator

from tvg.overview.explain.stages import KINDS, TOLD_APART, about, asked, numbers, origin
from tvg.overview.explain.subject import Subject, split
from tvg.overview.text import bullets, heading, paragraph, sentence, value
from tvg.parse import PARSERS
from tvg.select import asks
from tvg.settings import CollectSettings, FilterSettings
from tvg.spec import CollectSpec, FilterSpec

STRICT = "equal is not enough"


def choice(subject: Subject, name: str) -> list[str]:
    """The section of one filter or collect stage."""
    spec, told = subject.stages[name], subject.experiment.stages[name]
    tell = _filter if isinstance(spec, FilterSpec) else _collect
    return [
        *heading(f"Stage `{name}`: {KINDS[spec.kind]}"),
        *tell(subject, name, spec),
        *numbers(subject, f"stages.{name}", subject.written.stages[name], told, TOLD_APART),
    ]


def _filter(subject: Subject, name: str, spec: FilterSpec) -> list[str]:
    told, reads = subject.experiment.stages[name], subject.data(subject.experiment.stages[name].data, spec.data)
    if not asks(spec):
        drawn = "No model is asked: none of its rules reads a difficulty."
        return [*paragraph(f"Reads {reads}. {drawn}"), *heading("Kept", 3), *paragraph(_count(subject, name, spec, ""))]
    how = "greedily" if spec.temperature == 0 else f"at temperature {value(spec.temperature)}"
    times = "once" if spec.num_generations == 1 else f"{spec.num_generations} times"
    answers = f"{subject.start(told.model, spec.model)} answers each sample {times}, {how}"
    difficulty = " ".join((FilterSettings.__doc__ or "").split("\n\n", 1)[1].split())
    rules = [f"{rule} [{_source(subject, name, key)}]" for key, rule in filter_rules(spec)]
    return [
        *paragraph(f"Reads {reads}. {sentence(answers)} {difficulty}"),
        *asked(subject, name),
        *heading("Answers", 3),
        *bullets(_readers(spec)),
        *heading("Kept", 3),
        *paragraph("A sample is kept where all of this holds:" if rules else "No sample is too easy or too hard."),
        *bullets(rules),
        *paragraph(_count(subject, name, spec)),
    ]


def _readers(spec: FilterSpec) -> Iterator[str]:
    reward = spec.prompt.answer.reward
    yield f"Segment, `{reward}`: {about(PARSERS[reward])}"
    if spec.fallback:
        yield f"Where that reads nothing, `{spec.fallback}`: {about(PARSERS[spec.fallback])}"


def filter_rules(settings: FilterSettings) -> Iterator[tuple[str, str]]:
    """(setting, what it demands of a sample) of every threshold that is set."""
    mean, spread = "its mean tIoU is", "the tIoU of its answers has a standard deviation"
    if settings.above is not None:
        yield "above", f"{mean} above {value(settings.above)} ({STRICT})"
    if settings.at_least is not None:
        yield "at_least", f"{mean} at least {value(settings.at_least)}"
    if settings.at_most is not None:
        yield "at_most", f"{mean} at most {value(settings.at_most)}"
    if settings.spread_above is not None:
        yield "spread_above", f"{spread} above {value(settings.spread_above)} ({STRICT})"


def _count(subject: Subject, name: str, spec: FilterSpec, of: str = "Of these ") -> str:
    """Which of too many are left out."""
    gaussian = spec.gaussian
    never = "One that is never answered right is not kept." if gaussian else ""
    if spec.count is None:
        return never or "However many these are, all of them are kept."
    if spec.pick == "evenly":
        how = "spread evenly along the difficulty"
    elif gaussian:
        credit = _source(subject, name, "gaussian")
        weight = f"exp(-(difficulty - {value(gaussian.centre)})^2 / (2 x {value(gaussian.width)}^2))"
        how = f"drawn without replacement, each in proportion to {weight} [{credit}]"
    else:
        how = "drawn without replacement, all alike"
    most = f"at most {spec.count:,}, {how} [{_source(subject, name, 'count')}]"
    return f"{sentence(of + most)} {never}"


def _source(subject: Subject, name: str, key: str) -> str:
    """Where a threshold is from: the file's comment, the arm, the scale."""
    return origin(subject, f"stages.{name}", key, subject.written.stages[name], subject.experiment.stages[name])


def _collect(subject: Subject, name: str, spec: CollectSpec) -> list[str]:
    told = subject.experiment.stages[name]
    if spec.source is not None:
        source = subject.start(told.model, None)
        reads = f"Reads every grounding rollout that {source} has made, with its reward."
    else:
        reads = f"Reads the completions that the samples of `{told.data}` carry ({split(spec.data)})."
    rules = [f"{rule} [{_source(subject, name, key)}]" for key, rule in collect_rules(spec)]
    parser = spec.prompt.answer.reward
    read = [f"Segment, `{parser}`: {about(PARSERS[parser])}"] if spec.min_tiou is not None else []
    end = "Each becomes the target of its sample; several of one sample are samples of their own."
    if spec.count is not None:
        most = f"Of these at most {spec.count:,}, those of the highest reward [{_source(subject, name, 'count')}]"
        end = f"{most}. {end}"
    return [
        *paragraph(f"{reads} No model is asked."),
        *([*heading("Answers", 3), *bullets(read)] if read else []),
        *heading("Kept", 3),
        *paragraph("A completion is kept with all of this:" if rules else "Every completion is kept."),
        *bullets(rules),
        *paragraph(end),
    ]


def collect_rules(settings: CollectSettings) -> Iterator[tuple[str, str]]:
    """(setting, what it demands of a completion) of every threshold that is set."""
    if settings.min_reward is not None:
        yield "min_reward", f"a reward above {value(settings.min_reward)} ({STRICT})"
    if settings.min_anchors is not None:
        yield "min_anchors", f"at least {settings.min_anchors} readable anchors in its reasoning"
    if settings.min_soft_iou:
        least = ", ".join(f"{value(one)} (anchor {k})" for k, one in enumerate(settings.min_soft_iou, 1))
        yield "min_soft_iou", f"anchors whose signed overlap with the truth is above {least} ({STRICT})"
    if settings.min_tiou is not None:
        yield "min_tiou", f"an answer whose tIoU is at least {value(settings.min_tiou)}"
