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
    """One training step's parts for one prompt, measured once: seconds of the stock path (`policy: plain`)."""

    parameters = 3.75e9
    prompt_tokens, visual_tokens = 3720, 3600
    rollouts, completion_tokens = 8, 256
    generation = 9.5  # 37 ms a token of all rollouts
    scoring = 3.5  # log-probabilities without gradients, one pass
    learning = 27.0  # loss, forward and backward, gradient checkpointing
    source = (
        "measured once on one NVIDIA H200 (torch 2.11, transformers 5.17, bf16, SDPA; the stock path, `policy: plain`; "
        "Qwen2.5-VL-3B's shape with random weights; one prompt of 3,720 tokens, 3,600 of them visual, 8 rollouts of "
        "256 tokens; no optimiser step): generation 9.5 s (37 ms a token), log-probabilities 3.5 s, loss forward and "
        "backward 27.0 s"
    )
    least_parameters = 1e9  # below, a step is bound by kernel launches and does not scale with the parameters
