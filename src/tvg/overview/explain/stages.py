"""A training in words: where it starts, what it reads and asks, how answers are read and rewarded, and its numbers."""

import inspect
import re
from collections.abc import Collection
from typing import get_args

from tvg import rewards
from tvg.config import DataSource, StageSource, read_yaml
from tvg.inversion import action_recognition, verb_completion, video_description
from tvg.overview.explain.subject import Subject
from tvg.overview.selection import loads
from tvg.overview.text import bullets, columns, first_paragraph, heading, indented, listed, paragraph, sentence, value
from tvg.parse import FORMATS, PARSERS
from tvg.prompts import target
from tvg.sample import INVERSION_TASKS, Sample, Task
from tvg.segment import Segment
from tvg.settings import AnswerContract, AwbcSettings, Closed, Prompt, RewardSettings
from tvg.spec import AwbcSpec, SftSpec, StageSpec

KINDS = {
    "sft": "supervised fine-tuning (SFT)",
    "grpo": "group-relative policy optimisation (GRPO)",
    "awbc": "advantage-weighted behaviour cloning (AWBC)",
    "filter": "choice of samples by difficulty (filter)",
    "collect": "choice of completions as targets (collect)",
}
TASKS = {
    "ground": "Grounding. Asked: when the query is true.",
    "complete_verb": first_paragraph(verb_completion.__doc__),
    "recognise_action": first_paragraph(action_recognition.__doc__),
    "describe": first_paragraph(video_description.__doc__),
}
DRAWN = {
    "prompt": "The task is drawn for each prompt:",
    "step": "The task is drawn once for all prompts of a step:",
    "static": "Every epoch grounds each sample, and repeats those of the same few videos under the other tasks, to "
    "shares as close as whole videos allow to:",
}
ORDERED = {
    "easy_to_hard": "from the easy samples to the hard ones",
    "hard_to_easy": "from the hard samples to the easy ones",
}
MIXTURE = {"tasks", "tasks_end", "draw", "order"}
TOLD_APART = {  # not as numbers
    "kind", *MIXTURE, "model", "more_prompts", *StageSource.model_fields, *DataSource.model_fields,
}  # fmt: skip
EXAMPLE = Sample("", "", 30.0, "person opens the door", (Segment(3.2, 9.75),), verbs=("open",))


def training(subject: Subject, name: str) -> list[str]:
    """The section of one stage that makes a model."""
    spec, told = subject.stages[name], subject.experiment.stages[name]
    first = f"Starts from {subject.start(told.init, spec.init)}. Trains on {subject.data(told.data, spec.data)}."
    return [
        *heading(f"Stage `{name}`: {KINDS.get(spec.kind, spec.kind)}"),
        *paragraph(first),
        *_tasks(subject, name, spec),
        *asked(subject, name),
        *(_constructed(told.prompt or subject.experiment.prompt, spec) if isinstance(spec, AwbcSpec) else []),
        *(_targets(spec) if isinstance(spec, SftSpec) else _answers(spec.prompt)),
        *_rewards(subject, name, spec),
        *numbers(subject, f"stages.{name}", subject.written.stages[name], told, TOLD_APART),
    ]


def in_order(tasks: Collection[str]) -> list[Task]:
    """Grounding first, then the inversion tasks."""
    return [task for task in get_args(Task) if task in tasks]


def _tasks(subject: Subject, name: str, spec: StageSpec) -> list[str]:
    path, written = f"stages.{name}", subject.written.stages[name].model_fields_set
    told = f" ({subject.credit(f'{path}.tasks')})" if "tasks" in written else ""
    if spec.every_task == ["ground"]:
        lines = [f"Every prompt asks `ground`{told}."]
    else:
        lines = [f"{DRAWN[spec.draw]} {_shares(spec.tasks)}{told}."]
        if spec.tasks_end is not None:
            last = f"{_shares(spec.tasks_end)} ({subject.credit(f'{path}.tasks_end')})"
            lines.append(f"These are the shares of the first step; they move linearly to those of the last: {last}.")
        if spec.kind != "sft":
            lines.append("All rollouts of a prompt share its task.")
        lines += inversion(spec.every_task, spec.data.samples.verbs)
    if spec.order != "none":
        lines.append(f"Each epoch goes {ORDERED[spec.order]}, by the difficulty that a filter stage has measured.")
    return [*heading("Tasks", 3), *paragraph(" ".join(lines))]


