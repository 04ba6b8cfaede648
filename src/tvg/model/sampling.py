"""Choosing the next token, one uniform number a token: a rollout depends on its seed, not on its neighbours."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 512
ROUNDING = 1e-15


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """(B, count) numbers in [0, 1), row b from seeds[b] alone."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).double()


def suppress(logits: Tensor, tokens: Tensor) -> Tensor:
    """Logits (..., V) with `tokens` out of reach: finite, so that entropies stay numbers."""
    return logits.index_fill(-1, tokens, torch.finfo(logits.dtype).min)


def choose(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Tokens (B,) for logits (B, V): the largest at temperature 0, else by inverting the cumulative distribution.

    top_p keeps the smallest set of tokens, most probable first, that reaches that probability.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.double() / temperature
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp()
    if top_p < 1:
        ranked, order = weights.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(-1) - ranked >= top_p * ranked.sum(-1, keepdim=True)
        weights = weights.scatter(-1, order, ranked.masked_fill(beyond, 0.0))
    return _invert(weights, uniform)


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first token (B,) at which the running sum of weights (B, V) exceeds `uniform` of the whole.

    In two steps, the block of tokens and the token in it: a running sum over a whole vocabulary is slow on a GPU.
    """
    blocks = pad(weights, (0, -weights.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    ends = blocks.sum(-1).cumsum(-1)
    target = uniform[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp(max=ends.shape[1] - 1)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).cumsum(-1)
    before = pad(ends, (1, 0)).gather(1, block)
    rest = torch.minimum(target - before, inside[:, -1:] * (1 - ROUNDING))  # else no token, or one without weight
    return block.squeeze(1) * BLOCK + torch.searchsorted(inside, rest, right=True).squeeze(1)
