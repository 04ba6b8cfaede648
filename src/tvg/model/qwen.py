"""What every policy of a Qwen2.5-VL does alike: prompts with their video, positions, what may be sampled, scores."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from tvg.errors import TvgError
from tvg.model.pixels import MERGE, TEMPORAL, patches
from tvg.model.policy import Context, Sampling
from tvg.model.positions import mrope
from tvg.model.sampling import suppress
from tvg.model.tokenizer import END, VIDEO
from tvg.video.decode import Frames


def unwrap(model: torch.nn.Module) -> Qwen2_5_VLForConditionalGeneration:
    """The library model inside adapters and parallel wrappers."""
    while not isinstance(model, Qwen2_5_VLForConditionalGeneration):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model.module
    return model


class QwenPolicy:
    """A Qwen2.5-VL and its tokenizer; what is left to a policy is `generate` and `score`.

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

    def _positions(self, core: Qwen2_5_VLForConditionalGeneration, context: Context) -> tuple[Tensor, int]:
        if (context.grid is None) != (context.pixels is None):
            raise ValueError(f"a context with grid {context.grid} and {'no ' * (context.pixels is None)}pixels")
        return mrope(
            context.input_ids, video_token=self.video_token, grid=context.grid,
            seconds_per_grid=context.seconds_per_grid, tokens_per_second=core.config.vision_config.tokens_per_second,
        )  # fmt: skip

    @staticmethod
    def _forced(
        contexts: Sequence[Context], sampling: Sampling, prefixes: Sequence[list[int]] | None
    ) -> Sequence[list[int]]:
        """Each row's forced first tokens. Raises ValueError where they do not fit."""
        prefixes = prefixes or [[]] * len(contexts)
        if (longest := max(map(len, prefixes))) > sampling.max_new_tokens:
            raise ValueError(f"a prefix of {longest} tokens does not fit into {sampling.max_new_tokens}")
        return prefixes

    def _token_scores(
        self, logits_of: Callable[[Tensor], Tensor], states: Tensor, ids: Tensor, temperature: float, entropies: bool,
        at_once: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Log-probabilities and entropies, float32 in the shape of `ids`, from logits_of(states) (..., V).

        `at_once` rows at a time, whose softmax is computed again in the backward pass: a float32 vocabulary is wide.
        """
        suppressed = self.suppressed.to(states.device)

        def scores(states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
            logps = torch.log_softmax(suppress(logits_of(states).float() / temperature, suppressed), dim=-1)
            chosen = logps.gather(-1, ids[..., None]).squeeze(-1)
            return chosen, -(logps.exp() * logps).sum(-1) if entropies else torch.zeros_like(chosen)

        if at_once >= len(states):
            return scores(states, ids)
        pairs = zip(states.split(at_once), ids.split(at_once), strict=True)
        parts = [checkpoint(scores, *pair, use_reentrant=False) for pair in pairs]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def distinct(contexts: Sequence[Context]) -> tuple[list[Context], Tensor]:
    """The different context objects in order of appearance, and which of them each row has."""
    places: dict[int, int] = {}
    index = [places.setdefault(id(context), len(places)) for context in contexts]
    first = {place: context for place, context in zip(reversed(index), reversed(contexts), strict=True)}
    return [first[place] for place in range(len(places))], torch.tensor(index)


@contextmanager
def evaluating(core: Qwen2_5_VLForConditionalGeneration) -> Iterator[Qwen2_5_VLForConditionalGeneration]:
    """No dropout, and no gradient checkpointing, which would switch the cache off."""
    training = core.training
    core.eval()
    try:
        yield core
    finally:
        core.train(training)
