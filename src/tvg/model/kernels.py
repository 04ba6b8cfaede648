"""The operations between a decoding step's matrix products, as Triton kernels: few launches, and the prompt's keys read
once for all rows of a group.

Attention is cut along the keys, so that a single group fills the GPU: each program takes a piece of a prompt for every
row and head that shares it, or a piece of one row's suffix, and leaves its largest score, its sum and its weighted
values; a second kernel merges the pieces.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tvg.model.slots import Slots
from tvg.model.steps import Steps
from tvg.model.weights import Weights

KEYS = 64  # of one tile
SUFFIX = 256  # keys of a row's own that one program takes
MOST_QUERIES = 64  # rows x heads of one tile
PROGRAMS = 264  # twice the multiprocessors of an H200: more pieces cost more to merge
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _norm(hidden, added, weight, out, width, epsilon, ADD: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    states = tl.load(hidden + row * width + column, mask=inside, other=0.0)
    if ADD:
        states += tl.load(added + row * width + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(hidden + row * width + column, states, mask=inside)
    spread = 1.0 / tl.sqrt(tl.sum(states * states, 0) / width + epsilon)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, (scale * (states * spread)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rotate(
    qkv, cos, sin, query, keys, values, count, heads, kv_heads, room, HALF: tl.constexpr
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, HALF)
    wide: tl.constexpr = 2 * HALF
    source = qkv + (row * (heads + 2 * kv_heads) + head) * wide + lane
    first, second = tl.load(source), tl.load(source + HALF)
    slot = tl.load(count) - 1
    kind = query.dtype.element_ty
    if head >= heads + kv_heads:
        target = values + ((row * kv_heads + head - heads - kv_heads) * room + slot) * wide + lane
        tl.store(target, first)
        tl.store(target + HALF, second)
    else:
        c, s = tl.load(cos + row * HALF + lane), tl.load(sin + row * HALF + lane)
        a, b = first.to(tl.float32), second.to(tl.float32)
        if head < heads:
            target = query + (row * heads + head) * wide + lane
        else:
            target = keys + ((row * kv_heads + head - heads) * room + slot) * wide + lane
        tl.store(target, (a * c - b * s).to(kind))
        tl.store(target + HALF, (b * c + a * s).to(kind))


@triton.jit
def _piece(
    query, keys, values, start, end, scale, QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of a tile of queries over keys start..end: weighted values, largest score (base 2), sum."""
    lane, key = tl.arange(0, WIDE), tl.arange(0, KEYS)
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    found = tl.zeros((QUERIES, WIDE), tl.float32)
    for place in range(start, end, KEYS):
        inside = (place + key) < end
        where = (place + key)[:, None] * WIDE + lane[None, :]
        k = tl.load(keys + where, mask=inside[:, None], other=0.0)
        v = tl.load(values + where, mask=inside[:, None], other=0.0)
        score = tl.dot(query, tl.trans(k), input_precision=PRECISION) * scale
        score = tl.where(inside[None, :], score, float("-inf"))
        higher = tl.maximum(most, tl.max(score, 1))
        chance = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(most - higher)
        total = total * shrink + tl.sum(chance, 1)
        found = found * shrink[:, None] + tl.dot(chance.to(v.dtype), v, input_precision=PRECISION)
        most = higher
    return found, most, total


