"""What a training, an evaluation or a prepared file *is*: closed, frozen, hashed.

The settings classes are what experiment files may write; the `*Spec` classes add what resolving fills in, down to
the weights and the data that they start from. A spec's JSON leaves out every value equal to its default, so that a
new field with a default changes no hash; a default is therefore never changed in place. Nothing here imports torch.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from tvg.sample import Task


class Closed(BaseModel):
    """Unknown keys are errors, and nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# ---------------------------------------------------------------- settings: what a person writes


class FramesSettings(Closed):
    """How a video becomes frames: systems.md 1.1, the same in TimeZero, Time-R1, VideoChat-R1 and Invert4TVG."""

    fps: PositiveFloat = 2.0
    """frames a second"""
    min_frames: PositiveInt = 4
    """at least so many frames"""
    max_frames: PositiveInt = 768
    """at most so many frames"""
    total_pixels: PositiveInt = 3584 * 28 * 28
    """budget of a whole video, counted at two frames a visual token"""
    min_pixels: PositiveInt = 16 * 28 * 28
    """pixels of a frame, at least"""
    max_pixels: PositiveInt = 768 * 28 * 28
    """pixels of a frame, at most"""


class Lora(Closed):
    """Low-rank adapters on the language model's projections."""

    r: PositiveInt = 16
    """rank"""
    alpha: PositiveInt = 32
    """scaling, divided by the rank"""
    dropout: NonNegativeFloat = 0.0
    """dropout before the adapters"""


class AnswerContract(Closed):
    """How answers are checked and read: names in tvg.parse."""

    format: str = "fmt_ta"
    """the format check: what the reward `format` and the format rate count"""
    reward: str = "ans_last"
    """the parser that the rewards read"""
    legacy: str | None = None
    """the authors' own evaluation parser, scored beside ours"""


class Prompt(Closed):
    """A file of prompts/: the question for each task, and the contract of its answers."""

    system: str | None = None
    """the system message; without one, the chat template's own"""
    texts: dict[Task, str]
    """the question of each task; {query} or, for complete_verb, {masked} is filled in"""
    answer: AnswerContract = AnswerContract()
    """how answers are checked and read"""
    prefix: str | None = None
    """how a constructed completion begins (kind awbc); {query} and {captions} are filled in"""


class Optimiser(Closed):
    """AdamW and its schedule, shared by every kind of training."""

    learning_rate: PositiveFloat = 1e-6
    """AdamW's, at its highest"""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """how the learning rate goes on after the warm-up"""
    warmup_steps: int = 0
    """steps until the learning rate is at its highest"""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's"""
    max_grad_norm: PositiveFloat = 1.0
    """gradients are scaled down to this norm"""
    lora: Lora | None = None
    """adapters instead of full training"""
    freeze_vision: bool = True
    """whether the vision tower stays as it is; its merger is trained"""
    seed: int | None = None
    """one seed for every seed of an arm; without it, the run's"""
    epochs: PositiveFloat = 1.0
    """passes over the data"""
    steps: PositiveInt | None = None
    """optimiser steps; wins over epochs"""


def _mixture(tasks: dict[str, float]) -> dict[str, float]:
    """A task at zero is no task: 'only grounding' and 'p = 1' are one training."""
    if any(share < 0 for share in tasks.values()) or abs(sum(tasks.values()) - 1) > 1e-6:
        raise ValueError(f"task shares must be >= 0 and sum to 1, they sum to {sum(tasks.values()):.6f}")
    return {task: share for task, share in sorted(tasks.items()) if share > 0}


class _Mixture(Closed):
    tasks: dict[Task, float] = {"ground": 1.0}
    """the share of each task; they sum to 1, and a task at 0 is no task"""
    draw: Literal["prompt", "step"] = "prompt"
    """whether a task is drawn for each prompt, or once for all prompts of a step"""

    @field_validator("tasks")
    @classmethod
    def drop_zero_tasks(cls, tasks: dict[str, float]) -> dict[str, float]:
        return _mixture(tasks)


