"""The stock path: what a user of TRL-like code does on video today. What `step.py` and `rollout.py` compare with.

The library's Qwen2.5-VL through its own forward and `generate`: the pixels repeated for every rollout, in generation
and in every pass of log-probabilities; scaled_dot_product_attention; torch's default choice of its kernels; logits of
the completion alone, token log-probabilities in float32 (trl's selective_log_softmax). Everything that it may have, it
has: pixels reach the GPU once and are repeated there, all rows go through one pass where they fit, no top-k, no
end-token search, no entropies. `untouched` undoes what a policy of ours has put into the model.

Two variants. Without flash-attn the library's vision tower loops over its windows in Python. Within `untouched(model,
NAME)` it gets variable-length attention from torch, as users with flash-attn have it (CUDA, half precision).

Positions are the library's own, which misplace the text after a video (reference/stack.md, section 4). That changes
no time; where numbers are compared, `logps` takes `positions`, and `original` makes them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, Qwen2_5_VLForConditionalGeneration

from tvg.model.policy import Context
from tvg.model.positions import mrope

NAME = "varlen_flash"  # the library gives its cu_seq_lens to every attention whose name holds "flash"


class Stock:
    """The library model in the hands of such code. Contexts of one call have prompts of one length: no padding."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration):
        self.model, config = model, model.config
        vision = (config.image_token_id, config.vision_start_token_id, config.vision_end_token_id)
        self.suppressed = [*vision, config.video_token_id]

    def generate(self, contexts: Sequence[Context], new_tokens: int, temperature: float = 1.0) -> Tensor:
        """(B, new_tokens) token ids, one row a context; temperature 0 is greedy. The model is in evaluation mode."""
        inputs = self._inputs(contexts)
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        made = self.model.generate(
            **inputs, **(how if temperature else {"do_sample": False}), min_new_tokens=new_tokens,
            max_new_tokens=new_tokens, suppress_tokens=self.suppressed, use_cache=True,
        )  # fmt: skip
        return made[:, inputs["input_ids"].shape[1] :]

    def logps(self, contexts: Sequence[Context], completion_ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Log-probabilities (B, C) float32 of completions (B, C) without padding, over the whole vocabulary.

        positions: (3, B, L) of prompt and completion; without them, the library's own.
        """
        explicit = {} if positions is None else {"position_ids": positions.to(completion_ids.device)}
        kept = completion_ids.shape[1] + 1
        logits = self.model(
            **self._inputs(contexts, completion_ids), **explicit, use_cache=False, logits_to_keep=kept
        ).logits[:, :-1]
        return selective_log_softmax(logits, completion_ids)

    def _inputs(self, contexts: Sequence[Context], completion_ids: Tensor | None = None) -> dict[str, Tensor]:
        """What a processor makes of these rows, on the model's device; a group's pixels are there G times."""
        device = self.model.device
        ids = torch.stack([context.input_ids for context in contexts]).to(device)
        if completion_ids is not None:
            ids = torch.cat([ids, completion_ids], dim=1)
        pixels = {id(context): context.pixels.to(device) for context in contexts}
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self.model.config.video_token_id).int() * 2,
            "pixel_values_videos": torch.cat([pixels[id(context)] for context in contexts]),
            "video_grid_thw": torch.tensor([context.grid for context in contexts], device=device),
            "second_per_grid_ts": torch.tensor([context.seconds_per_grid for context in contexts], device=device),
        }


def selective_log_softmax(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-softmax (B, C) float32 of logits (B, C, V) at ids (B, C): trl.trainer.utils, for float32, row by row."""
    rows = []
    for row, chosen in zip(logits, ids, strict=True):
        row = row.float()
        rows.append(row.gather(-1, chosen[:, None]).squeeze(-1) - row.logsumexp(-1))
    return torch.stack(rows)


def original(model: Qwen2_5_VLForConditionalGeneration, contexts: Sequence[Context], new_tokens: int) -> Tensor:
    """Positions (3, B, L) of prompts and `new_tokens` after them by the rule that the weights were trained with."""
    rows = []
    for context in contexts:
        video = {"grid": context.grid, "seconds_per_grid": context.seconds_per_grid}
        speed = model.config.vision_config.tokens_per_second
        positions, after = mrope(
            context.input_ids, video_token=model.config.video_token_id, tokens_per_second=speed, **video
        )
        rows.append(torch.cat([positions, (after + torch.arange(new_tokens)).expand(3, -1)], dim=1))
    return torch.stack(rows, dim=1)


def varlen_attention(
    _module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor, max_length_q: int, max_length_k: int, **_,
) -> tuple[Tensor, None]:  # fmt: skip
    """As the library calls it: (1, heads, tokens, width) each -> (1, tokens, heads, width), all windows at once."""
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    out = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_k, int(max_length_q), int(max_length_k))
    return out[None], None


@contextmanager
def untouched(model: Qwen2_5_VLForConditionalGeneration, vision: str = "sdpa") -> Iterator[None]:
    """The model as the library made it, whatever a policy has put into it: its attention, eager, torch's own kernels.

    vision: the vision tower's attention, "sdpa" or NAME. cuDNN is among torch's kernels; tvg.model.load takes it out.
    """
    AttentionInterface.register(NAME, varlen_attention)
    configs = model.model.visual.config, model.model.language_model.config
    before = [config._attn_implementation for config in configs]
    kernels = torch.backends.cuda.cudnn_sdp_enabled()
    for config, name in zip(configs, (vision, "sdpa"), strict=True):
        config._attn_implementation = name
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(kernels)
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name