def _shares(tasks: dict[Task, float]) -> str:
    return value({task: tasks[task] for task in in_order(tasks)})


def inversion(tasks: Collection[str], verbs: str | None) -> list[str]:
    """What the inversion tasks have in common, as sentences."""
    if not set(tasks) & set(INVERSION_TASKS):
        return []
    return [
        "The inversion tasks show the clip of the true segment and ask what happens in it.",
        f"The back-end `{verbs}` finds the queries' verbs; a query without a verb has no inversion task.",
    ]


def asked(subject: Subject, name: str) -> list[str]:
    """What a stage asks, in full where it is the first one to ask so."""
    spec, told = subject.stages[name], subject.experiment.stages[name]
    for earlier, other in subject.stages.items():
        if earlier == name:
            break
        if loads(other) is not None and (other.prompt.system, other.prompt.texts) == (
            spec.prompt.system,
            spec.prompt.texts,
        ):
            return [*heading("Prompts", 3), *paragraph(f"As in the stage `{earlier}`.")]
    inversion_file = getattr(told, "inversion_prompt", None) or subject.experiment.inversion_prompt
    more = ", ".join(f"prompts/{file}.yaml" for file in getattr(told, "more_prompts", ()))
    drawn = f"A sample is asked so, or under one of these files that ask its task, with equal chance: {more}."
    return [
        *questions(subject, told.prompt or subject.experiment.prompt, inversion_file, spec.prompt),
        *paragraph(drawn if more else ""),
    ]


def questions(subject: Subject, file: str, inversion_file: str, prompt: Prompt) -> list[str]:
    """The text of every task asked, and which of the two files it stands in."""
    own = read_yaml(subject.resolver.folder / "prompts" / f"{file}.yaml")["texts"]
    lines = heading("Prompts", 3)
    if prompt.system:
        lines += [*paragraph("System message:"), *indented(prompt.system)]
    for task in in_order(prompt.texts):
        where = file if task in own else inversion_file
        lines += [
            *paragraph(f"`{task}`, prompts/{where}.yaml. {TASKS.get(task, '')}"),
            *indented(prompt.texts[task]),
        ]
    return lines


def _targets(spec: SftSpec) -> list[str]:
    """What a supervised training imitates, shown on one made-up sample."""
    if spec.data.made_by is not None and spec.data.made_by.kind == "collect":
        return [*heading("Targets", 3), *paragraph("Each sample's own completion, which was kept for it.")]
    true = EXAMPLE.segments[0]
    query = f"for the query '{EXAMPLE.query}', true from {true.start} to {true.end} s"
    return [
        *heading("Targets", 3),
        *paragraph(f"A sample's own completion, where it carries one; else, {query}:"),
        *columns([(task, target(EXAMPLE.with_task(task), spec.prompt.answer)) for task in in_order(spec.every_task)]),
        *paragraph(_walks(spec)),
    ]


def _walks(spec: SftSpec) -> str:
    if not spec.constructed:
        return ""
    return (
        f"A share of {value(spec.constructed)} of the samples with dense captions that are asked by a prompt with "
        "`prefix` reason in its words instead, {captions} being a random subset of theirs, in the order of time."
    )


def _constructed(file: str, spec: AwbcSpec) -> list[str]:
    """How an awbc stage's rollouts begin, and what is learnt from them."""
    lines = heading("Construction", 3)
    lines += paragraph(f"{sentence(first_paragraph(AwbcSettings.__doc__))} {_loss()}")
    if not (spec.constructed or spec.constructed_end):
        return [*lines, *paragraph("Here no prompt gets a prefix: all rollouts are the model's own (`constructed` 0).")]
    if spec.prompt.prefix is None:
        return [*lines, *paragraph(f"prompts/{file}.yaml has no `prefix`, so that this stage cannot run.")]
    share = "Every prompt" if spec.constructed == 1 else f"A share of {value(spec.constructed)} of the prompts"
    if spec.constructed_end is not None:
        share += f" at the first step, moving linearly to a share of {value(spec.constructed_end)} at the last,"
    asked = f"{share} whose sample has dense captions gets one. {{captions}} is a random subset of them, drawn for each"
    return [
        *lines,
        *paragraph(f"{asked} rollout, in the order of time, one a line. The prefix, in prompts/{file}.yaml:"),
        *indented(spec.prompt.prefix),
    ]