@triton.jit
def _attend_piece(
    query, head, real, keys, values, start, end, found, most, total, place, scale, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Load the queries of `head`, where `real`, and leave what `_piece` finds at `place`."""
    lane = tl.arange(0, WIDE)
    q = tl.load(query + head[:, None] * WIDE + lane[None, :], mask=real[:, None], other=0.0)
    f, m, t = _piece(q, keys, values, start, end, scale, QUERIES, KEYS, WIDE, PRECISION)
    tl.store(found + place[:, None] * WIDE + lane[None, :], f, mask=real[:, None])
    tl.store(most + place, m, mask=real)
    tl.store(total + place, t, mask=real)


@triton.jit
def _on_prompt(
    program, query, keys, values, lengths, found, most, total, scale, size, kv_heads, room, splits, tiles, pieces,
    SHARED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One piece of a group's prompt, for a tile of the rows and heads that share its keys."""
    piece = program % splits
    tile = program // splits % tiles
    kv = program // (splits * tiles) % kv_heads
    group = program // (splits * tiles * kv_heads)
    each = tile * QUERIES + tl.arange(0, QUERIES)
    head = (group * size + each // SHARED) * kv_heads * SHARED + kv * SHARED + each % SHARED
    length = tl.load(lengths + group).to(tl.int32)
    span = tl.cdiv(tl.cdiv(length, KEYS), splits) * KEYS
    start = piece * span
    base = (group * kv_heads + kv).to(tl.int64) * room * WIDE
    _attend_piece(
        query, head, each < size * SHARED, keys + base, values + base, start, tl.minimum(start + span, length),
        found, most, total, head * pieces + piece, scale, QUERIES, KEYS, WIDE, PRECISION,
    )  # fmt: skip


@triton.jit
def _on_own(
    program, query, keys, values, count, found, most, total, scale, kv_heads, room, splits, before, pieces,
    SHARED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, SUFFIX: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One piece of a row's own suffix, for the heads that share its keys."""
    piece = program % splits
    kv = program // splits % kv_heads
    row = program // (splits * kv_heads)
    each = tl.arange(0, QUERIES)
    head = row * kv_heads * SHARED + kv * SHARED + each
    start = piece * SUFFIX
    end = tl.minimum(start + SUFFIX, tl.load(count).to(tl.int32))
    base = (row * kv_heads + kv).to(tl.int64) * room * WIDE
    _attend_piece(
        query, head, each < SHARED, keys + base, values + base, start, end,
        found, most, total, head * pieces + before + piece, scale, QUERIES, KEYS, WIDE, PRECISION,
    )  # fmt: skip


@triton.jit
def _attend(
    query, keys, values, own_keys, own_values, lengths, count, found, most, total, scale, size, kv_heads, prompt_room,
    room, splits, tiles, own_splits, on_prompts, SHARED: tl.constexpr, QUERIES: tl.constexpr, OWN: tl.constexpr,
    KEYS: tl.constexpr, SUFFIX: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    pieces = splits + own_splits
    if program < on_prompts:
        _on_prompt(
            program, query, keys, values, lengths, found, most, total, scale, size, kv_heads, prompt_room, splits,
            tiles, pieces, SHARED, QUERIES, KEYS, WIDE, PRECISION,
        )  # fmt: skip
    else:
        _on_own(
            program - on_prompts, query, own_keys, own_values, count, found, most, total, scale, kv_heads, room,
            own_splits, splits, pieces, SHARED, OWN, KEYS, SUFFIX, WIDE, PRECISION,
        )  # fmt: skip


@triton.jit
def _merge(found, most, total, out, pieces, PIECES: tl.constexpr, WIDE: tl.constexpr, AT_ONCE: tl.constexpr):
    head = tl.program_id(0)
    lane, piece = tl.arange(0, WIDE), tl.arange(0, PIECES)
    m = tl.load(most + head * pieces + piece, mask=piece < pieces, other=float("-inf"))
    highest = tl.max(m, 0)
    t = tl.load(total + head * pieces + piece, mask=piece < pieces, other=0.0)
    whole = tl.sum(t * tl.exp2(m - highest), 0)
    merged = tl.zeros((WIDE,), tl.float32)
    for first in range(0, pieces, AT_ONCE):
        some = first + tl.arange(0, AT_ONCE)
        weight = tl.exp2(tl.load(most + head * pieces + some, mask=some < pieces, other=float("-inf")) - highest)
        where = (head * pieces + some)[:, None] * WIDE + lane[None, :]
        merged += tl.sum(weight[:, None] * tl.load(found + where, mask=(some < pieces)[:, None], other=0.0), 0)
    tl.store(out + head * WIDE + lane, (merged / whole).to(out.dtype.element_ty))


@triton.jit
def _gate(both, out, width, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    first = tl.load(both + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(both + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    opened = (first * tl.sigmoid(first)).to(kind).to(tl.float32)
    tl.store(out + row * width + column, (opened * second).to(kind), mask=inside)


class KernelSteps(Steps):
    """As TorchSteps, with buffers of its own at fixed addresses."""

    def __init__(self, weights: Weights, slots: Slots):
        super().__init__(weights, slots)
        groups, rows, prompt, room = slots.shape
        self.shared, self.size = weights.heads // weights.kv_heads, rows // groups
        queries = triton.next_power_of_2(self.size * self.shared)
        self.queries = min(MOST_QUERIES, max(16, queries))
        self.tiles = triton.cdiv(self.size * self.shared, self.queries)
        most = max(1, PROGRAMS // (groups * weights.kv_heads * self.tiles))
        self.splits = min(most, triton.cdiv(prompt, KEYS))
        self.own_splits = triton.cdiv(room, SUFFIX)
        self.pieces = self.splits + self.own_splits
        heads = rows * weights.heads
        of = {"dtype": torch.float32, "device": weights.device}
        self.found = torch.empty(heads, self.pieces, weights.head_dim, **of)
        self.most, self.total = torch.empty(heads, self.pieces, **of), torch.empty(heads, self.pieces, **of)
        self.precision = "ieee" if weights.dtype == torch.float32 else "tf32"  # bfloat16 is multiplied as it is

    def norm(self, hidden: Tensor, added: Tensor | None, weight: Tensor) -> Tensor:
        rows, width = hidden.shape
        out = torch.empty_like(hidden, dtype=self.weights.dtype)
        wide = triton.next_power_of_2(width)
        _norm[(rows,)](hidden, added, weight, out, width, self.weights.epsilon, added is not None, wide, num_warps=8)
        return out

    def rotate(self, qkv: Tensor, cos: Tensor, sin: Tensor, layer: int) -> Tensor:
        of, slots = self.weights, self.slots
        query = torch.empty(len(qkv), of.heads, of.head_dim, dtype=of.dtype, device=of.device)
        keys, values = slots.suffixes[layer]
        _rotate[(len(qkv), of.heads + 2 * of.kv_heads)](
            qkv, cos, sin, query, keys, values, slots.count, of.heads, of.kv_heads, keys.shape[2], of.head_dim // 2,
            num_warps=1,
        )  # fmt: skip
        return query

    def attend(self, query: Tensor, layer: int) -> Tensor:
        of, slots = self.weights, self.slots
        rows, groups = len(query), len(slots.lengths)
        (keys, values), (own_keys, own_values) = slots.prompts[layer], slots.suffixes[layer]
        on_prompts = groups * of.kv_heads * self.tiles * self.splits
        programs = on_prompts + rows * of.kv_heads * self.own_splits
        _attend[(programs,)](
            query, keys, values, own_keys, own_values, slots.lengths, slots.count, self.found, self.most, self.total,
            self.scale * LOG2E.value, self.size, of.kv_heads, keys.shape[2], own_keys.shape[2], self.splits,
            self.tiles, self.own_splits, on_prompts, SHARED=self.shared, QUERIES=self.queries,
            OWN=max(16, triton.next_power_of_2(self.shared)), KEYS=KEYS, SUFFIX=SUFFIX, WIDE=of.head_dim,
            PRECISION=self.precision, num_warps=4,
        )  # fmt: skip
        out = torch.empty(rows, of.heads * of.head_dim, dtype=of.dtype, device=of.device)
        _merge[(rows * of.heads,)](
            self.found, self.most, self.total, out, self.pieces, triton.next_power_of_2(self.pieces), of.head_dim,
            min(64, triton.next_power_of_2(self.pieces)), num_warps=4,
        )  # fmt: skip
        return out

    def gate(self, both: Tensor) -> Tensor:
        rows, width = len(both), both.shape[1] // 2
        out = torch.empty(rows, width, dtype=both.dtype, device=both.device)
        _gate[(rows, triton.cdiv(width, 1024))](both, out, width, 1024, num_warps=4)
        return out
