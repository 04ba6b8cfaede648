"""What a training, an evaluation or a prepared file *is*: closed, frozen, hashed.

The settings classes are what experiment files may write; the `*Spec` classes add what resolving fills in, down to
the weights and the data that they start from. A spec's JSON leaves out every value equal to its default, so that a
new field with a default changes no hash; a default is therefore never changed in place. Nothing here imports torch.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tvg.sample import Task


class Closed(BaseModel):
    """Unknown keys are errors, and nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------- settings: what a person writes


class FramesSettings(Closed):
    """How a video becomes frames: systems.md 1.1, the same in TimeZero, Time-R1, VideoChat-R1 and Invert4TVG."""

    fps: PositiveFloat = 2.0
    min_frames: PositiveInt = 4
    max_frames: PositiveInt = 768
    total_pixels: PositiveInt = 3584 * 28 * 28
    min_pixels: PositiveInt = 16 * 28 * 28
    max_pixels: PositiveInt = 768 * 28 * 28


class Lora(Closed):
    """Low-rank adapters on the language model's projections."""

    r: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: NonNegativeFloat = 0.0


class AnswerContract(Closed):
    """How answers are checked and read: names in tvg.parse."""

    format: str = "fmt_ta"
    reward: str = "ans_last"
    legacy: str | None = None


class Prompt(Closed):
    """The question for each task, {query} or {masked} filled in, and the answer's contract."""

    system: str | None = None
    texts: dict[Task, str]
    answer: AnswerContract = AnswerContract()


class Optimiser(Closed):
    """AdamW and its schedule, shared by every kind of training."""

    learning_rate: PositiveFloat = 1e-6
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 0
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    lora: Lora | None = None
    freeze_vision: bool = True
    seed: int | None = None
    epochs: PositiveFloat = 1.0
    steps: PositiveInt | None = None  # wins over epochs


def _mixture(tasks: dict[str, float]) -> dict[str, float]:
    """A task at zero is no task: 'only grounding' and 'p = 1' are one training."""
    if any(share < 0 for share in tasks.values()) or abs(sum(tasks.values()) - 1) > 1e-6:
        raise ValueError(f"task shares must be >= 0 and sum to 1, they sum to {sum(tasks.values()):.6f}")
    return {task: share for task, share in sorted(tasks.items()) if share > 0}


class _Mixture(Closed):
    tasks: dict[Task, float] = {"ground": 1.0}
    draw: Literal["prompt", "step"] = "prompt"

    @model_validator(mode="before")
    @classmethod
    def drop_zero_tasks(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("tasks"), dict):
            values = {**values, "tasks": _mixture(values["tasks"])}
        return values


class SftSettings(Optimiser, _Mixture):
    """Supervised fine-tuning on the response tokens."""

    kind: Literal["sft"] = "sft"
    batch: PositiveInt = 64


class GrpoSettings(Optimiser, _Mixture):
    """Group-relative policy optimisation. Defaults are the released Time-R1 family's (systems.md 1.3, 2.3, 8)."""

    kind: Literal["grpo"] = "grpo"
    prompts_per_step: PositiveInt = 8
    num_generations: Annotated[int, Field(ge=2)] = 8
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_completion_tokens: PositiveInt = 512
    beta: NonNegativeFloat = 0.04
    epsilon: PositiveFloat = 0.2
    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "bnpo"
    scale_rewards: Literal["group", "batch", "none"] = "group"


class RewardSettings(Closed):
    """One reward of the weighted sum; which options it reads is said in tvg.rewards."""

    weight: float
    clamp: bool | None = None  # timed_iou
    match: Literal["binary", "cosine"] | None = None  # verbs
    describe: Literal["all", "any"] | None = None  # verbs


class Runtime(Closed):
    """How a job runs, which changes no result: never in a spec, recorded in run.json."""

    policy: Literal["plain"] = "plain"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on CUDA, float32 elsewhere
    rollouts_per_pass: PositiveInt = 8  # rows of one forward-backward pass, a multiple of num_generations
    generate_batch: PositiveInt = 64  # rollouts that are generated side by side in training
    evaluate_batch: PositiveInt = 8  # prompts of one generation call
    gradient_checkpointing: bool = True
    save_every: PositiveInt = 50  # optimiser steps between checkpoints: the most that a killed job loses


class EvaluateSettings(Closed):
    """Greedy decoding and what is scored."""

    max_completion_tokens: PositiveInt = 1024
    tasks: tuple[Task, ...] = ("ground", "complete_verb", "recognise_action", "describe")
    protocol: Literal["strict"] = "strict"


# ---------------------------------------------------------------- specs: resolved and addressed by content


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
    """The frame cache of one data set."""

    dataset: DatasetIdentity
    frames: FramesSettings
    version: int


class DataSpec(Closed):
    """What a training or an evaluation reads: samples, the first `limit` of them, and the frames of their videos."""

    samples: SamplesSpec
    frames: FramesSpec
    limit: PositiveInt | None = None


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


class SftSpec(SftSettings):
    """A supervised training, resolved."""

    version: int
    init: "Model"
    data: DataSpec
    prompt: Prompt


class GrpoSpec(GrpoSettings):
    """A GRPO training, resolved. `versions`: of every reward, parser and sampler in use."""

    version: int
    init: "Model"
    data: DataSpec
    prompt: Prompt
    rewards: dict[str, RewardSettings]
    versions: dict[str, int]


StageSpec = Annotated[SftSpec | GrpoSpec, Field(discriminator="kind")]
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


for _spec in (TrainedModel, SftSpec, GrpoSpec, EvaluationSpec):
    _spec.model_rebuild()


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
