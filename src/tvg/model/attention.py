"""Attention over packed sequences in the library's own layers: windows of frames, and completions on shared prompts.

transformers lets a model's attention be swapped by name. Two names are registered here. In the vision tower every
frame, or every window of one, is a sequence of its own: all of them are one call, where the library's default calls
attention once a window. In the language model a `Pack` tells which parts of one long sequence see which.

On CUDA in half precision both are one variable-length flash-attention call; anywhere else, batches of equal shape.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

WINDOWS, PACKED = "tvg_flash_windows", "tvg_packed"  # the tower asks for whole sequences where the name has "flash"
GROUPED = "enable_gqa" in inspect.signature(varlen_attn).parameters  # torch 2.11 wants the keys' heads repeated
CAUSAL, FULL = (-1, 0), (-1, -1)


@dataclass(frozen=True)
class Part:
    """A prompt of `length` tokens, and the lengths of the completions that follow it in the packed sequence."""

    length: int
    completions: tuple[int, ...] = ()


class Pack:
    """How a packed sequence is cut: [prompt, its completions, next prompt, its completions, ...].

    A prompt's token sees its prompt up to itself; a completion's token sees its whole prompt and its own completion up
    to itself. keep: called with (layer, keys, values) of the sequence, (L, kv heads, head dim) each, rotated.
    """

    def __init__(self, parts: Sequence[Part], device: torch.device, keep: Callable | None = None):
        self.parts, self.device, self.keep = tuple(parts), device, keep

    @cached_property
    def lengths(self) -> list[int]:
        """Of every prompt and completion, in order."""
        return [length for part in self.parts for length in (part.length, *part.completions)]

    @cached_property
    def _ragged(self) -> tuple[Tensor, Tensor, int, int]:
        """Where each sequence's queries and keys begin, and the most of both: a completion's keys hold its prompt."""
        seen = [n for part in self.parts for n in (part.length, *(part.length + own for own in part.completions))]
        ends = [torch.tensor([0, *each], device=self.device).cumsum(0).int() for each in (self.lengths, seen)]
        return *ends, max(self.lengths), max(seen)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(L, heads, head dim), keys and values with the heads that they have -> (L, heads, head dim)."""
        if _flash(query):
            of_query, of_key, most_query, most_key = self._ragged
            key, value = self._spread(key), self._spread(value)
            return ragged(query, key, value, of_query, of_key, most_query, most_key, scale, CAUSAL)
        return self._dense(query, key, value, scale)

    def _spread(self, states: Tensor) -> Tensor:
        """Keys or values with each completion's prompt repeated before it."""
        pieces, spread = iter(states.split(self.lengths)), []
        for part in self.parts:
            spread.append(prompt := next(pieces))
            for _ in part.completions:
                spread += [prompt, next(pieces)]
        return torch.cat(spread)

    def _dense(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Part by part: the prompt, then its completions as one padded batch."""
        sizes = [part.length + sum(part.completions) for part in self.parts]
        cut = zip(
            self.parts, *(states.transpose(0, 1).split(sizes, dim=1) for states in (query, key, value)), strict=True
        )
        return torch.cat([_of_part(part, q, k, v, scale) for part, q, k, v in cut])


def _of_part(part: Part, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """(heads, part's tokens, head dim) -> (part's tokens, heads, head dim)."""
    (query, *queries), (key, *keys), (value, *values) = (
        states.split([part.length, *part.completions], dim=1) for states in (query, key, value)
    )
    out = [_sdpa(query[None], key[None], value[None], scale, is_causal=True)[0]]
    if count := len(part.completions):
        longest = max(part.completions)

        def batch(states: Sequence[Tensor]) -> Tensor:
            return torch.stack([pad(each, (0, 0, 0, longest - each.shape[1])) for each in states])

        def behind(prompt: Tensor, states: Sequence[Tensor]) -> Tensor:
            return torch.cat([prompt.expand(count, -1, -1, -1), batch(states)], dim=2)

        mask = query.new_ones(longest, part.length + longest, dtype=torch.bool).tril(part.length)
        answers = _sdpa(batch(queries), behind(key, keys), behind(value, values), scale, attn_mask=mask)
        out += [each[:, :length] for each, length in zip(answers, part.completions, strict=True)]
    return torch.cat(out, dim=1).transpose(0, 1)


def ragged(
    query: Tensor, key: Tensor, value: Tensor, of_query: Tensor, of_key: Tensor, most_query: int, most_key: int,
    scale: float | None, window: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Flash attention over sequences laid end to end; causal ones are aligned at their ends."""
    options = {"scale": scale, "window_size": window}
    if (repeats := query.shape[1] // key.shape[1]) > 1:
        if GROUPED:
            options["enable_gqa"] = True
        else:
            key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    return varlen_attn(query, key, value, of_query, of_key, most_query, most_key, **options)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float, **options: object) -> Tensor:
    return scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=True, **options)


def _flash(query: Tensor) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def _mixed(*states: Tensor) -> list[Tensor]:
    """In autocast's type where it is on: the rotation leaves queries and keys in float32."""
    kind = states[0].device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states[2].dtype
    return [each.to(dtype) for each in states]


@torch.compiler.disable
def packed(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, pack: Pack | None = None, **options: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """The language model's attention: (1, heads, L, head dim) of a pack; without one, the library's own."""
    if pack is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    query, key, value = (states[0].transpose(0, 1) for states in _mixed(query, key, value))
    if pack.keep is not None:
        pack.keep(module.layer_idx, key, value)
    return pack.attend(query, key, value, scaling)[None], None


@torch.compiler.disable
def windows(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None = None,
    scaling: float | None = None, cu_seq_lens_q: Tensor | None = None, max_length_q: int | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """The vision tower's attention: (1, heads, L, head dim) cut at cu_seq_lens_q, each piece seeing itself alone."""
    query, key, value = (states[0].transpose(0, 1) for states in _mixed(query, key, value))
    if _flash(query):
        cut, most = cu_seq_lens_q.int(), int(max_length_q)
        return ragged(query, key, value, cut, cut, most, most, scaling, FULL)[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    return _by_length(query, key, value, lengths, scaling)[None], None


def _by_length(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None) -> Tensor:
    """Pieces of one length are one batch."""
    pieces = [states.split(lengths) for states in (query, key, value)]
    out: list[Tensor] = [query] * len(lengths)
    for length in set(lengths):
        where = [place for place, each in enumerate(lengths) if each == length]
        batch = [torch.stack([states[place] for place in where]).transpose(1, 2) for states in pieces]
        for place, done in zip(where, _sdpa(*batch, scale).transpose(1, 2), strict=True):
            out[place] = done
    return torch.cat(out)


AttentionInterface.register(WINDOWS, windows)
AttentionInterface.register(PACKED, packed)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def install(core: torch.nn.Module) -> None:
    """Let the library model's layers call these functions from now on; without a pack they do what they did."""
    core.model.visual.config._attn_implementation = WINDOWS
    core.model.language_model.config._attn_implementation = PACKED
