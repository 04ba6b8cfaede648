"""Every number that an estimate rests on and that nobody measured in this store, each with where it comes from."""

from typing import NamedTuple


class Architecture(NamedTuple):
    """Sizes of a Qwen2.5-VL, keys as in its config.json."""

    text: dict[str, int]
    vision: dict[str, int]
    tied: bool  # one matrix embeds tokens and gives their logits


class Published(NamedTuple):
    """A number that somebody else states."""

    value: float
    source: str


_VISION = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32}
# config.json of Qwen/Qwen2.5-VL-3B-Instruct and Qwen/Qwen2.5-VL-7B-Instruct
QWEN = {
    "3B": Architecture(
        {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 2, "vocab_size": 151936}, _VISION, True,
    ),
    "7B": Architecture(
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064}, _VISION, False,
    ),
}  # fmt: skip
OWN_VOCABULARY = 1472  # rows of the embedding of a model from scratch that names none: tvg.model.tokenizer, rounded up

# Bytes of downloads, by address
ARCHIVES = {
    "https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades/Charades_v1_480.zip": Published(
        13e9, "prior.allenai.org/projects/charades: 'Data (scaled to 480p, 13 GB)'"
    ),
}
# Videos of a data set, before it is here
VIDEOS = {"charades_sta": Published(6672, "docs/systems.md, section 3: 5,338 of train and 1,334 of test")}
# Mean seconds of a video, before its annotations are here
SECONDS = {
    "charades_sta": Published(30.6, "docs/systems.md, section 3: 30.9 s in train, 29.5 s in test"),
    "activitynet": Published(117.6, "mean of the durations in the annotations, 14,926 videos"),
    "qvhighlights": Published(149.6, "mean of the durations in the annotations, 10,148 videos"),
    "tacos": Published(286.6, "mean of the durations in the annotations, 127 videos"),
}


class Reference:
    """The work that was measured once: a training step's parts for one prompt."""

    parameters = 3.75e9
    prompt_tokens, visual_tokens = 3720, 3600
    rollouts, completion_tokens = 8, 256
    least_parameters = 1e9  # below, a step is bound by kernel launches and does not scale with the parameters


class Timed(NamedTuple):
    """Seconds of that work on one implementation of the policy. packed: a prompt is computed once for its rollouts."""

    generation: float
    first: float  # of it, until the first token: the prompt
    scoring: float  # log-probabilities without gradients, one pass
    learning: float  # loss, forward and backward, gradient checkpointing
    packed: bool
    source: str

    def tokens(self, prompt: float, completion: float, rollouts: int) -> float:
        """Of one pass over a prompt's rollouts."""
        return (prompt if self.packed else rollouts * prompt) + rollouts * completion


_WORK = (
    "one NVIDIA H200 (torch 2.11, transformers 5.17, bf16; {how}; Qwen2.5-VL-3B's shape with random weights; one "
    "prompt of 3,720 tokens, 3,600 of them visual, 8 rollouts of 256 tokens; no optimiser step): generation {0} s, "
    "log-probabilities {1} s, loss forward and backward {2} s"
)
TIMED = {
    # docs of the stock path: benchmarks/step.py
    "plain": Timed(
        9.5, 0.0, 3.5, 27.0, False,
        "measured once on " + _WORK.format(9.5, 3.5, 27.0, how="the stock path, SDPA, `policy: plain`"),
    ),
    # benchmarks/results/step-h200.json, "ours"
    "shared": Timed(
        0.882, 0.111, 0.146, 0.669, True,
        "measured once on " + _WORK.format(0.88, 0.15, 0.67, how="`policy: shared`, `compile: true`"),
    ),
}  # fmt: skip
