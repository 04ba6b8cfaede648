"""What a training, an evaluation or a prepared file *is*: closed, frozen, hashed.

A `*Spec` is the settings that a person writes (tvg.settings) and what resolving adds, down to the weights and the
data that it starts from. A spec's JSON leaves out every value equal to its default, so that a new field with a
default changes no hash; a default is therefore never changed in place. Nothing here imports torch.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

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
    SftSettings,
)


class DatasetIdentity(Closed):
    """A data set as it was when the spec was made: its YAML without comments, under its name."""

    name: str
    kind: str
    version: int
    settings: dict[str, Any] = {}


class SamplesSpec(Closed):
    """The annotations of one split; with `verbs`, the queries' verbs by that back-end, and its version."""

    dataset: DatasetIdentity
    split: str
    verbs: str | None = None
    verbs_version: int | None = None


class FramesSpec(Closed):
    """The frame cache of one data set; with `limit`, of the videos of the first samples of one split."""

    dataset: DatasetIdentity
    frames: FramesSettings
    version: int
    split: str | None = None
    limit: PositiveInt | None = None

    @property
    def samples(self) -> SamplesSpec | None:
        """Whose videos alone are decoded; None: all of the data set's."""
        return SamplesSpec(dataset=self.dataset, split=self.split) if self.split else None


class DataSpec(Closed):
    """What a stage or an evaluation reads: samples, the first `limit` of them, and the frames of their videos.

    made_by: the data stage that has chosen among the samples; its file is read in their place.
    """

    samples: SamplesSpec
    frames: FramesSpec
    limit: PositiveInt | None = None
    made_by: "DataStageSpec | None" = None


class HubModel(Closed):
    """Weights on the model hub, pinned."""

    source: Literal["hub"] = "hub"
    hub: str
    revision: str


class PathModel(Closed):
    """Weights in a folder of the user's: its path is its identity, so a changed folder needs a new name."""

    source: Literal["path"] = "path"
    path: str


class ScratchModel(Closed):
    """Random weights of a small Qwen2.5-VL: keys as in the library's text and vision configs."""

    source: Literal["scratch"] = "scratch"
    text: dict[str, int]
    vision: dict[str, Any]
    seed: int = 0


class TrainedModel(Closed):
    """The weights that a stage makes."""

    source: Literal["stage"] = "stage"
    stage: "StageSpec"


class Floor(Closed):
    """No model and no video: the whole clip, or the constant relative window that fits the training split best."""

    source: Literal["floor"] = "floor"
    floor: Literal["whole_video", "constant_window"]
    fit: SamplesSpec | None = None


class Training(Closed):
    """What resolving adds to the settings of any stage that makes a model."""

    version: int
    init: "Model"
    data: DataSpec
    prompt: Prompt


class Rewarded(Training):
    """Of one that learns from rewards. versions: of every reward, parser and sampler in use."""

    rewards: dict[str, RewardSettings]
    versions: dict[str, int]


class SftSpec(SftSettings, Training):
    """A supervised training, resolved. more_prompts: each with the tasks that its own file asks."""

    more_prompts: tuple[Prompt, ...] = ()


class GrpoSpec(GrpoSettings, Rewarded):
    """A GRPO training, resolved."""


class AwbcSpec(AwbcSettings, Rewarded):
    """An advantage-weighted cloning, resolved."""


class FilterSpec(FilterSettings):
    """A choice of samples by difficulty, resolved."""

    version: int
    model: "Model"
    data: DataSpec
    prompt: Prompt
    versions: dict[str, int]


class CollectSpec(CollectSettings):
    """A choice of completions, resolved. source: the training whose rollouts they are; None: the data's own."""

    version: int
    source: "StageSpec | None" = None
    data: DataSpec
    prompt: Prompt
    versions: dict[str, int]


StageSpec = Annotated[SftSpec | GrpoSpec | AwbcSpec, Field(discriminator="kind")]
DataStageSpec = Annotated[FilterSpec | CollectSpec, Field(discriminator="kind")]
Model = Annotated[HubModel | PathModel | ScratchModel | TrainedModel | Floor, Field(discriminator="source")]


class EvaluationSpec(Closed):
    """One model on one benchmark under one prompt, decoding and protocol."""

    kind: Literal["evaluation"] = "evaluation"
    version: int
    benchmark: str
    model: Model
    data: DataSpec
    prompt: Prompt
    settings: EvaluateSettings
    versions: dict[str, int]


for _spec in (
    DataSpec,
    TrainedModel,
    Training,
    Rewarded,
    SftSpec,
    GrpoSpec,
    AwbcSpec,
    FilterSpec,
    CollectSpec,
    EvaluationSpec,
):
    _spec.model_rebuild()


def nested(spec: Closed) -> Iterator[Closed]:
    """Every spec inside a spec, the innermost first, and the spec itself: what it stands on, to the end."""
    for name in type(spec).model_fields:
        yield from _inside(getattr(spec, name))
    yield spec


def _inside(value: object) -> Iterator[Closed]:
    if isinstance(value, Closed):
        yield from nested(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)


def canonical(spec: Closed) -> dict[str, Any]:
    """The spec as plain JSON data, defaults left out (the discriminators kept, so that it reads back)."""

    def strip(node: Closed) -> dict[str, Any]:
        out = {}
        for name, field in type(node).model_fields.items():
            value = getattr(node, name)
            if value != field.default or name in ("kind", "source"):
                out[name] = plain(value)
        return out

    def plain(value: Any) -> Any:
        if isinstance(value, Closed):
            return strip(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return strip(spec)


def digest(spec: Closed) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical JSON: the address of whatever the spec describes."""
    text = json.dumps(canonical(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
