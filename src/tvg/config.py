"""What a person writes: config.yaml, experiments, scales, data sets, prompts. Read safely, checked closed.

Errors name file, arm, key, value got and nearest word.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from tvg.errors import TvgError
from tvg.parse import FORMATS, PARSERS
from tvg.settings import (
    AwbcSettings,
    Closed,
    CollectSettings,
    EvaluateSettings,
    FilterSettings,
    FramesSettings,
    GrpoSettings,
    Prompt,
    RewardSettings,
    Runtime,
    SftSettings,
)
from tvg.spec import DatasetIdentity, HubModel, PathModel
from tvg.store import FOLDERS
from tvg.validation import check, did_you_mean, parse_yaml, read_yaml

__all__ = ["check", "did_you_mean", "parse_yaml", "read_yaml"]

NAME = r"^[a-z0-9][a-z0-9_.]*$"  # goes into paths and wildcards
WORD = r"^[a-z0-9][a-z0-9_]*$"  # of what a dot may follow: `experiment.stage`, `dataset.split`
RESERVED = frozenset({*FOLDERS, "fetched", "report", "track"})  # of a results store, where an experiment has a folder
# What a question must hold, one of these at least; the others hold none
PLACEHOLDERS = {"ground": ("query",), "complete_verb": ("masked", "removed")}
ABSENT = "absent"  # for the sha256 of a file of the user's that is not there
Name = Annotated[str, Field(pattern=NAME)]
Word = Annotated[str, Field(pattern=WORD)]
Selected = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*(-[a-z0-9][a-z0-9_.]*)?$")]
Rewards = dict[Name, RewardSettings]


class Config(Closed):
    """config.yaml: the user's dials only, no science. Each can be set for one call: `--config scale=3b seeds=[0,1]`."""

    scale: Name = "mini"
    """a file of scales/"""
    experiments: Literal["all"] | tuple[Selected, ...] = "all"
    """files of experiments/, or arms of them (invert4tvg-cosine; `-main` is the arm without edits), or all"""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """every arm is trained once for each"""
    limit: PositiveInt | None = None
    """only the first so many samples of each data role and benchmark, and their videos"""
    steps: PositiveInt | None = None
    """every training takes so many steps at most, to try it out; a file that states its `scales:` keeps its own"""
    data_root: str = "data"
    """downloaded and drawn videos; it may be read-only where all is there"""
    results_root: str = "results"
    """what runs write"""
    tracking_uri: str | None = None
    """an MLflow server; without one, mlflow.db in the results root"""

    @field_validator("experiments", "seeds")
    @classmethod
    def named_once(cls, value: Any) -> Any:
        twice = [str(one) for k, one in enumerate(value) if one in value[:k]] if isinstance(value, tuple) else []
        if twice:
            raise ValueError(f"each once; twice: {', '.join(twice)}")
        return value


class StageSource(Closed):
    """Where a stage starts, what it reads, and what it asks: names, resolved by tvg.plan."""

    init: str = "base"
    """`base`, `scratch` (random weights), a stage of this file, or `experiment.stage` of another"""
    data: str
    """a data role of the scale, or `dataset.split`"""
    prompt: Name | None = None
    """a file of prompts/; without it, the experiment's"""
    inversion_prompt: Name | None = None
    """a file of prompts/: the inversion tasks' questions; without it, the experiment's"""
    rewards: Rewards | None = None
    """of this stage; without it, the experiment's"""


class SftStage(SftSettings, StageSource):
    """`kind: sft`: supervised fine-tuning on the response tokens."""

    more_prompts: tuple[Name, ...] = ()
    """further files of prompts/: a sample is asked under one of those that have a question for its task, drawn anew
    in every epoch"""


class GrpoStage(GrpoSettings, StageSource):
    """`kind: grpo`: group-relative policy optimisation."""


class AwbcStage(AwbcSettings, StageSource):
    """`kind: awbc`: advantage-weighted behaviour cloning of constructed rollouts."""


class DataSource(Closed):
    """What a stage that makes data reads, and how it reads answers."""

    prompt: Name | None = None
    """a file of prompts/: the question, and how answers are read; without it, the experiment's"""


class FilterStage(FilterSettings, DataSource):
    """`kind: filter`: keep the samples of the right difficulty."""

    model: str = "base"
    """whose answers tell the difficulty: as a training's `init`"""
    data: str
    """a data role of the scale, `dataset.split`, or another stage that makes data"""


