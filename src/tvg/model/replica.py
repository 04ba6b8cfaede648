"""A model repository laid out as Qwen/Qwen2.5-VL-3B-Instruct is on the hub, with random weights: for rehearsals.

Same files, sizes, parameter names, special tokens and chat layout, so that whatever reads the released repository reads
this one. The weights mean nothing, and the vocabulary is ours: of the true size, the words of tvg.model.tokenizer one
token each, filled up with letters. tvg.hub serves the folder.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
import string
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tvg.errors import TvgError
from tvg.hub import OWN
from tvg.model.pixels import MEAN, MERGE, PATCH, STD, TEMPORAL
from tvg.model.tokenizer import END, PAD, TEMPLATE, WORDS

log = logging.getLogger(__name__)
NAME = f"{OWN}/qwen2.5-vl-3b-shape"
VERSION = 1  # goes up when the same recipe gives other files
SHARD = 4 << 30  # bytes: two shards, as released
STD_DEVIATION = 0.02  # of matrices, config.json's initializer_range

SHAPE = {  # config.json as released
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": STD_DEVIATION,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 2048,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "spatial_patch_size": PATCH,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": TEMPORAL,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
GENERATION = {
    "bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05, "temperature": 0.000001, "transformers_version": "4.49.0",
}  # fmt: skip
PREPROCESSOR = {
    "min_pixels": 3136, "max_pixels": 12845056, "patch_size": PATCH, "temporal_patch_size": TEMPORAL,
    "merge_size": MERGE, "image_mean": list(MEAN), "image_std": list(STD),
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
}  # fmt: skip

# ids from 151643 on, in this order; those from <tool_call> on are ordinary text to whoever skips special tokens
ADDED = (
    PAD, "<|im_start|>", END, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
SPECIAL = ADDED[: ADDED.index("<tool_call>")]
ORDINARY = 151643  # byte-level tokens, the added ones not counted
# Qwen's: contractions, words with what stands before them, digits one by one, punctuation, line ends, spaces
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def revision(shape: dict[str, Any] = SHAPE, seed: int = 0) -> str:
    """40 hexadecimal digits, as a commit has: a changed recipe is another revision."""
    words = hashlib.sha256(WORDS.encode()).hexdigest()
    recipe = [VERSION, shape, GENERATION, PREPROCESSOR, TEMPLATE, ADDED, words, seed]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:40]


def write(root: Path, shape: dict[str, Any] = SHAPE, seed: int = 0, shard: int = SHARD) -> Path:
    """Write the repository to root/owner/name/revision, whole or not at all; nothing if it is there.

    Takes the memory of one shard and one matrix, and is the same on every machine. Raises TvgError without room.
    """
    folder = root / NAME / revision(shape, seed)
    if folder.exists():
        return folder
    partial_folder = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    try:
        partial_folder.mkdir(parents=True)
        _write_tokenizer(partial_folder)
        contents = {"config": shape, "generation_config": GENERATION, "preprocessor_config": PREPROCESSOR}
        contents |= {"chat_template": {"chat_template": TEMPLATE}}
        for name, content in contents.items():
            _write_json(partial_folder / f"{name}.json", content)
        _write_weights(partial_folder, shape, seed, shard)
        partial_folder.replace(folder)
    except OSError as error:
        raise TvgError(
            folder, "cannot write the model", got=error, expected="a folder to write to, with room for its weights",
            hint="make room, or choose another folder",
        ) from error  # fmt: skip
    return folder


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- weights


def _write_weights(folder: Path, shape: dict[str, Any], seed: int, shard: int) -> None:
    sizes = dict(parameters(shape))
    shards = list(_sharded(sizes, shard))
    named = [f"model-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy draws without Python's lock
        for name, names in zip(named, shards, strict=True):
            values = pool.map(partial(_values, seed), names, [sizes[one] for one in names])
            save_file(dict(zip(names, values, strict=True)), folder / name, {"format": "pt"})
            log.info("wrote %s", name)
    index = {
        "metadata": {"total_size": sum(2 * size.numel() for size in sizes.values())},
        "weight_map": {name: file for file, names in zip(named, shards, strict=True) for name in names},
    }
    _write_json(folder / "model.safetensors.index.json", index)


def parameters(shape: dict[str, Any]) -> Iterator[tuple[str, torch.Size]]:
    """Names as in the released files, from before the library put the text model beside the vision tower."""
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**deepcopy(shape)))
    for name, weight in model.named_parameters():
        yield name.replace("model.visual.", "visual.").replace("model.language_model.", "model."), weight.shape


def _sharded(sizes: dict[str, torch.Size], limit: int) -> Iterator[list[str]]:
    """Names in order, in runs of at most `limit` bytes in bfloat16."""
    names, filled = [], 0
    for name, size in sizes.items():
        if names and filled + 2 * size.numel() > limit:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += 2 * size.numel()
    yield names


def _values(seed: int, name: str, size: torch.Size) -> torch.Tensor:
    """Norms 1, biases 0, matrices normal; each from its own random numbers, so that the order does not matter."""
    if name.endswith("bias"):
        return torch.zeros(size, dtype=torch.bfloat16)
    if len(size) == 1:
        return torch.ones(size, dtype=torch.bfloat16)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = torch.from_numpy(rng.standard_normal(tuple(size), dtype=np.float32))
    return drawn.mul_(STD_DEVIATION).to(torch.bfloat16)


# ---------------------------------------------------------------- vocabulary


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """151,643 byte-level tokens and the merges that make them.

    Bytes, then what makes every word of `WORDS` one token, then pairs and fours of letters until it is full.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {byte: k for k, byte in enumerate(alphabet)}
    merges = []
    letters = string.ascii_lowercase
    pairs = list(itertools.product(letters, letters))
    doubles = ["".join(pair) for pair in pairs]
    for left, right in itertools.chain(_learnt(alphabet), pairs, itertools.product(doubles, doubles)):
        if len(tokens) == ORDINARY:
            break
        if left + right not in tokens:
            tokens[left + right] = len(tokens)
            merges.append((left, right))
    return tokens, merges


def _learnt(alphabet: list[str]) -> Iterator[tuple[str, str]]:
    """The merges of a tokenizer in which every word is one token, with or without a space before it."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = _pieces()
    trainer = BpeTrainer(
        vocab_size=1 << 16, min_frequency=1, show_progress=False, initial_alphabet=alphabet
    )  # fmt: skip
    tokenizer.train_from_iterator([form for word in WORDS.split() for form in (word, " " + word)], trainer)
    yield from map(tuple, json.loads(tokenizer.to_str())["model"]["merges"])


def _pieces() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated", invert=False)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _write_tokenizer(folder: Path) -> None:
    tokens, merges = vocabulary()
    tokenizer = Tokenizer(BPE(tokens, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pieces()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(name, special=name in SPECIAL, normalized=False) for name in ADDED])
    tokenizer.model.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {str(ORDINARY + k): {"content": n, **flags, "special": n in SPECIAL} for k, n in enumerate(ADDED)}
    content = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL[1:]), "bos_token": None, "clean_up_tokenization_spaces": False,
        "eos_token": END, "errors": "replace", "model_max_length": 131072, "pad_token": PAD,
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", content)
