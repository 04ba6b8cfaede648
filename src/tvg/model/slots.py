"""What decoding reads and writes, at fixed addresses, so that a recorded step can be replayed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tvg.model.weights import Weights


@dataclass
class Slots:
    """R rows in groups of equal size; C is the room for a completion.

    prompts: (layers, 2, groups, kv heads, P, head dim), keys then values; lengths: (groups,) of the prompts.
    suffixes: (layers, 2, R, kv heads, C, head dim); resume: (R,) the position of a row's first token.
    tokens, logps, draws: (R, C), what was chosen, its log-probability, and the uniform number that chooses it.
    forced: (R, C), a token that a row must take, or -1; forced_lengths: (R,). ended: (R,).
    count: (1,) on the device, how many tokens were chosen; now: the same number on the host, for steps not recorded.
    """

    prompts: Tensor
    lengths: Tensor
    suffixes: Tensor
    resume: Tensor
    tokens: Tensor
    logps: Tensor
    draws: Tensor
    forced: Tensor
    forced_lengths: Tensor
    ended: Tensor
    count: Tensor
    now: int = 0

    @classmethod
    def make(cls, weights: Weights, groups: int, rows: int, prompt: int, suffix: int) -> "Slots":
        """Room for prompts of `prompt` and completions of `suffix` tokens."""
        layers, heads, wide, device = len(weights.layers), weights.kv_heads, weights.head_dim, weights.device

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        return cls(
            prompts=zeros(layers, 2, groups, heads, prompt, wide, dtype=weights.dtype),
            lengths=zeros(groups),
            suffixes=zeros(layers, 2, rows, heads, suffix, wide, dtype=weights.dtype),
            resume=zeros(rows),
            tokens=zeros(rows, suffix),
            logps=zeros(rows, suffix, dtype=torch.float32),
            draws=zeros(rows, suffix, dtype=torch.float64),
            forced=zeros(rows, suffix),
            forced_lengths=zeros(rows),
            ended=zeros(rows, dtype=torch.bool),
            count=zeros(1),
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Groups, rows, room for a prompt, room for a completion."""
        return len(self.lengths), len(self.resume), self.prompts.shape[4], self.suffixes.shape[4]