class CollectStage(CollectSettings, DataSource):
    """`kind: collect`: keep good completions as targets."""

    model: str | None = None
    """the grpo stage whose rollouts they are"""
    data: str | None = None
    """or a data set whose samples carry completions"""

    @model_validator(mode="after")
    def one_source(self) -> "CollectStage":
        if (self.model is None) == (self.data is None):
            raise ValueError("either `model` (a stage's rollouts) or `data` (a data set's completions)")
        return self


Stage = Annotated[SftStage | GrpoStage | AwbcStage | FilterStage | CollectStage, Field(discriminator="kind")]


class Experiment(Closed):
    """A file of experiments/: one paper's system, and its ablations as arms."""

    paper: str
    """where it is described"""
    base: HubModel | PathModel | None = None
    """released weights instead of the scale's base model"""
    prompt: Name
    """a file of prompts/: the question, and how answers are read"""
    inversion_prompt: Name = "inversion"
    """a file of prompts/: the inversion tasks' questions, and their format check where it states one"""
    rewards: Rewards = {}
    """the weighted sum of every grpo stage below, by name in tvg.rewards"""
    stages: dict[Word, Stage] = {}
    """trainings, by a name of their own"""
    evaluate: str
    """what is evaluated: a stage, `base`, `floor_whole_video` or `floor_constant_window`"""
    evaluation: EvaluateSettings = EvaluateSettings()
    """how it is decoded and scored"""
    benchmarks: Annotated[tuple[Name, ...], Field(min_length=1)]
    """benchmarks of the scale, or `dataset.split`"""
    scales: tuple[Name, ...] | None = None
    """the scales where it exists; such a file states its own sizes, no scale resizes it"""
    arms: dict[Name, dict[str, Any] | None] = {}
    """ablations: each a few edits, `dotted.path: value`; null deletes"""


class Role(Closed):
    """A data set's split, as a data role or a benchmark names it."""

    dataset: Word
    """a file of datasets/"""
    split: Word
    """one of its splits"""


class StageOf(Closed):
    """The weights of another experiment's stage."""

    experiment: Word
    """a file of experiments/"""
    stage: Word
    """one of its stages"""


class Architecture(Closed):
    """Sizes of a model from scratch, keys as in the library's Qwen2.5-VL text and vision configs."""

    text: dict[str, int]
    """hidden_size, num_hidden_layers, ..."""
    vision: dict[str, Any]
    """hidden_size, depth, ..."""
    seed: int = 0
    """of the random weights"""


Size = Literal[
    "steps", "epochs", "prompts_per_step", "num_generations", "batch", "max_completion_tokens", "learning_rate",
    "warmup_steps", "count", "min_count",
]  # fmt: skip


class Scale(Closed):
    """A file of scales/: what the base model, each data role and each benchmark are, and which sizes shrink."""

    base: HubModel | PathModel | StageOf | Literal["scratch"]
    """what `base` means: weights on the hub, a folder, another experiment's stage, or random weights"""
    scratch: Architecture | None = None
    """sizes of a model from random weights"""
    verbs: Literal["spacy_sm", "standin"]
    """the back-end that finds the verbs of a query"""
    shards: PositiveInt
    """in how many jobs a data set's videos are decoded"""
    frames: FramesSettings = FramesSettings()
    """how videos become frames"""
    data: dict[Word, Role]
    """what each data role is"""
    benchmarks: dict[Word, Role]
    """what each benchmark is"""
    may_set: tuple[Size, ...] = ()
    """the sizes that this scale sets: never rewards, tasks or the order of stages"""
    set: dict[Literal["sft", "grpo", "awbc", "filter", "collect", "evaluation"], dict[str, Any]] = {}
    """their values for each kind of stage, and for evaluations"""
    runtime: Runtime = Runtime()
    """how jobs run, which changes no result"""


