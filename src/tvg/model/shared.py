"""The shared policy: what the rollouts of a group have in common is computed once (docs/engine.md).

Scoring lays a group out as one sequence, the prompt with its video and then every completion, each of which sees the
prompt and itself (tvg.model.attention). It is one call of the module, so that gradient checkpointing, adapters and
parallel wrappers do what they always do. Generating encodes and prefills each prompt once; tvg.model.decoding goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from tvg.model import attention
from tvg.model.attention import Pack, Part
from tvg.model.decoding import Engine
from tvg.model.logits import logits, working_dtype
from tvg.model.policy import Completion, Context, Sampling, Scores
from tvg.model.qwen import QwenPolicy, distinct, evaluating, unwrap
from tvg.model.widths import widen

PREFILL_TOKENS = 1 << 14  # of the prompts that are encoded at a time: bounds the vision tower's memory
LOGITS_AT_ONCE = 1 << 26  # float32 values whose softmax is held at a time, 256 MiB
RECOMPILATIONS = 64  # a norm is in both towers, trained or frozen, with gradient or without: torch gives up at 8


class SharedPolicy(QwenPolicy):
    """A Qwen2.5-VL and its tokenizer (tvg.model.policy.Policy); equal to PlainPolicy up to rounding.

    compiled: torch.compile fuses the layers' small operations, on CUDA; costs a minute when a job starts.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, video_first: bool = False, compiled: bool = False
    ):
        super().__init__(model, tokenizer, video_first)
        self.compiled = compiled
        attention.install(unwrap(model))
        widen(unwrap(model))
        self.engine = Engine(self.suppressed, self.ends)

    # ---------------------------------------------------------------- generation

    @torch.no_grad()
    def generate(
        self, contexts: Sequence[Context], sampling: Sampling, seeds: Sequence[int],
        prefixes: Sequence[list[int]] | None = None,
    ) -> list[Completion]:  # fmt: skip
        """As the interface says; a prefix counts towards max_new_tokens."""
        prefixes = self._forced(contexts, sampling, prefixes)
        each, index = distinct(contexts)
        lengths = [len(context.input_ids) for context in each]
        with evaluating(unwrap(self.model)) as core:
            groups = self.engine.start(core, index.tolist(), lengths, sampling.max_new_tokens)
            after, resume = [], []
            for first, last in _batches(lengths, PREFILL_TOKENS):
                keep = partial(self.engine.keep, groups, first, lengths[first:last])
                found, positions = self._prefill(core, each[first:last], keep)
                after.append(found)
                resume += positions
            torch.clear_autocast_cache()  # it holds every weight in half precision, which the engine does too
            with torch.autocast(core.device.type, enabled=False):
                return self.engine.run(groups, torch.cat(after), resume, lengths, sampling, seeds, prefixes)

    def _prefill(
        self, core: Qwen2_5_VLForConditionalGeneration, contexts: Sequence[Context], keep: Callable
    ) -> tuple[Tensor, list[int]]:
        """The logits (N, V) after each prompt, and the position that comes next; `keep` gets the keys and values."""
        inputs, resume = self._packed(core, contexts, [[] for _ in contexts])
        parts = [Part(len(context.input_ids)) for context in contexts]
        last = torch.tensor([part.length for part in parts], device=core.device).cumsum(0) - 1
        with _precise(core, lambda states: _logits_of(core.lm_head)(states[0])[None]):
            out = self._compile(core)(
                **inputs, pack=Pack(parts, core.device, keep), use_cache=False, logits_to_keep=last
            )  # fmt: skip
        return out.logits[0], resume

    # ---------------------------------------------------------------- scoring

    def score(
        self, contexts: Sequence[Context], completion_ids: Tensor, completion_mask: Tensor,
        temperature: float = 1.0, model: nn.Module | None = None, entropies: bool = False,
    ) -> Scores:  # fmt: skip
        """As the interface says; 0 where completion_mask is 0. One call of the module for all groups.

        Raises ValueError for a vision token in a completion.
        """
        model = self.model if model is None else model
        core = self._compile(unwrap(model))
        each, index = distinct(contexts)
        groups = [(index == place).nonzero().flatten() for place in range(len(each))]
        lengths = completion_mask.sum(1).tolist()
        answers = [[completion_ids[row, : lengths[row]].cpu() for row in rows.tolist()] for rows in groups]
        parts = [Part(len(one.input_ids), tuple(map(len, own))) for one, own in zip(each, answers, strict=True)]
        inputs, _ = self._packed(core, each, answers)
        targets = torch.cat([answer for own in answers for answer in own]).to(core.device)
        with _precise(core, partial(self._head, core.lm_head, targets, temperature, entropies)):
            found = model(
                **inputs, pack=Pack(parts, core.device), use_cache=False, logits_to_keep=_before(parts).to(core.device)
            ).logits[0]  # fmt: skip
        places = _places(torch.cat(groups).tolist(), lengths, completion_mask.shape[1]).to(core.device)
        logps, spread = (
            found.new_zeros(completion_mask.numel()).scatter(0, places, values).view(completion_mask.shape)
            for values in found.unbind(-1)
        )
        return Scores(logps, spread if entropies else None)

    def _head(self, head: nn.Linear, targets: Tensor, temperature: float, entropies: bool, hidden: Tensor) -> Tensor:
        """In place of the logits (1, N, V): log-probabilities and entropies of the targets, (1, N, 2)."""
        at_once = max(1, LOGITS_AT_ONCE // head.out_features)
        found = self._token_scores(_logits_of(head), hidden[0], targets, temperature, entropies, at_once)
        return torch.stack(found, dim=-1)[None]

    # ---------------------------------------------------------------- the packed sequence

    def _packed(
        self, core: Qwen2_5_VLForConditionalGeneration, contexts: Sequence[Context], answers: Sequence[list[Tensor]]
    ) -> tuple[dict, list[int]]:
        """The module's inputs for [prompt, its completions, next prompt, ...], and the position after each prompt."""
        ids, positions, resume = [], [], []
        for context, own in zip(contexts, answers, strict=True):
            prompt, after = self._positions(core, context)
            ids += [context.input_ids, *own]
            positions += [prompt, *((after + torch.arange(len(answer))).expand(3, -1) for answer in own)]
            resume.append(after)
            if any((answer == self.video_token).any() for answer in own):
                raise ValueError("a completion with vision tokens, which are never sampled, cannot be scored")
        inputs = {
            "input_ids": torch.cat(ids)[None].to(core.device),
            "position_ids": torch.cat(positions, dim=1)[:, None].to(core.device),
            "attention_mask": {"full_attention": None},  # the pack tells who sees whom
        }
        if videos := [context for context in contexts if context.pixels is not None]:
            inputs["pixel_values_videos"] = torch.cat([context.pixels.to(core.device) for context in videos])
            inputs["video_grid_thw"] = torch.tensor([context.grid for context in videos], device=core.device)
        return inputs, resume

    def _compile(self, core: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
        """The model, its layers' parts compiled in place, where that is asked for and has not been done."""
        if self.compiled and core.device.type == "cuda":
            torch._dynamo.config.recompile_limit = max(RECOMPILATIONS, torch._dynamo.config.recompile_limit)
            for layer in (*core.model.visual.blocks, *core.model.language_model.layers):
                for part in layer.children():  # not the layer: attention is not traced, and a checkpoint must not break
                    if part._compiled_call_impl is None:
                        part.compile(dynamic=True)
        return core


def _logits_of(head: nn.Linear) -> Callable[[Tensor], Tensor]:
    """States (N, D) -> logits (N, V) float32."""
    weight = head.weight.to(working_dtype(head.weight))
    return lambda states: logits(states.to(weight.dtype), weight)


def _before(parts: Sequence[Part]) -> Tensor:
    """Where the packed sequence has the token before each token of each completion."""
    places, start = [], 0
    for part in parts:
        end = start + part.length
        for length in part.completions:
            places += [start + part.length - 1, *range(end, end + length - 1)][:length]
            end += length
        start = end
    return torch.tensor(places, dtype=torch.long)


def _places(rows: Sequence[int], lengths: Sequence[int], width: int) -> Tensor:
    """Where a flat (B, width) batch has each token of the rows' completions, in the order of `rows`."""
    return torch.cat([row * width + torch.arange(lengths[row]) for row in rows])


def _batches(lengths: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of prompts of at most `most` tokens in all, or of one prompt."""
    first, total = 0, 0
    for place, length in enumerate(lengths):
        if place > first and total + length > most:
            yield first, place
            first, total = place, 0
        total += length
    yield first, len(lengths)


@contextmanager
def _precise(core: Qwen2_5_VLForConditionalGeneration, head: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Sum the layers in float32 whatever the weights' type, with `head` for the LM head.

    In bfloat16 the sum is rounded 72 times, which sampling and scoring do not do alike: hundredths of a nat.
    """
    embed, dtype = core.get_input_embeddings(), working_dtype(core.lm_head.weight)
    with (
        _replaced(embed, lambda ids: type(embed).forward(embed, ids).float()),
        _replaced(core.lm_head, head),
        torch.autocast(core.device.type, dtype=dtype, enabled=dtype.itemsize == 2),
    ):
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Another forward for one call of the model that the module is a part of."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
