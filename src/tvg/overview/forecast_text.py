"""A forecast on a terminal of 100 columns, with the source of every number below it; and the same as JSON."""

from collections import Counter
from dataclasses import asdict
from itertools import groupby
from typing import Any

from tvg.overview.cost.memory import FITS_ANYWHERE, Dial, Memory
from tvg.overview.cost.seconds import NO_MODEL, TEXT, Estimate
from tvg.overview.cost.space import Item
from tvg.overview.forecast import TO_DO, Choice, Evaluation, Forecast, Training, totals
from tvg.overview.layout import UNKNOWN, between, number, several, size, table
from tvg.overview.text import bullets, listed, paragraph, sentence

SHOWN = 0.02  # share of the whole below which a part of the memory is not named
MEMORY = (
    "GPU memory: the most at once, at the moment in brackets, under the scale's `runtime`, where one GPU does all the "
    "work. From the model's sizes: weights, gradients, Adam and the reference exactly, the rest as counted on the "
    "library's layers. Completions are as long as they may be, and the video is the longest, or fills `total_pixels` "
    "where the samples are not here. A GPU needs 5 to 10 % more. Dials are turned one at a time, and those with a star "
    "make it another training."
)


def as_json(found: Forecast) -> dict[str, Any]:
    """The same as data: sizes in bytes, times in seconds, null where unknown."""
    return asdict(found) | {"totals": totals(found), "sources": sources(found)}


def as_text(found: Forecast) -> str:
    """Readable at 100 columns."""
    lines = [*paragraph(found.title), *_trainings(found), "", *_choices(found), *_evaluations(found), ""]
    lines += _memory(found)
    lines += _items("to download", found.downloads) + _items("to keep", found.kept)
    if found.checkpoints:
        lines += [f"and while it runs, {size(found.checkpoints.size)} of {found.checkpoints.what}", ""]
    lines += paragraph(_summary(found))
    for head, told in (("Files of yours that are absent", found.absent), ("Not downloaded", found.by_hand)):
        lines += [f"{head}:", *bullets(told)] if told else []
    lines += paragraph(found.notice or "")
    return "\n".join([*lines, "Where each estimate comes from:", *bullets(sources(found))]).rstrip()


def _trainings(found: Forecast) -> list[str]:
    if not found.trainings:
        return ["Nothing is trained."]
    rows = [
        (one.id, one.state, _steps(one), *(_asked_of_gpu(one) if one.state in TO_DO else ("", "")), one.serves)
        for one in found.trainings
    ]
    return table(("training", "state", "step", "time", "memory", "arms"), rows)


def _asked_of_gpu(one: Training) -> tuple[str, str]:
    return _time(one.estimate), _most(one.memory).removeprefix("~") if one.memory else UNKNOWN


def _steps(one: Training) -> str:
    of = ("≤ " if one.steps.most and one.steps.value is not None else "") + number(one.steps.value)
    return of if one.state in ("to train", "not needed", "done") else f"{one.step:,} of {of}"


def _time(estimate: Estimate) -> str:
    told = {NO_MODEL: "no model", TEXT: "seconds"}.get(estimate.source)
    return told or between(estimate.low, estimate.high)


def _choices(found: Forecast) -> list[str]:
    """Filter and collect stages, and what each chooses among."""
    if not found.choices:
        return []
    todo = [one.id for one in found.to_choose()]
    rows = [
        (one.id, one.state, _among(one), _asked(one), _time(one.estimate) if one.id in todo else "", one.serves)
        for one in found.choices
    ]
    return [*table(("choice of data", "state", "reads", "answers", "time", "arms"), rows), ""]


def _among(one: Choice) -> str:
    reads = ("≤ " if one.reads.most and one.reads.value is not None else "") + number(one.reads.value)
    return reads if one.kept is None else f"{one.kept:,} kept of {reads}"


def _asked(one: Choice) -> str:
    """Answers of a model, those that are there among them; nothing where none is asked."""
    if one.answers.value == 0:
        return ""
    told = ("≤ " if one.answers.most and one.answers.value is not None else "") + number(one.answers.value)
    return f"{one.answered:,} of {told}" if one.answered and one.state != "done" else told


def _evaluations(found: Forecast) -> list[str]:
    """One line for all evaluations that ask the same, whatever the model."""

    def alike(one: Evaluation) -> tuple:
        return one.benchmark, one.data, number(one.questions.value), one.questions.most

    rows = []
    for (benchmark, data, asked, most), group in groupby(sorted(found.evaluations, key=alike), alike):
        group = list(group)
        open_ = [one for one in group if one.state != "done"]
        estimates = [one.estimate for one in open_]
        time = "" if not open_ else _time(_sum(estimates))
        begun = sum(one.state == "half done" for one in open_)
        state = f"{len(group) - len(open_)} of {len(group)}" + (f", {begun} begun" if begun else "")
        rows.append((benchmark, state, ("≤ " if most else "") + asked, time, data))
    return table(("benchmark", "evaluated", "questions each", "time of all", "data"), rows)


