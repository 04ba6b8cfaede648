"""A forecast on a terminal of 100 columns, with the source of every number below it; and the same as JSON."""

from dataclasses import asdict
from itertools import groupby
from typing import Any

from tvg.overview.cost.figures import Reference
from tvg.overview.cost.seconds import NO_MODEL, TEXT, Estimate
from tvg.overview.cost.space import Item
from tvg.overview.forecast import TO_DO, Choice, Evaluation, Forecast, Training, totals
from tvg.overview.layout import between, number, several, size, table
from tvg.overview.text import bullets, listed, paragraph, sentence


def as_json(found: Forecast) -> dict[str, Any]:
    """The same as data: sizes in bytes, times in seconds, null where unknown."""
    return asdict(found) | {"totals": totals(found), "sources": sources(found)}


def as_text(found: Forecast) -> str:
    """Readable at 100 columns."""
    lines = [*paragraph(found.title), *_trainings(found), "", *_choices(found), *_evaluations(found), ""]
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
        (one.id, one.state, _steps(one), "" if one.state not in TO_DO else _time(one.estimate), one.serves)
        for one in found.trainings
    ]
    return table(("training", "state", "step", "time", "arms"), rows)


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
    if any("reference below" in source for source in entries):
        lines.append(sentence(f"The reference: {Reference.source}"))
    return [
        *lines,
        "Not counted: annotation files, chosen samples, predictions, completions and logs; they are text, and small.",
    ]