class SftSettings(Optimiser, _Mixture):
    """Supervised fine-tuning on the response tokens."""

    kind: Literal["sft"] = "sft"
    """the kind of stage"""
    batch: PositiveInt = 64
    """samples of an optimiser step"""


class GrpoSettings(Optimiser, _Mixture):
    """Group-relative policy optimisation. Defaults are the released Time-R1 family's (systems.md 1.3, 2.3, 8)."""

    kind: Literal["grpo"] = "grpo"
    """the kind of stage"""
    prompts_per_step: PositiveInt = 8
    """prompts of an optimiser step, each with its group of rollouts"""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """rollouts of a group"""
    temperature: PositiveFloat = 1.0
    """of the rollouts"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """nucleus sampling of the rollouts"""
    max_completion_tokens: PositiveInt = 512
    """a rollout is cut off there"""
    beta: NonNegativeFloat = 0.04
    """weight of the KL divergence from the reference"""
    epsilon: PositiveFloat = 0.2
    """clipping of the probability ratio"""
    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "bnpo"
    """how token losses are averaged, in trl's names"""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """what an advantage is divided by: the standard deviation of its group, of the batch, or nothing"""


class AwbcSettings(Optimiser, _Mixture):
    """Advantage-weighted behaviour cloning of constructed rollouts (TaRO's warm start, systems.md 2.8).

    A rollout begins with a forced prefix made of dense captions, and the model goes on; the loss is
    -max(advantage, 0) x log-probability over all response tokens, the prefix included.
    """

    kind: Literal["awbc"] = "awbc"
    """the kind of stage"""
    prompts_per_step: PositiveInt = 16
    """prompts of an optimiser step, each with its group of rollouts"""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """rollouts of a group"""
    temperature: PositiveFloat = 1.0
    """of the rollouts"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """nucleus sampling of the rollouts"""
    max_completion_tokens: PositiveInt = 1024
    """a rollout is cut off there, its prefix included"""
    constructed: Annotated[float, Field(ge=0, le=1)] = 1.0
    """the share of prompts whose rollouts get a prefix; those without captions never do"""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """what an advantage is divided by: the standard deviation of its group, of the batch, or nothing"""


class Gaussian(Closed):
    """Weights of a draw without replacement: exp(-(difficulty - centre)^2 / (2 width^2)) (Time-R1, systems.md 2.3)."""

    centre: float
    """the mean overlap that is drawn most"""
    width: PositiveFloat
    """the standard deviation around it"""


class FilterSettings(Closed):
    """Which samples are worth training on: a model answers each, and the overlap of its answers decides.

    The mean tIoU of a sample's answers is its difficulty: the higher, the easier. Unreadable answers count as 0.
    """

    kind: Literal["filter"] = "filter"
    """the kind of stage"""
    num_generations: PositiveInt = 8
    """answers to each sample"""
    temperature: NonNegativeFloat = 1.0
    """of the answers; 0 is greedy"""
    max_completion_tokens: PositiveInt = 512
    """an answer is cut off there"""
    fallback: Literal["force2"] | None = None
    """the parser that is tried where the prompt's own reads nothing"""
    above: float | None = None
    """the mean must be above this"""
    at_least: float | None = None
    """the mean must be at least this"""
    at_most: float | None = None
    """and at most this"""
    spread_above: NonNegativeFloat | None = None
    """the standard deviation of the answers must be above this"""
    gaussian: Gaussian | None = None
    """how likely each sample is drawn where `count` leaves some out; without it, all alike"""
    count: PositiveInt | None = None
    """keep at most so many"""
    pick: Literal["draw", "evenly"] = "draw"
    """which of too many: drawn, or evenly along the difficulty"""
    seed: int | None = None
    """one seed for every seed of an arm; without it, the run's"""