def _sum(estimates: list[Estimate]) -> Estimate:
    if any(one.low is None or one.high is None for one in estimates):
        return Estimate(None, None, "")
    return Estimate(sum(one.low for one in estimates), sum(one.high for one in estimates), estimates[0].source)


def _memory(found: Forecast) -> list[str]:
    """One line for all jobs that take the same, the largest first; below it, what would lower that."""
    jobs = [((one.kind, one.kind), one.memory, one.dials) for one in (*found.to_train(), *found.to_choose())]
    jobs += [(("evaluation", "evaluations"), one.memory, one.dials) for one in found.to_evaluate()]
    told: dict[tuple[str, str, str], Counter[tuple[str, str]]] = {}
    for kind, memory, dials in sorted(jobs, key=lambda job: -job[1].total if job[1] else 0):
        if memory:
            told.setdefault(_peak(memory, dials), Counter())[kind] += 1
    rows = []
    for (total, parts, less), kinds in told.items():
        rows.append((total, listed([several(count, *kind) for kind, count in kinds.items()]), parts))
        rows += [("", "", less)] if less else []
    return [*table(("GPU memory", "of", "made of, in GB; what would lower it"), rows), ""] if rows else []


def _peak(memory: Memory, dials: list[Dial]) -> tuple[str, str, str]:
    """How much, its parts and when, and the dials; a star before those that make it another training."""
    if memory.total < FITS_ANYWHERE:
        return _most(memory), "any GPU", ""
    parts = ", ".join(f"{name} {_gb(part)}" for name, part in memory.parts.items() if part >= SHOWN * memory.total)
    less = [f"{'*' * dial.science}{dial.name} {dial.to} (-{_gb(dial.saves)})" for dial in dials]
    return _most(memory), f"{parts} ({memory.at})", "less by " + ", ".join(less) if less else ""


def _most(memory: Memory) -> str:
    return f"~{size(memory.total)}" if memory.total >= FITS_ANYWHERE else f"< {size(FITS_ANYWHERE)}"


def _gb(count: float) -> str:
    return f"{count / 1e9:.{0 if count >= 9.95e9 else 1}f}"


def _items(head: str, items: list[Item]) -> list[str]:
    if not items:
        return []
    rows = [(("≤ " if one.most and one.size is not None else "") + size(one.size), one.what) for one in items]
    return [*table((head, ""), rows), ""]


def _summary(found: Forecast) -> str:
    sums = totals(found)
    parts = [
        f"{several(sums['trainings'], 'training')} ({sums['trainings_done']} done, {sums['trainings_shared']} shared)"
    ]
    if sums["choices"]:
        parts.append(f"{several(sums['choices'], 'choice')} of data ({sums['choices_done']} done)")
    for device, unit in (("GPU", "GPU-hours"), ("CPU", "of this machine's CPU")):
        if ends := sums["seconds"][device]:
            parts.append(_hours(ends) + f" {unit}" if device == "GPU" else f"{between(*ends)} {unit}")
    if sums["seconds_unknown"]:
        parts.append(f"an unknown time for {several(sums['seconds_unknown'], 'job')}")
    for key, verb in (("download", "to download"), ("keep", "to keep")):
        unknown = sums[f"{key}_unknown"]
        rest = f" and {several(unknown, 'thing')} of unknown size" if unknown else ""
        parts.append(f"{size(sums[key])}{rest} {verb}" if sums[key] or unknown else f"nothing {verb}")
    return f"{listed(parts)}."


def _hours(ends: list[float]) -> str:
    if not ends[0]:
        return f"at most {ends[1] / 3600:,.1f}"
    low, high = (f"{end / 3600:,.0f}" if end >= 36000 else f"{end / 3600:.1f}" for end in ends)
    return low if low == high else f"{low} to {high}"


def sources(found: Forecast) -> list[str]:
    """One entry for each way in which a number was come by."""
    items = [*found.downloads, *found.kept, *([found.checkpoints] if found.checkpoints else [])]
    told = [
        *((f"time of {one.kind} trainings", one.estimate.source) for one in found.to_train()),
        *(
            (f"time of {one.kind} stages", one.estimate.source)
            for one in found.to_choose()
            if one.estimate.source not in (NO_MODEL, TEXT)
        ),
        *(
            ("time of evaluations", one.estimate.source)
            for one in found.to_evaluate()
            if one.estimate.source != NO_MODEL
        ),
        *(("steps", one.steps.source) for one in found.to_train()),
        *((f"what {one.kind} stages read", one.reads.source) for one in found.to_choose()),
        *(("questions", one.questions.source) for one in found.to_evaluate()),
        *((one.what, one.source) for one in items),
    ]
    entries: dict[str, dict[str, None]] = {}
    for what, source in told:
        entries.setdefault(source, {})[what] = None
    lines = [sentence(f"{listed(list(what))}: {source}") for source, what in entries.items()]
    if any(one.memory for one in (*found.to_train(), *found.to_choose(), *found.to_evaluate())):
        lines.append(MEMORY)
    if any("reference below" in source for source in entries):
        lines.append(sentence(f"The reference: {found.reference}"))
    return [
        *lines,
        "Not counted: annotation files, chosen samples, predictions, completions and logs; they are text, and small.",
    ]