def read(kind: type[Closed], folder: Path, name: str) -> Closed:
    """The YAML `{folder}/{name}.yaml` as a `kind`; an unknown name lists the nearest."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise TvgError(
            path,
            f"no such {kind.__name__.lower()}",
            got=name,
            expected=", ".join(known),
            hint=did_you_mean(name, known),
        )
    return check(kind, read_yaml(path), path)


def read_prompt(folder: Path, name: str) -> Prompt:
    """The prompt of that name: its contract names what tvg.parse has, its questions hold what there is to fill in."""
    prompt, path = read(Prompt, folder, name), folder / f"{name}.yaml"
    said = prompt.answer
    named = [("format", said.format, FORMATS), ("reward", said.reward, PARSERS), ("legacy", said.legacy, PARSERS)]
    named += [(f"formats.{task}", given, FORMATS) for task, given in said.formats.items()]
    for key, given, known in named:
        if given is not None and given not in known:
            what = "no such format check" if known is FORMATS else "no such parser"
            hint = did_you_mean(given, list(known))
            raise TvgError(f"{path}: answer.{key}", what, got=given, expected=", ".join(known), hint=hint)
    for task, text in prompt.texts.items():
        allowed = PLACEHOLDERS.get(task, ())
        for word in re.findall(r"\{(\w+)\}", text):
            if word not in allowed:
                raise TvgError(
                    f"{path}: texts.{task}", "nothing to fill in here", got=f"{{{word}}}",
                    expected=" or ".join(f"{{{one}}}" for one in allowed) or "no braces", hint="correct the question",
                )  # fmt: skip
        if allowed and not any(f"{{{word}}}" in text for word in allowed):
            raise TvgError(
                f"{path}: texts.{task}", "the question does not hold the query", got=text.strip()[:60],
                expected=" or ".join(f"{{{one}}}" for one in allowed), hint="say in the question where it stands",
            )  # fmt: skip
    return prompt


def read_prompts(folder: Path, name: str, inversion_name: str) -> Prompt:
    """The prompt of that name; what it does not ask is the inversion prompt's, with the format that that one states."""
    prompt, inversion = read_prompt(folder, name), read_prompt(folder, inversion_name)
    added, own = inversion.texts.keys() - prompt.texts.keys(), inversion.answer
    stated = added if "format" in own.model_fields_set else added & own.formats.keys()
    formats = {task: own.format_of(task) for task in stated}
    answer = prompt.answer.model_copy(update={"formats": formats | prompt.answer.formats})
    return prompt.model_copy(update={"texts": inversion.texts | prompt.texts, "answer": answer})


def check_experiment_name(name: str, where: object, hint: str) -> None:
    """Raises TvgError for a name that cannot be one: it goes into paths, wildcards and MLflow."""
    if not re.fullmatch(WORD, name) or name in RESERVED:
        raise TvgError(
            where, "not the name of an experiment", got=repr(name),
            expected="letters a-z, digits and _, and no folder of a results store", hint=hint,
        )  # fmt: skip


def experiment_names(folder: Path) -> list[str]:
    """The experiments of config/experiments, by file name. Raises TvgError for a bad name, and for two alike."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    found: dict[str, Path] = {}
    for path in paths:
        check_experiment_name(path.stem, path, "rename the file")
        if path.stem in found or path.suffix == ".yml":
            raise TvgError(
                path, "two experiments of one name" if path.stem in found else "not a .yaml file", got=path.name,
                expected=f"one {path.stem}.yaml", hint="rename one of the two" if path.stem in found else "rename it",
            )  # fmt: skip
        found[path.stem] = path
    return list(found)


def read_dataset(folder: Path, name: str, split: str | None = None) -> DatasetIdentity:
    """A data set's YAML as its identity; its own module checks the settings.

    The files of a `jsonl` data set are in it by their sha256, so that an edited file is another data set. With `split`,
    the others are left out where a person brings the videos: a test then asks for no video of the training, and an edit
    of the test file is no edit of what was trained.
    """
    path = folder / f"{name}.yaml"
    if not re.fullmatch(WORD, name):
        raise TvgError(
            path, "not the name of a data set", got=name, expected="letters a-z, digits and _", hint="rename it"
        )
    if not path.exists():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise TvgError(path, "no such data set", got=name, expected=", ".join(known), hint=did_you_mean(name, known))
    content = read_yaml(path)
    head = {key: content.pop(key) for key in ("kind", "version") if key in content}
    splits = content.get("splits")
    if isinstance(splits, dict) and (head.get("kind") == "jsonl" or "videos_from" in content):
        alone = {split} if split in splits else set(splits)
        content["splits"] = {key: value for key, value in splits.items() if key in alone}
    if isinstance(splits, dict) and head.get("kind") == "jsonl":
        content["splits"] = {key: _with_sha256(value) for key, value in content["splits"].items()}
    return check(DatasetIdentity, {"name": name, **head, "settings": content}, path)


def _with_sha256(split: Any) -> Any:
    """A split `FILE` or `{file: FILE, ...}` with the file's sha256, unless it pins one; no file stops no planning."""
    split = {"file": split} if isinstance(split, str) else split
    if not isinstance(split, dict) or not isinstance(split.get("file"), str):
        return split
    try:
        with Path(split["file"]).expanduser().open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        found = ABSENT
    return {"sha256": found, **split}
