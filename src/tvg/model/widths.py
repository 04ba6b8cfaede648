"""Widths that a GPU multiplies fast: the vision tower's MLP has 3,420 columns, no multiple of 8.

Products of such a width fall back to kernels of an older generation (seen in a profile on an H200). Widening took a
tenth off the tower's forward pass (vision_s, the first two runs in benchmarks/results/step-h200.json). Widened by zeros
they give the same numbers, and stay zeros in training: a column that is zero in the first two matrices makes no output,
so that it gets no gradient in the third, and the other way round.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

STEP = 64


def widen(core: nn.Module) -> None:
    """Fill the vision tower's MLPs up to a multiple of STEP, in place."""
    width = core.config.vision_config.intermediate_size
    _resize(core, -(-width // STEP) * STEP, lambda weight, more: pad(weight, (0, 0) * (weight.ndim - 1) + (0, more)))


def narrow(core: nn.Module) -> None:
    """Give them the width of the model's config again, in place, as files hold them."""
    _resize(core, core.config.vision_config.intermediate_size, lambda weight, more: weight[:more].clone())


@torch.no_grad()
def _resize(core: nn.Module, width: int, resized: Callable[[Tensor, int], Tensor]) -> None:
    """resized: rows of a matrix or bias, and by how many they grow -> its new rows."""
    for block in core.model.visual.blocks:
        first, last = (block.mlp.gate_proj, block.mlp.up_proj), block.mlp.down_proj
        if more := width - last.in_features:
            for layer in first:
                layer.weight.data, layer.bias.data = resized(layer.weight, more), resized(layer.bias, more)
                layer.out_features = width
            last.weight.data = resized(last.weight.t(), more).t().contiguous()
            last.in_features = width