def _loss() -> str:
    """The second paragraph of what AwbcSettings says of itself."""
    return " ".join((AwbcSettings.__doc__ or "").split("\n\n", 1)[1].split())


def _answers(prompt: Prompt) -> list[str]:
    contract = prompt.answer
    return [
        *heading("Answers", 3),
        *bullets([
            *formats(contract, "Format"),
            f"Segment, as the rewards read it, `{contract.reward}`: {about(PARSERS[contract.reward])}",
        ]),
    ]  # fmt: skip


def formats(contract: AnswerContract, called: str) -> list[str]:
    """The format checks: of all tasks, then of those that have their own."""
    checks = {called: contract.format, **{f"{called} of `{task}`": own for task, own in contract.formats.items()}}
    return [f"{what}, `{check}`: {about(FORMATS[check])}" for what, check in checks.items()]


def _rewards(subject: Subject, name: str, spec: StageSpec) -> list[str]:
    used = getattr(spec, "rewards", {})
    if not used:
        return []
    own = subject.experiment.stages[name].rewards
    at = "rewards" if own is None else f"stages.{name}.rewards"
    idle = [reward for reward in own or subject.experiment.rewards if reward not in used]
    lines = heading("Rewards", 3)
    lines += indented("reward = " + " + ".join(f"{given.weight} x {reward}" for reward, given in used.items()))
    lines += bullets(_reward(reward, given, spec, subject.credit(f"{at}.{reward}")) for reward, given in used.items())
    if len(spec.every_task) > 1:
        lines += paragraph("A reward that does not apply to a prompt's task drops out of its sum.")
    if idle:
        lines += paragraph(f"In the file, but none of these tasks has it: {listed(idle)}.")
    return lines


def _reward(name: str, given: RewardSettings, spec: StageSpec, credit: str) -> str:
    read = rewards.TASKS.get(name)
    tasks = "every task" if read is None else listed([task for task in in_order(spec.every_task) if task in read])
    options = [f"{key} {value(item)}" for key, item in given if key != "weight" and item is not None]
    told = f" With {listed(options)}." if options else ""
    return f"`{name}`, on {tasks}. {about(rewards.REWARDS[name])}{told} [{credit}]"


def numbers(subject: Subject, path: str, written: Closed, told: Closed, leave_out: Collection[str]) -> list[str]:
    """Every setting of a stage or an evaluation: what the file or the scale says, then what is left at its default."""
    fields = [field for field in type(told).model_fields if field not in leave_out]
    said = [field for field in fields if field in written.model_fields_set | told.model_fields_set]
    rows = [(field, value(getattr(told, field)), origin(subject, path, field, written, told)) for field in said]
    left = [(field, value(getattr(told, field)), _default(type(told), field)) for field in fields if field not in said]
    return [
        *heading("Numbers", 3),
        *columns(rows),
        *(paragraph("Left at the code's defaults:") if left else []),
        *columns(left),
    ]


def origin(subject: Subject, path: str, field: str, written: Closed, told: Closed) -> str:
    """Who says so: the scale over the file, the file's comment, the arm."""
    path, before, now = f"{path}.{field}", getattr(written, field), getattr(told, field)
    credit = subject.credit(path) if field in written.model_fields_set else None
    if isinstance(now, str | bool) and not (subject.source(path) or subject.edited(path)):
        credit = type(told).model_fields[field].description or ""  # a word needs no source
    if field == "epochs" and getattr(told, "steps", None):
        credit = f"{credit or 'default'}; not used, `steps` wins"
    if before == now:
        return credit or "default"
    where = "in the file" if field in written.model_fields_set else "by default"
    return f"at {subject.scale}; {value(before)} {where}" + (f": {credit}" if credit else "")


def _default(kind: type[Closed], field: str) -> str:
    """Where a default comes from, if the docstring of the class that declares it says so; and what the setting is."""
    owner = next(one for one in kind.__mro__ if field in inspect.get_annotations(one))
    cited = re.search(r"systems\.md [\d., ]*\d", owner.__doc__ or "")
    meaning = kind.model_fields[field].description
    return ": ".join(filter(None, [f"default, {cited[0]}" if cited else "default", meaning]))


def about(function: object) -> str:
    """What a parser, a format check or a reward says of itself first."""
    return sentence(first_paragraph(function.__doc__))
