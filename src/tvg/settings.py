"""What a person may write about a stage, a prompt or a model: closed, frozen classes, their defaults explained.

A spec (tvg.spec) is one of these with what resolving fills in. Nothing here imports torch.
"""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tvg.sample import Task


class Closed(BaseModel):
    """Unknown keys are errors, and nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    formats: dict[Task, str] = {}
    """the format checks of the tasks that have one of their own"""
    reward: str = "ans_last"
    """the parser that the rewards read"""
    legacy: str | None = None
    """the authors' own evaluation parser, scored beside ours"""
    anchors: PositiveInt = 2
    """how many anchors a taught answer holds, where the format wants anchors"""

    def format_of(self, task: Task) -> str:
        """The format check of a task's answers."""
        return self.formats.get(task, self.format)


class Prompt(Closed):
    """A file of prompts/: the question for each task, and the contract of its answers."""

    system: str | None = None
    """the system message; without one, the chat template's own"""
    texts: dict[Task, str]
    """the question of each task; {query} is filled in or, for complete_verb, {masked}, where every verb is a gap, or
    {removed}, where the first verb is left out"""
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
    tasks_end: dict[Task, float] | None = None
    """the shares at the last step, moved to linearly from `tasks` at the first; without it, `tasks` throughout"""
    draw: Literal["prompt", "step", "static"] = "prompt"
    """whether a task is drawn for each prompt, or once for all prompts of a step; static: in every epoch each sample is
    grounded, and those of the same few videos come once more under the other tasks, so that the shares hold"""
    order: Literal["none", "easy_to_hard", "hard_to_easy"] = "none"
    """whether each epoch is shuffled, or goes by the difficulty that a filter stage has measured"""

    @field_validator("tasks", "tasks_end")
    @classmethod
    def drop_zero_tasks(cls, tasks: dict[str, float] | None) -> dict[str, float] | None:
        return None if tasks is None else _mixture(tasks)

    @model_validator(mode="after")
    def static_shares(self) -> "_Mixture":
        if self.draw == "static" and (self.tasks_end is not None or self.tasks.get("ground", 0.0) < 0.5):
            raise ValueError(
                "`draw: static` grounds every sample and repeats it at most once: at least half of `tasks` must be "
                "`ground`, without `tasks_end`"
            )
        return self

    @property
    def every_task(self) -> list[Task]:
        """The tasks that are asked at some step, in alphabetical order."""
        return sorted({*self.tasks, *(self.tasks_end or {})})


class SftSettings(Optimiser, _Mixture):
    """Supervised fine-tuning on the response tokens."""

    kind: Literal["sft"] = "sft"
    """the kind of stage"""
    batch: PositiveInt = 64
    """samples of an optimiser step"""
    constructed: Annotated[float, Field(ge=0, le=1)] = 0.0
    """the share of samples whose target begins with the prompt's `prefix`, filled in with dense captions"""


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
    delta: float | None = None
    """upper bound of the ratio where the advantage is negative (dual clip), above 1 + epsilon; without it, none"""
    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "bnpo"
    """how token losses are averaged, in trl's names"""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """what an advantage is divided by: the standard deviation of its group, of the batch, or nothing"""

    @model_validator(mode="after")
    def delta_beyond_epsilon(self) -> "GrpoSettings":
        if self.delta is not None and self.delta <= 1 + self.epsilon:
            raise ValueError(f"`delta` must be above 1 + epsilon = {1 + self.epsilon:g}, it is {self.delta:g}")
        return self


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
    constructed_end: Annotated[float, Field(ge=0, le=1)] | None = None
    """that share at the last step, moved to linearly from `constructed` at the first; without it, `constructed`"""
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
    min_count: PositiveInt | None = None
    """where the thresholds keep fewer, draw others until there are so many: for a model too small to pass them"""
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
    min_count: PositiveInt | None = None
    """where the thresholds keep fewer, fill up to so many with the best others: for a model too small to pass them"""


class RewardSettings(Closed):
    """One reward of the weighted sum; which options it reads is said in tvg.rewards."""

    weight: float
    """its factor in the sum"""
    clamp: bool | None = None
    """timed_iou: whether each factor stays in [0, 1] (default) or may fall below, as released"""
    clamp_truth: bool | None = None
    """timed_iou: whether the truth is cut at the clip's ends first, as TaRO does (default: false)"""
    match: Literal["binary", "cosine", "superset", "synonym"] | None = None
    """verbs: equal lemmas (default); the cosine of their vectors; at least the query's lemmas, whatever the task, as
    released; or equal lemmas and their synonyms"""
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

    policy: Literal["shared", "plain"] = "shared"
    """the model's side: shared computes what a group has in common once, plain runs the library's modules alone"""
    compile: bool = False
    """let torch.compile fuse the layers' small operations, on CUDA: faster steps, a minute at a job's start"""
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
    shard_optimizer: bool = False
    """several GPUs: each keeps the optimizer's state of its share of the weights; less memory, little more time"""
    save_every: PositiveInt = 50
    """optimiser steps between checkpoints: the most that a killed job loses"""
    fixed_set_every: NonNegativeInt = 50
    """optimiser steps between answers to the fixed set, a few samples of the training set; 0: never asked"""
    fixed_set_count: PositiveInt = 32
    """samples in the fixed set, each asked as every task of the stage"""


class EvaluateSettings(Closed):
    """Greedy decoding and what is scored."""

    max_completion_tokens: PositiveInt = 1024
    """an answer is cut off there"""
    tasks: tuple[Task, ...] = ("ground", "complete_verb", "recognise_action", "describe")
    """what every query is asked as"""
    protocol: Literal["strict"] = "strict"
    """how answers are scored"""
