"""The start of a new paper: a commented experiment file that plans at once, and, where wanted, its prompt file.

Rewards, their options, settings and roles are listed from the code and the scales, so that no list here grows old.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import wrap
from typing import Annotated, get_args, get_origin

from tvg import rewards
from tvg.config import Experiment, Scale, StageSource, check_experiment_name, parse_yaml, read
from tvg.errors import TvgError
from tvg.overview.text import first_paragraph, value
from tvg.parse import FORMATS, PARSERS
from tvg.sample import Task
from tvg.settings import Closed, CollectSettings, FilterSettings, GrpoSettings, RewardSettings

SETTINGS = (
    "epochs", "prompts_per_step", "num_generations", "temperature", "max_completion_tokens", "learning_rate", "beta",
    "epsilon", "loss_type", "scale_rewards", "freeze_vision",
)  # fmt: skip
PROMPT = "time_r1"
QUESTION = (
    'Find the moment in the video that this sentence describes: "{query}". First reason inside <think> </think>. Then',
    'give the start and the end in seconds inside <answer> </answer>, joined by the word "to", for example',
    "<answer>12.54 to 17.83</answer>.",
)
WIDTH, COLUMN = 120, 40


def write(folder: Path, name: str, paper: str, with_prompt: bool = False) -> list[Path]:
    """Write `folder`/experiments/{name}.yaml, and with it the prompt file; which files those are.

    Raises TvgError for a name that cannot be one, and for a file that exists: nothing is overwritten.
    """
    check_experiment_name(name, "tvg new", "an arm comes after the experiment's name and a hyphen: a name has none")
    wanted = {folder / "experiments" / f"{name}.yaml": experiment(folder, name, paper, name if with_prompt else PROMPT)}
    if with_prompt:
        wanted[folder / "prompts" / f"{name}.yaml"] = prompt(name)
    for path in wanted:
        if path.exists():
            raise TvgError(
                path, "this file exists", got=name, expected="a new name", hint="edit the file, or choose another name"
            )
    for path, lines in wanted.items():
        with path.open("x", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
    return list(wanted)


def next_steps(name: str, written: Iterable[Path]) -> list[str]:
    """What to do with the new files."""
    return [
        *(f"Wrote {path}" for path in written),
        "Next:",
        "  replace every `our default` by the paper's value and say where it stands",
        f"  tvg explain {name}",
        f"  snakemake -n all --config 'experiments=[{name}]'",
    ]


# ---------------------------------------------------------------- the experiment file


def experiment(folder: Path, name: str, paper: str, prompt: str) -> list[str]:
    """The lines of the experiment file."""
    data, benchmarks = _roles(folder, "data"), _roles(folder, "benchmarks")
    paper = " ".join(paper.split())
    return [
        "# yaml-language-server: $schema=../schema.json#/$defs/experiment",
        *_comment(
            f"{name} ({paper}): say here in a sentence or two what the system does. `tvg explain {name}` begins so."
        ),
        "",
        *_comment(
            "Every number says at the end of its line where it is from: the paper's table, the released code, or ours "
            "and why. Where the paper has another value, write it too: `# paper 5e-5; ours, for one GPU`."
        ),
        "",
        f"paper: {_plain(paper)}",
        *_line(f"prompt: {prompt}", f"config/prompts/{prompt}.yaml: the question, and how answers are read"),
        "",
        *_comment(
            "Rewards: a stage's reward is the sum of weight x reward over those that apply to the task. There are:"
        ),
        *_rewards(),
        "rewards:",
        *_line("  format: {weight: 1.0}", "our default"),
        *_line("  tiou: {weight: 1.0}", "our default"),
        "",
        *_comment("Stages by names of your own, in order. Where each training starts and what it reads:"),
        *_comment(f"init: {StageSource.model_fields['init'].description}", "  "),
        *_comment(f"data: {StageSource.model_fields['data'].description}; roles: {_told(data)}", "  "),
        *_comment(f"tasks: shares that sum to 1, of {', '.join(get_args(Task))}", "  "),
        *_comment("A supervised stage before this one would be (then write `init: sft` below):"),
        *_comment(
            "sft: {kind: sft, data: " + next(iter(data)) + ", epochs: 1, learning_rate: 1.0e-5}   # its source", "  "
        ),
        *_choices_of_data(next(iter(data))),
        "stages:",
        "  grpo:",
        "    kind: grpo",
        "    init: base",
        f"    data: {next(iter(data))}",
        *_line("    tasks: {ground: 1.0}", "our default"),
        *(line for field in SETTINGS for line in _setting(field)),
        "",
        *_line("evaluate: grpo", Experiment.model_fields["evaluate"].description),
        *_line(f"benchmarks: [{next(iter(benchmarks))}]", f"there are: {_told(benchmarks)}"),
        "",
        *_comment("Arms: one line is one row of an ablation table, and sets exactly the dotted paths; null deletes."),
        "arms:",
        *_line("  no_format: {rewards.format: null}", "ours: an example"),
        *_line("  no_kl: {stages.grpo.beta: 0.0}", "ours: an example"),
    ]


def _choices_of_data(role: str) -> list[str]:
    """How a stage looks that makes data, and what it may demand."""
    return [
        *_comment(
            "A stage may make data, which a later one names by `data:`. filter asks a model and keeps samples of the "
            "right difficulty; collect keeps good completions, of rollouts or of a data set, as targets of an sft:"
        ),
        *_comment(
            "hard: {kind: filter, model: base, data: "
            + role
            + ", num_generations: 8, above: 0.0, at_most: 0.7}   # its source",
            "  ",
        ),
        *_comment("traces: {kind: collect, model: grpo, min_reward: 1.5}   # its source", "  "),
        *_settings_of(FilterSettings),
        *_settings_of(CollectSettings),
    ]


def _settings_of(kind: type[Closed]) -> list[str]:
    """Every setting of a stage that makes data, and what it is."""
    fields = {name: field.description for name, field in kind.model_fields.items() if name != "kind"}
    head = _comment(f"{kind.model_fields['kind'].default} may set:", "  ")
    return head + [line for name, meaning in fields.items() for line in _comment(f"{name}: {meaning}", "    ")]


def _roles(folder: Path, kind: str) -> dict[str, list[str]]:
    """Role -> the scales that map it, the most mapped first."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "scales").glob("*.yaml")):
        for role in getattr(read(Scale, folder / "scales", path.stem), kind):
            found.setdefault(role, []).append(path.stem)
    if not found:
        raise TvgError(
            folder / "scales", f"no scale maps any {kind}", got="nothing", expected="config/scales/*.yaml",
            hint="run this in the repository's root",
        )  # fmt: skip
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _told(roles: dict[str, list[str]]) -> str:
    """`charades_train, timerft`, with the scales of a role that not every scale maps."""
    most = max(map(len, roles.values()))
    return ", ".join(
        role if len(scales) == most else f"{role} (at {' and '.join(scales)})" for role, scales in roles.items()
    )


