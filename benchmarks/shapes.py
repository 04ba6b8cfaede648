"""The models and prompts that the benchmarks run: true sizes, random weights, random pixels and text.

What a step costs depends on lengths alone, so rollouts have no end token: every path makes exactly as many tokens.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from tvg.model import load, scratch
from tvg.model.pixels import MERGE, PATCH, TEMPORAL
from tvg.model.policy import Context, Policy
from tvg.model.tokenizer import SPECIAL
from tvg.spec import ScratchModel

POLICIES = {"plain": "tvg.model.plain.PlainPolicy", "shared": "tvg.model.shared.SharedPolicy"}


@dataclass(frozen=True)
class Shape:
    """A model and the work of one group. grid: (t, h, w) in patches; text: prompt tokens beside the video's."""

    model: ScratchModel
    grid: tuple[int, int, int]
    text: int
    group: int
    new_tokens: int
    grids: tuple[tuple[int, int, int], ...]  # of an evaluation's videos, about as many tokens as `grid`

    @property
    def visual(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2] // MERGE**2

    @property
    def lengths(self) -> dict[str, int | list[int]]:
        return {
            "grid": list(self.grid), "visual": self.visual, "prompt": self.visual + self.text,
            "group": self.group, "new_tokens": self.new_tokens,
        }  # fmt: skip


SHAPES = {
    # Qwen2.5-VL-3B-Instruct's config.json; the work of reference/performance.md
    "3b": Shape(
        ScratchModel(
            text={"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
                  "num_key_value_heads": 2, "vocab_size": 151936},
            vision={"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16,
                    "fullatt_block_indexes": [7, 15, 23, 31]},
        ),
        grid=(50, 16, 18), text=120, group=8, new_tokens=256,
        grids=((50, 16, 18), (45, 16, 20), (40, 18, 20), (36, 20, 20), (60, 16, 16), (64, 14, 16)),
    ),
    "tiny": Shape(
        ScratchModel(
            text={"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2},
            vision={"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2},
        ),
        grid=(4, 8, 12), text=20, group=4, new_tokens=6, grids=((4, 8, 12), (3, 8, 16), (6, 8, 8)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """Stands in for a tokenizer that knows every row of the vocabulary as text, and no end token."""

    size: int
    eos_token_id: None = None
    pad_token_id: int = 0

    def __len__(self) -> int:
        return self.size

    def convert_tokens_to_ids(self, _token: str) -> None:
        return None


def build(shape: Shape, device: str) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights, bfloat16 on CUDA, drawn on the device: on a CPU, 3.75 billion of them take minutes."""
    with torch.device(device):
        model, _ = scratch.build(shape.model, load.dtype_for("auto", device))
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # of the float32 weights
    torch.backends.cuda.enable_cudnn_sdp(False)  # as tvg.model.load
    model.generation_config.eos_token_id = None
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.eval()


def policy_class(name: str) -> type[Policy]:
    """An implementation of the policy interface."""
    module, _, kind = POLICIES[name].rpartition(".")
    return getattr(importlib.import_module(module), kind)


def policy(name: str, model: Qwen2_5_VLForConditionalGeneration, compiled: bool = False) -> Policy:
    """An implementation over the model."""
    options = {"compiled": True} if compiled else {}
    return policy_class(name)(model, Vocabulary(model.config.text_config.vocab_size), **options)


def prompt(
    model: Qwen2_5_VLForConditionalGeneration, shape: Shape, seed: int = 0, grid: Sequence[int] | None = None
) -> Context:
    """Half of the text, the video between its marks, the other half."""
    grid, config = tuple(grid or shape.grid), model.config
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(len(SPECIAL), config.text_config.vocab_size, (shape.text - 2,), generator=generator)
    tokens = grid[0] * grid[1] * grid[2] // MERGE**2
    video = [config.vision_start_token_id, *[config.video_token_id] * tokens, config.vision_end_token_id]
    before, after = text.split([len(text) // 2, len(text) - len(text) // 2])
    pixels = torch.randn(tokens * MERGE**2, 3 * TEMPORAL * PATCH**2, generator=generator)
    return Context(torch.cat([before, torch.tensor(video), after]), pixels, grid, 1.0)


def forward_flops(model: Qwen2_5_VLForConditionalGeneration, shape: Shape) -> float:
    """Of one forward pass of the group with its prompt shared: 2 x weights x tokens of every dense product.

    Text layers: weights x (prompt + group x new tokens). LM head: vocabulary x hidden size x (group x new tokens).
    Vision: patch embedding and blocks x patches, merger x visual tokens. Attention scores are left out: 12 % more.
    """

    def weights(module: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)

    completions, visual, tower = shape.group * shape.new_tokens, shape.visual, model.model.visual
    products = weights(model.model.language_model.layers) * (visual + shape.text + completions)
    products += model.lm_head.weight.numel() * completions
    products += (weights(tower.patch_embed) + weights(tower.blocks)) * visual * MERGE**2
    return 2.0 * (products + weights(tower.merger) * visual)


def decoded_bytes(model: Qwen2_5_VLForConditionalGeneration) -> int:
    """Bytes of weights that one decoding step reads: the text layers and the LM head."""
    read = [*model.model.language_model.layers.parameters(), model.lm_head.weight]
    return sum(weight.numel() * weight.element_size() for weight in read)
