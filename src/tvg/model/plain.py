"""The plain policy: library modules, nothing fused. The oracle, and what runs where nothing faster fits.

Two things are ours. Every forward gets explicit positions (tvg.model.positions). Rows of one group share their
`Context` object, which is encoded once: the vision tower in `generate` and `score`, the prompt's prefill in `generate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from tvg.model.policy import Completion, Context, Sampling, Scores
from tvg.model.qwen import QwenPolicy, distinct, evaluating, unwrap
from tvg.model.sampling import choose, suppress, uniforms

LOGITS_AT_ONCE = 1 << 28  # float32 values whose softmax is held at a time, 1 GiB


@dataclass(frozen=True)
class _Prompts:
    """Left-padded prompts: embeddings (N, P, D), mask (N, P), positions (3, N, P), next text positions (N,)."""

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    resume: Tensor

    def rows(self, index: Tensor) -> "_Prompts":
        return _Prompts(self.embeds[index], self.mask[index], self.positions[:, index], self.resume[index])


class _Decoding:
    """Next-token logits of all rows, a token at a time. Each prompt is prefilled once, then its cache is repeated."""

    def __init__(self, core: Qwen2_5_VLForConditionalGeneration, prompts: _Prompts, index: Tensor):
        self.core, self.mask, self.position = core, prompts.mask[index], prompts.resume[index]
        out = core(
            inputs_embeds=prompts.embeds, attention_mask=prompts.mask, position_ids=prompts.positions,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        self.cache = out.past_key_values
        self.cache.batch_select_indices(index)
        self.logits = out.logits[index, -1].float()

    def feed(self, tokens: Tensor) -> None:
        """Append one token (B,) to each row."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        out = self.core(
            input_ids=tokens[:, None], attention_mask=self.mask, position_ids=self.position.expand(3, -1)[..., None],
            past_key_values=self.cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        self.position = self.position + 1
        self.logits = out.logits[:, -1].float()


class PlainPolicy(QwenPolicy):
    """A Qwen2.5-VL and its tokenizer (tvg.model.policy.Policy)."""

    # ---------------------------------------------------------------- prompts

    def _prompts(self, core: Qwen2_5_VLForConditionalGeneration, contexts: Sequence[Context]) -> _Prompts:
        width = max(len(context.input_ids) for context in contexts)
        ids = torch.zeros(len(contexts), width, dtype=torch.long)
        mask, positions, resume = torch.zeros_like(ids), torch.zeros(3, *ids.shape, dtype=torch.long), []
        for row, context in enumerate(contexts):
            left = width - len(context.input_ids)
            ids[row, left:], mask[row, left:] = context.input_ids, 1
            positions[:, row, left:], after = self._positions(core, context)
            resume.append(after)
        ids = ids.to(core.device)
        embeds = core.get_input_embeddings()(ids)
        if features := self._features(core, contexts):
            video = (ids == self.video_token)[..., None]
            embeds = embeds.masked_scatter(video, torch.cat(features).to(embeds.dtype))
        return _Prompts(embeds, mask.to(core.device), positions.to(core.device), torch.tensor(resume).to(core.device))

    @staticmethod
    def _features(core: Qwen2_5_VLForConditionalGeneration, contexts: Sequence[Context]) -> list[Tensor]:
        """Video features in the order of the contexts, those without a video left out: each (tokens, D)."""
        videos = [context for context in contexts if context.pixels is not None]
        if not videos:
            return []
        pixels = torch.cat([context.pixels for context in videos]).to(core.device)
        grids = torch.tensor([context.grid for context in videos], device=core.device)
        return list(core.model.get_video_features(pixels, grids).pooler_output)

    # ---------------------------------------------------------------- generation

    @torch.no_grad()
    def generate(
        self, contexts: Sequence[Context], sampling: Sampling, seeds: Sequence[int],
        prefixes: Sequence[list[int]] | None = None,
    ) -> list[Completion]:  # fmt: skip
        """As the interface says; a prefix counts towards max_new_tokens."""
        prefixes = self._forced(contexts, sampling, prefixes)
        completions = [Completion([], []) for _ in contexts]
        open_rows = set(range(len(contexts)))
        with evaluating(unwrap(self.model)) as core:
            each, index = distinct(contexts)
            decoding = _Decoding(core, self._prompts(core, each), index.to(core.device))
            suppressed = self.suppressed.to(core.device)
            draws = uniforms(seeds, sampling.max_new_tokens).to(core.device)
            for step in range(sampling.max_new_tokens):
                logits = suppress(decoding.logits, suppressed)
                tokens = choose(logits, draws[:, step], sampling.temperature, sampling.top_p).tolist()
                tokens = [p[step] if step < len(p) else t for p, t in zip(prefixes, tokens, strict=True)]
                logps = torch.log_softmax(logits / (sampling.temperature or 1.0), dim=-1)
                for row in tuple(open_rows):
                    completions[row].append(tokens[row])
                    completions[row].logps.append(logps[row, tokens[row]].item())
                    if tokens[row] in self.ends and step + 1 >= len(prefixes[row]):
                        open_rows.remove(row)
                if not open_rows or step + 1 == sampling.max_new_tokens:
                    break
                decoding.feed(torch.tensor(tokens, device=core.device))
        return completions

    # ---------------------------------------------------------------- scoring

    def score(
        self, contexts: Sequence[Context], completion_ids: Tensor, completion_mask: Tensor,
        temperature: float = 1.0, model: torch.nn.Module | None = None, entropies: bool = False,
    ) -> Scores:  # fmt: skip
        """As the interface says; 0 where completion_mask is 0. The vision tower runs outside a wrapper's forward."""
        model = self.model if model is None else model
        core = unwrap(model)
        each, index = distinct(contexts)
        prompts = self._prompts(core, each).rows(index.to(core.device))
        mask = completion_mask.to(core.device).long()
        ids = completion_ids.to(core.device).masked_fill(mask == 0, 0)
        after = prompts.resume[:, None] + torch.arange(ids.shape[1], device=core.device)
        logits = model(
            inputs_embeds=torch.cat([prompts.embeds, core.get_input_embeddings()(ids)], dim=1),
            attention_mask=torch.cat([prompts.mask, mask], dim=1),
            position_ids=torch.cat([prompts.positions, after.expand(3, -1, -1)], dim=2),
            use_cache=False, logits_to_keep=ids.shape[1] + 1,
        ).logits[:, :-1]  # fmt: skip
        at_once = max(1, LOGITS_AT_ONCE // logits[0].numel())
        logps, spread = self._token_scores(lambda rows: rows, logits, ids, temperature, entropies, at_once)
        return Scores(logps * mask, spread * mask if entropies else None)
