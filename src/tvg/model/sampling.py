"""Choosing the next token, one uniform number a token: a rollout depends on its seed, not on its neighbours."""

from collections.abc import Sequence

import torch
from torch import Tensor


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
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(-1) - ranked >= top_p
        probabilities = probabilities.scatter(-1, order, ranked.masked_fill(beyond, 0.0))
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).squeeze(-1)
