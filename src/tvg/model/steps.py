"""One token through the language model for many rows: the order of operations, and each of them in plain torch."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from tvg.model.slots import Slots
from tvg.model.weights import Weights


class Steps(ABC):
    """A decoder's forward for one new token a row, reading and writing `slots`.

    The sum of the layers is kept in float32, as in scoring. Subclasses give the operations between the matrix products.
    """

    def __init__(self, weights: Weights, slots: Slots):
        self.weights, self.slots = weights, slots
        self.scale = weights.head_dim**-0.5

    def forward(self, hidden: Tensor, position: Tensor) -> Tensor:
        """Embeddings (R, D) float32, changed in place, and positions (R,) -> normed states (R, D) for the head."""
        weights, added = self.weights, None
        angle = position[:, None].float() * weights.frequencies
        cos, sin = angle.cos(), angle.sin()
        for number, layer in enumerate(weights.layers):
            states = self.norm(hidden, added, layer.norm)
            query = self.rotate(linear(states, layer.qkv, layer.qkv_bias), cos, sin, number)
            added = linear(self.attend(query, number), layer.out)
            states = self.norm(hidden, added, layer.mlp_norm)
            added = linear(self.gate(linear(states, layer.gate_up)), layer.down)
        return self.norm(hidden, added, weights.norm)

    @abstractmethod
    def norm(self, hidden: Tensor, added: Tensor | None, weight: Tensor) -> Tensor:
        """Add to the hidden states in place; their RMS norm (R, D) in the weights' type."""

    @abstractmethod
    def rotate(self, qkv: Tensor, cos: Tensor, sin: Tensor, layer: int) -> Tensor:
        """Rotated queries (R, heads, head dim); the rotated keys and the values go into the suffixes."""

    @abstractmethod
    def attend(self, query: Tensor, layer: int) -> Tensor:
        """Attention over the group's prompt and the row's suffix: (R, heads x head dim)."""

    @abstractmethod
    def gate(self, both: Tensor) -> Tensor:
        """(R, 2 x I) -> silu of the first half times the second."""


class TorchSteps(Steps):
    """In plain torch: the oracle of the kernels, and what runs where there are none."""

    def norm(self, hidden: Tensor, added: Tensor | None, weight: Tensor) -> Tensor:
        if added is not None:
            hidden += added
        spread = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.weights.epsilon)
        return (weight * (hidden * spread)).to(self.weights.dtype)

    def rotate(self, qkv: Tensor, cos: Tensor, sin: Tensor, layer: int) -> Tensor:
        of = self.weights
        heads = qkv.view(len(qkv), -1, of.head_dim)
        turned, value = heads[:, : -of.kv_heads], heads[:, -of.kv_heads :]
        first, second = turned.chunk(2, dim=-1)
        cos, sin = cos[:, None], sin[:, None]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(of.dtype)
        keys, values = self.slots.suffixes[layer]
        keys[:, :, self.slots.now - 1], values[:, :, self.slots.now - 1] = turned[:, of.heads :], value
        return turned[:, : of.heads]

    def attend(self, query: Tensor, layer: int) -> Tensor:
        of, slots, rows = self.weights, self.slots, len(query)
        groups, shared = len(slots.lengths), of.heads // of.kv_heads
        query = query.float() * self.scale
        keys, values = slots.prompts[layer].float()
        own_keys, own_values = slots.suffixes[layer, :, :, :, : slots.now].float()

        together = query.view(groups, -1, of.kv_heads, shared, of.head_dim).transpose(1, 2).flatten(2, 3)
        seen = torch.arange(keys.shape[2], device=query.device) < slots.lengths[:, None, None, None]
        on_prompt = (together @ keys.mT).masked_fill(~seen, float("-inf"))
        on_prompt = on_prompt.view(groups, of.kv_heads, -1, shared, keys.shape[2]).transpose(1, 2).flatten(0, 1)
        alone = query.view(rows, of.kv_heads, shared, of.head_dim)
        chances = torch.cat([on_prompt, alone @ own_keys.mT], dim=-1).softmax(-1)

        on_prompt, on_own = chances.split([keys.shape[2], slots.now], dim=-1)
        on_prompt = on_prompt.view(groups, -1, of.kv_heads, shared, keys.shape[2]).transpose(1, 2).flatten(2, 3)
        out = (on_prompt @ values).view(groups, of.kv_heads, -1, shared, of.head_dim).transpose(1, 2).flatten(0, 1)
        return (out + on_own @ own_values).reshape(rows, -1).to(of.dtype)

    def gate(self, both: Tensor) -> Tensor:
        first, second = both.chunk(2, dim=-1)
        return silu(first) * second
