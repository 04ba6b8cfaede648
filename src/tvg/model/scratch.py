"""A small Qwen2.5-VL with random weights: the library's classes, our tokenizer, the same bytes for the same spec."""

from dataclasses import fields

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig

from tvg.errors import TvgError
from tvg.model import tokenizer as tokenizers
from tvg.spec import ScratchModel

ROUND_VOCABULARY = 64
NEEDED = {
    "text": {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"},
    "vision": {"hidden_size", "intermediate_size", "depth", "num_heads"},
}


def build(
    spec: ScratchModel, dtype: torch.dtype = torch.float32
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model on the CPU, in evaluation mode, and its tokenizer. Leaves torch's random state alone."""
    tokenizer = tokenizers.build()
    settings = config(spec, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = Qwen2_5_VLForConditionalGeneration(settings).eval()
    for weight in model.parameters():  # model.to(dtype) would round the rotary frequencies too
        weight.data = weight.data.to(dtype)
    model.generation_config.eos_token_id = settings.text_config.eos_token_id
    model.generation_config.pad_token_id = settings.text_config.pad_token_id
    return model, tokenizer


def config(spec: ScratchModel, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The spec's sizes, and what follows from them or is Qwen2.5-VL's own."""
    _check("text", spec.text, Qwen2_5_VLTextConfig, NEEDED["text"])
    _check("vision", spec.vision, Qwen2_5_VLVisionConfig, NEEDED["vision"])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizers.SPECIAL}
    rounded = -(-len(tokenizer) // ROUND_VOCABULARY) * ROUND_VOCABULARY
    text = {
        "vocab_size": rounded,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": _sections(spec.text)},
        "bos_token_id": ids[tokenizers.PAD],
        "eos_token_id": ids[tokenizers.END],
        "pad_token_id": ids[tokenizers.PAD],
        **spec.text,
    }
    vision = {
        "out_hidden_size": spec.text["hidden_size"],
        "tokens_per_second": 2,  # as released checkpoints; the library's default is 4
        "fullatt_block_indexes": [spec.vision["depth"] - 1],
        **spec.vision,
    }
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )  # fmt: skip


def _check(part: str, given: dict, config: type, needed: set[str]) -> None:
    """The library takes unknown keys without a word, and fills absent sizes with a large model's."""
    known = {field.name for field in fields(config)}
    if given.keys() - known or needed - given.keys():
        raise TvgError(
            f"scratch: {part}", "not the sizes of a model",
            got=f"unknown {sorted(given.keys() - known)}, missing {sorted(needed - given.keys())}",
            expected=f"{', '.join(sorted(needed))}, and any other key of {config.__name__}",
            hint="see `scratch:` in config/scales/mini.yaml",
        )  # fmt: skip


def _sections(text: dict[str, int]) -> list[int]:
    """How many rotary frequencies are for time, height, width: as 16, 24, 24 of Qwen2.5-VL's 64."""
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    time = half // 4
    height = (half - time) // 2
    return [time, height, half - time - height]