class CollectSettings(Closed):
    """Which completions become targets of an SFT: the good ones of a stage's rollouts, or of a data set."""

    kind: Literal["collect"] = "collect"
    """the kind of stage"""
    min_reward: float | None = None
    """the rollout's reward must be above this"""
    min_anchors: PositiveInt | None = None
    """at least so many readable anchors in the reasoning"""
    min_soft_iou: tuple[float, ...] = ()
    """the signed overlap of the first, the second, ... anchor must be above these"""
    min_tiou: float | None = None
    """the answer's overlap must be at least this"""
    count: PositiveInt | None = None
    """keep at most so many, those of the highest reward"""


class RewardSettings(Closed):
    """One reward of the weighted sum; which options it reads is said in tvg.rewards."""

    weight: float
    """its factor in the sum"""
    clamp: bool | None = None
    """timed_iou: whether each factor stays in [0, 1] (default) or may fall below, as released"""
    clamp_truth: bool | None = None
    """timed_iou: whether the truth is cut at the clip's ends first, as TaRO does (default: false)"""
    match: Literal["binary", "cosine"] | None = None
    """verbs: equal lemmas (default), or the cosine of their vectors"""
    describe: Literal["all", "any"] | None = None
    """verbs: whether a description must name all of the query's verbs (default) or any"""
    target: PositiveInt | None = None
    """anchors: how many anchors TAR2 wants (default: 2)"""
    beta: NonNegativeFloat | None = None
    """anchors: the factor of TAR2 (default: 5); 0 leaves it out"""
    gamma: NonNegativeFloat | None = None
    """anchors: the factor of TAR3 (default: 1); 0 leaves it out"""
    deviation: Literal["abs", "square", "indicator"] | None = None
    """anchors: what TAR2 makes of a number that is off by d: |d| (default), its square, or 1"""
    overlap: Literal["soft", "hard"] | None = None
    """anchors: soft IoU, signed (default), or plain tIoU"""
    at_most: PositiveInt | None = None
    """anchors: with more anchors than this the reward is 0 (default: 4, which the format `fmt_tar` refuses as well)"""
    gate: Annotated[float, Field(ge=0, le=1)] | None = None
    """temporal: the tIoU that the answer must reach (default: 0.7)"""
    strict_gate: bool | None = None
    """temporal: whether it must be above the gate, as in the article, or may be equal, as released (default: false)"""
    margin: NonNegativeFloat | None = None
    """temporal: by how much the drop must be above its group's mean (default: 0)"""
    within: PositiveFloat | None = None
    """temporal: seconds around the true boundaries whose frames are shuffled (default: 3)"""
    tokens: Literal["all", "think"] | None = None
    """temporal: over which tokens the drop of the mean log-probability is taken: all of the response (default) or the
    reasoning, as in the article"""


class Runtime(Closed):
    """How a job runs, which changes no result: never in a spec, recorded in run.json."""

    policy: Literal["plain"] = "plain"
    """the implementation of the model's side"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on CUDA, float32 elsewhere"""
    rollouts_per_pass: PositiveInt = 8
    """rows of one forward-backward pass, a multiple of num_generations"""
    generate_batch: PositiveInt = 64
    """rollouts that are generated side by side in training"""
    evaluate_batch: PositiveInt = 8
    """prompts of one generation call"""
    gradient_checkpointing: bool = True
    """less memory, about a third more time"""
    save_every: PositiveInt = 50
    """optimiser steps between checkpoints: the most that a killed job loses"""


class EvaluateSettings(Closed):
    """Greedy decoding and what is scored."""

    max_completion_tokens: PositiveInt = 1024
    """an answer is cut off there"""
    tasks: tuple[Task, ...] = ("ground", "complete_verb", "recognise_action", "describe")
    """what every query is asked as"""
    protocol: Literal["strict"] = "strict"
    """how answers are scored"""


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


class AwbcSpec(AwbcSettings):
    """An advantage-weighted cloning, resolved. `versions`: of every reward, parser and sampler in use."""

    version: int
    init: "Model"
    data: DataSpec
    prompt: Prompt
    rewards: dict[str, RewardSettings]
    versions: dict[str, int]


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


for _spec in (DataSpec, TrainedModel, SftSpec, GrpoSpec, AwbcSpec, FilterSpec, CollectSpec, EvaluationSpec):
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
