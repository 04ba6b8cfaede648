"""A tiny policy and random videos, for tests of the model side."""

import numpy as np
import torch

from tvg.model import scratch
from tvg.model.plain import PlainPolicy
from tvg.model.policy import Context
from tvg.spec import ScratchModel
from tvg.video.decode import Frames

TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
SCRATCH = ScratchModel(
    text={**TEXT, "num_key_value_heads": 2},
    vision={"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2},
)


def tiny() -> PlainPolicy:
    """A policy whose random weights are large enough for greedy answers that differ from prompt to prompt."""
    model, tokenizer = scratch.build(SCRATCH)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(8)
    return PlainPolicy(model, tokenizer)


def frames(count: int = 8, height: int = 56, width: int = 56, fps: float = 2.0, seed: int = 0) -> Frames:
    """Noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(count) / fps, fps, count / fps, "noise")


def asked(policy: PlainPolicy, text: str, **of_frames) -> Context:
    """One question about a random video."""
    return policy.encode_group([{"role": "user", "content": text}], frames(**of_frames))
