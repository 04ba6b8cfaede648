"""The plain policy: library modules, nothing fused. The oracle, and what runs where nothing faster fits.

Two things are ours. Every forward gets explicit positions (tvg.model.positions). Rows of one group share their
`Context` object, which is encoded once: the vision tower in `generate` and `score`, the prompt's prefill in `generate`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from tvg.errors import TvgError
from tvg.model.pixels import MERGE, TEMPORAL, patches
from tvg.model.policy import Context, Sampling, Scores
from tvg.model.positions import mrope
from tvg.model.sampling import choose, suppress, uniforms
from tvg.model.tokenizer import END, VIDEO
from tvg.video.decode import Frames

LOGITS_AT_ONCE = 1 << 28  # float32 values whose softmax is held at a time, 1 GiB


def unwrap(model: torch.nn.Module) -> Qwen2_5_VLForConditionalGeneration:
    """The library model inside adapters and parallel wrappers."""
    while not isinstance(model, Qwen2_5_VLForConditionalGeneration):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model.module
    return model


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


class PlainPolicy:
    """A Qwen2.5-VL and its tokenizer (tvg.model.policy.Policy).

    video_first: the video before the user's text. The TimeZero family trains with the text first (systems.md 2.2).
    Vision tokens, and ids that are no text, are out of reach of sampling and of scoring alike: what is scored is the
    distribution that was sampled from, save for top_p, which no released system scores with.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, video_first: bool = False):
        self.model, self.tokenizer, self.video_first = model, tokenizer, video_first
        config = unwrap(model).config
        self.video_token: int = config.video_token_id
        vision = (config.image_token_id, config.vision_start_token_id, config.vision_end_token_id, self.video_token)
        without_text = range(len(tokenizer), config.text_config.vocab_size)  # rows that only round the matrix up
        self.suppressed = torch.tensor(sorted({*vision, *without_text}))
        named = (tokenizer.convert_tokens_to_ids(END), tokenizer.eos_token_id)
        self.ends = frozenset(token for token in named if token is not None)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # ---------------------------------------------------------------- prompts

    def encode_group(self, messages: list[dict], frames: Frames | None) -> Context:
        chat = self._with_video(messages) if frames is not None else messages
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids.count(self.video_token) != (frames is not None):
            raise TvgError(
                "prompt", "the chat template and the text do not hold one video placeholder",
                got=f"{ids.count(self.video_token)} in {text[:200]!r}", expected=int(frames is not None),
                hint=f"a query must not contain {VIDEO}",
            )  # fmt: skip
        if frames is None:
            return Context(torch.tensor(ids))
        pixels, grid = patches(frames.pixels)
        place = ids.index(self.video_token)
        ids[place : place + 1] = [self.video_token] * (grid[0] * grid[1] * grid[2] // MERGE**2)
        return Context(torch.tensor(ids), pixels, grid, TEMPORAL / frames.fps)

    def _with_video(self, messages: list[dict]) -> list[dict]:
        """The messages with a video beside the first user text."""
        turn = next(index for index, message in enumerate(messages) if message["role"] == "user")
        parts = [{"type": "text", "text": messages[turn]["content"]}, {"type": "video"}]
        user = {**messages[turn], "content": parts[::-1] if self.video_first else parts}
        return [*messages[:turn], user, *messages[turn + 1 :]]

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

    def _positions(self, core: Qwen2_5_VLForConditionalGeneration, context: Context) -> tuple[Tensor, int]:
        if (context.grid is None) != (context.pixels is None):
            raise ValueError(f"a context with grid {context.grid} and {'no ' * (context.pixels is None)}pixels")
        return mrope(
            context.input_ids, video_token=self.video_token, grid=context.grid,
            seconds_per_grid=context.seconds_per_grid, tokens_per_second=core.config.vision_config.tokens_per_second,
        )  # fmt: skip

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
    ) -> list[list[int]]:  # fmt: skip
        """As the interface says; a prefix counts towards max_new_tokens."""
        prefixes = prefixes or [[]] * len(contexts)
        if (longest := max(map(len, prefixes))) > sampling.max_new_tokens:
            raise ValueError(f"a prefix of {longest} tokens does not fit into {sampling.max_new_tokens}")
        completions: list[list[int]] = [[] for _ in contexts]
        open_rows = set(range(len(contexts)))
        with _evaluating(unwrap(self.model)) as core:
            distinct, index = _distinct(contexts)
            decoding = _Decoding(core, self._prompts(core, distinct), index.to(core.device))
            suppressed = self.suppressed.to(core.device)
            draws = uniforms(seeds, sampling.max_new_tokens).to(core.device)
            for step in range(sampling.max_new_tokens):
                logits = suppress(decoding.logits, suppressed)
                tokens = choose(logits, draws[:, step], sampling.temperature, sampling.top_p).tolist()
                tokens = [p[step] if step < len(p) else t for p, t in zip(prefixes, tokens, strict=True)]
                for row in tuple(open_rows):
                    completions[row].append(tokens[row])
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
        distinct, index = _distinct(contexts)
        prompts = self._prompts(core, distinct).rows(index.to(core.device))
        mask = completion_mask.to(core.device).long()
        ids = completion_ids.to(core.device).masked_fill(mask == 0, 0)
        after = prompts.resume[:, None] + torch.arange(ids.shape[1], device=core.device)
        logits = model(
            inputs_embeds=torch.cat([prompts.embeds, core.get_input_embeddings()(ids)], dim=1),
            attention_mask=torch.cat([prompts.mask, mask], dim=1),
            position_ids=torch.cat([prompts.positions, after.expand(3, -1, -1)], dim=2),
            use_cache=False, logits_to_keep=ids.shape[1] + 1,
        ).logits[:, :-1]  # fmt: skip
        logps, spread = self._token_scores(logits, ids, temperature, entropies)
        return Scores(logps * mask, spread * mask if entropies else None)

    def _token_scores(self, logits: Tensor, ids: Tensor, temperature: float, entropies: bool) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (B, C) float32, a few rows at a time: a float32 vocabulary is wide."""
        suppressed = self.suppressed.to(logits.device)

        def rows(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
            logps = torch.log_softmax(suppress(logits.float() / temperature, suppressed), dim=-1)
            chosen = logps.gather(-1, ids[..., None]).squeeze(-1)
            return chosen, -(logps.exp() * logps).sum(-1) if entropies else torch.zeros_like(chosen)

        at_once = max(1, LOGITS_AT_ONCE // logits[0].numel())
        if at_once >= len(logits):
            return rows(logits, ids)
        pairs = zip(logits.split(at_once), ids.split(at_once), strict=True)
        parts = [checkpoint(rows, *pair, use_reentrant=False) for pair in pairs]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _distinct(contexts: Sequence[Context]) -> tuple[list[Context], Tensor]:
    """The different context objects in order of appearance, and which of them each row has."""
    places: dict[int, int] = {}
    index = [places.setdefault(id(context), len(places)) for context in contexts]
    first = {place: context for place, context in zip(reversed(index), reversed(contexts), strict=True)}
    return [first[place] for place in range(len(places))], torch.tensor(index)


@contextmanager
def _evaluating(core: Qwen2_5_VLForConditionalGeneration) -> Iterator[Qwen2_5_VLForConditionalGeneration]:
    """No dropout, and no gradient checkpointing, which would switch the cache off."""
    training = core.training
    core.eval()
    try:
        yield core
    finally:
        core.train(training)
