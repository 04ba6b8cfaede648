"""What a person writes: config.yaml, experiments, scales, data sets, prompts. Read safely, checked closed.

Errors name file, arm, key, value got and nearest word.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, PositiveInt, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tvg.errors import TvgError
from tvg.spec import (
    Closed,
    DatasetIdentity,
    EvaluateSettings,
    FramesSettings,
    GrpoSettings,
    HubModel,
    PathModel,
    RewardSettings,
    Runtime,
    SftSettings,
)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]  # goes into paths and wildcards
Rewards = dict[Name, RewardSettings]


class Config(Closed):
    """config.yaml: the user's dials only, no science."""

    scale: Name = "mini"
    experiments: tuple[Name, ...]
    seeds: tuple[int, ...] = (0,)
    limit: PositiveInt | None = None
    data_root: str = "data"
    results_root: str = "results"
    tracking_uri: str | None = None


class StageSource(Closed):
    """Where a stage starts, what it reads, and what it asks: names, resolved by tvg.plan."""

    init: str = "base"
    data: str
    prompt: Name | None = None
    rewards: Rewards | None = None


class SftStage(SftSettings, StageSource):
    """`kind: sft` in an experiment file."""


class GrpoStage(GrpoSettings, StageSource):
    """`kind: grpo` in an experiment file."""


Stage = Annotated[SftStage | GrpoStage, Field(discriminator="kind")]


class Experiment(Closed):
    """One paper's system. `scales`: where it exists at all; such a file states its own sizes, no scale resizes it."""

    paper: str
    prompt: Name
    inversion_prompt: Name = "inversion"
    rewards: Rewards = {}
    stages: dict[Name, Stage] = {}
    evaluate: str
    evaluation: EvaluateSettings = EvaluateSettings()
    benchmarks: tuple[Name, ...]
    scales: tuple[Name, ...] | None = None
    arms: dict[Name, dict[str, Any]] = {}


class Role(Closed):
    """A data set's split, as a data role or a benchmark names it."""

    dataset: Name
    split: Name


class StageOf(Closed):
    """The weights of another experiment's stage."""

    experiment: Name
    stage: Name


class Architecture(Closed):
    """Sizes of a model from scratch, keys as in the library's Qwen2.5-VL text and vision configs."""

    text: dict[str, int]
    vision: dict[str, Any]
    seed: int = 0


class Scale(Closed):
    """What "the base model", each data role and each benchmark are at this scale, and which sizes shrink."""

    base: HubModel | PathModel | StageOf
    scratch: Architecture | None = None
    verbs: Literal["spacy_sm", "standin"]
    shards: PositiveInt
    frames: FramesSettings = FramesSettings()
    data: dict[Name, Role]
    benchmarks: dict[Name, Role]
    may_set: tuple[str, ...] = ()
    set: dict[Literal["sft", "grpo", "evaluation"], dict[str, Any]] = {}
    runtime: Runtime = Runtime()


def parse_yaml(text: str, where: object) -> Any:
    """A YAML 1.2 value, safely: no tags, no duplicate keys."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise _unreadable(where, error) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; see `parse_yaml`."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise TvgError(
            path,
            "not a mapping",
            got=type(content).__name__,
            expected="key: value lines",
            hint="see the other files beside it",
        )
    return content


def _unreadable(where: object, error: Exception) -> TvgError:
    return TvgError(where, "cannot read this YAML", got=error, expected="a YAML file", hint="mend the line named above")


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


def read_dataset(folder: Path, name: str) -> DatasetIdentity:
    """A data set's YAML as its identity; its own module checks the settings."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise TvgError(path, "no such data set", got=name, expected=", ".join(known), hint=did_you_mean(name, known))
    content = read_yaml(path)
    head = {key: content.pop(key) for key in ("kind", "version") if key in content}
    return check(DatasetIdentity, {"name": name, **head, "settings": content}, path)


def check(kind: type[Closed], content: dict[str, Any], where: object) -> Any:
    """`content` as a `kind`, or the first thing that is wrong with it, with the nearest known key."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        known = _keys_beside(kind, place)
        unknown = first["type"] == "extra_forbidden"
        raise TvgError(
            f"{where}: {'.'.join(place)}",
            "unknown key" if unknown else first["msg"],
            got=first["input"],
            expected=", ".join(known) if unknown and known else first["msg"],
            hint=did_you_mean(place[-1], known) if unknown else "see config/README.md for what each key takes",
        ) from error


def did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def _keys_beside(kind: type[Closed], place: list[str]) -> list[str]:
    """The keys that may stand where the last part of `place` stands: walk the classes along it."""
    node: Any = kind
    for part in place[:-1]:
        node = _step(node, part)
    return sorted(node.model_fields) if isinstance(node, type) and issubclass(node, Closed) else []


def _step(node: Any, part: str) -> Any:
    """The type behind one key, index or discriminator; None where it cannot be told."""
    while get_origin(node) is Annotated:
        node = get_args(node)[0]
    if isinstance(node, type) and issubclass(node, Closed):
        field = node.model_fields.get(part)
        return field.annotation if field else None
    options = [option for option in get_args(node) if option is not type(None)]
    for option in options:
        if isinstance(option, type) and issubclass(option, Closed):
            kind_field = option.model_fields.get("kind")
            if kind_field is not None and kind_field.default == part:
                return option
    if get_origin(node) is dict:
        return options[1]
    if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], Closed):
        return _step(options[0], part)
    return options[0] if options else None