def _rewards() -> list[str]:
    """Every reward, the tasks that it reads, and its options."""
    lines = []
    for name, function in rewards.REWARDS.items():
        tasks = [task for task in get_args(Task) if task in rewards.TASKS.get(name, ())]
        lines += _comment(f"{name}, on {', '.join(tasks) or 'every task'}. {first_paragraph(function.__doc__)}", "  ")
        for option in sorted(rewards.OPTIONS.get(name, ())):
            field = RewardSettings.model_fields[option]
            meaning = (field.description or "").removeprefix(f"{name}: ")
            lines += _comment(f"{option}: {_choices(field.annotation)}; {meaning}", "    ")
    return lines


def _choices(annotation: object) -> str:
    """`binary or cosine`, of an optional setting's type."""
    words = []
    for part in get_args(annotation):
        part = get_args(part)[0] if get_origin(part) is Annotated else part
        words += [value(word) for word in get_args(part)] or {bool: ["true", "false"], type(None): []}.get(
            part, ["a number"]
        )
    return " or ".join(words)


def _setting(field: str) -> list[str]:
    told = GrpoSettings.model_fields[field]
    return _line(f"    {field}: {_plain(told.default)}", f"our default; {told.description}")


# ---------------------------------------------------------------- the prompt file


def prompt(name: str) -> list[str]:
    """The lines of the prompt file."""
    return [
        "# yaml-language-server: $schema=../schema.json#/$defs/prompt",
        *_comment(f"What {name} asks, in your own words, and how its answers are read."),
        "",
        *_comment(
            "One text for each task asked; the inversion tasks that have none here take prompts/inversion.yaml's."
        ),
        "texts:",
        "  ground: |",
        *(f"    {line}" for line in QUESTION),
        "",
        *_comment("format: what the reward `format` checks. There are:"),
        *_functions(FORMATS),
        *_comment("reward: the rewards read this; legacy: what the authors evaluate with, or null. There are:"),
        *_functions(PARSERS),
        "answer: {format: fmt_ta, reward: ans_last, legacy: null}",
    ]


def _functions(known: dict[str, Callable]) -> list[str]:
    return [line for name, one in known.items() for line in _comment(f"{name}: {first_paragraph(one.__doc__)}", "  ")]


# ---------------------------------------------------------------- YAML


def _comment(text: str, indent: str = "") -> list[str]:
    """Wrapped comment lines; what is indented hangs."""
    first, rest = f"# {indent}", f"# {indent}  " if indent else "# "
    return wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _line(entry: str, source: str) -> list[str]:
    """An entry and the comment on it, which goes on below in the same column."""
    start = f"{entry:<{COLUMN - 2}}  # "
    return wrap(source, WIDTH, initial_indent=start, subsequent_indent=f"{'':<{len(start) - 2}}# ")


def _plain(given: object) -> str:
    """A value as YAML; a text that YAML would read as something else is quoted."""
    if isinstance(given, float) and given < 1e-3:
        return re.sub("e-0", "e-", f"{given:.1e}")
    if isinstance(given, str) and not _reads_back(given):
        return json.dumps(given, ensure_ascii=False)
    return value(given)


def _reads_back(text: str) -> bool:
    try:
        return parse_yaml(f"x: {text}", "") == {"x": text}
    except TvgError:
        return False
