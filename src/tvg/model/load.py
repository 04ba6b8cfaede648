"""Models by their spec, and the folder that a trained model is saved to."""

import json
import logging
import os
import re
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from tvg import spec
from tvg.errors import TvgError
from tvg.model import scratch
from tvg.model.adapt import merge
from tvg.model.pixels import processor_files
from tvg.model.plain import PlainPolicy
from tvg.model.qwen import QwenPolicy, unwrap
from tvg.model.shared import SharedPolicy
from tvg.model.tokenizer import TEMPLATE, VIDEO
from tvg.model.widths import narrow
from tvg.store import Store

log = logging.getLogger(__name__)
ARCHITECTURE = "qwen2_5_vl"


def load(
    model: spec.Model,
    store: Store,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    gradient_checkpointing: bool = False,
    policy: str = "shared",
    compiled: bool = False,
) -> QwenPolicy:
    """The policy of a spec, its weights on `device`. Raises TvgError where there are no weights, or foreign ones.

    policy, compiled: as tvg.settings.Runtime's `policy` and `compile`.
    """
    match model:
        case spec.ScratchModel():
            library, tokenizer = scratch.build(model, dtype)
        case spec.TrainedModel():
            library, tokenizer = read(store.stage(model.stage) / "model", dtype)
        case spec.PathModel():
            library, tokenizer = read(Path(model.path), dtype)
        case spec.HubModel():
            library, tokenizer = _pretrained(model.hub, dtype, revision=model.revision)
        case spec.Floor():
            raise TvgError(
                f"floor {model.floor}", "a floor has no weights", got="a floor to load",
                expected="a hub, path, scratch or stage model", hint="tvg.evaluate.predict answers floors itself",
            )  # fmt: skip
    library = library.to(device)
    torch.backends.cuda.enable_cudnn_sdp(False)  # torch 2.11 to 2.13 on Hopper: NaN gradients, pytorch issue 196678
    if gradient_checkpointing:
        library.gradient_checkpointing_enable({"use_reentrant": False})
    count = sum(weight.numel() for weight in library.parameters())
    log.info("%s model: %.1f million parameters, %s on %s", model.source, count / 1e6, dtype, device)
    if policy == "shared":
        return SharedPolicy(library, tokenizer, compiled=compiled)
    return PlainPolicy(library, tokenizer)


def named(source: str) -> spec.PathModel | spec.HubModel:
    """What a person calls a model: a folder, or owner/name or owner/name@revision on the hub."""
    name, _, revision = source.partition("@")
    if not Path(source).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return spec.HubModel(hub=name, revision=revision or "main")
    return spec.PathModel(path=source)


def dtype_for(precision: str, device: torch.device | str) -> torch.dtype:
    """The type of the weights under tvg.spec.Runtime's `precision`."""
    half = precision == "bfloat16" or (precision == "auto" and str(device).startswith("cuda"))
    return torch.bfloat16 if half else torch.float32


def read(folder: Path, dtype: torch.dtype) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model and tokenizer in a folder."""
    if not (folder / "config.json").exists():
        raise TvgError(
            folder, "no model here", got="no config.json" if folder.exists() else "no such folder",
            expected="config.json, safetensors weights and a tokenizer",
            hint="the workflow makes this model: run the target again, or `tvg unpack` it from the machine that has it",
        )  # fmt: skip
    return _pretrained(str(folder), dtype)


def _pretrained(
    source: str, dtype: torch.dtype, **revision: str
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, **revision)
        if config.model_type != ARCHITECTURE:
            raise ValueError(f"model type {config.model_type}")
        model, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **revision
        )
        tokenizer = AutoTokenizer.from_pretrained(source, **revision)
    except (OSError, ValueError) as error:
        raise TvgError(
            source, "cannot load this model", got=error, expected=f"a {ARCHITECTURE} model with safetensors weights",
            hint="check the name, the revision and the network; offline, set HF_HUB_OFFLINE=1 and fill the cache first "
            "(the model of scale `rehearsal` is on no network: `make rehearsal`)",
        ) from error  # fmt: skip
    if absent := sorted(found["missing_keys"]):
        raise TvgError(
            source, "weights are missing, and random ones would stand in for them", got=f"{len(absent)}: {absent[:3]}",
            expected="a value for every parameter", hint="download or copy the folder again",
        )  # fmt: skip
    if VIDEO not in (tokenizer.chat_template or ""):  # the released repositories keep it with the processor
        tokenizer.chat_template = TEMPLATE
    return model, tokenizer


def save(policy: QwenPolicy, folder: Path) -> None:
    """Write weights (adapters merged in place), tokenizer and processor files, whole or not at all."""
    disable_progress_bar()
    policy.model = merge(policy.model)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    narrow(unwrap(policy.model))
    unwrap(policy.model).save_pretrained(partial)
    policy.tokenizer.save_pretrained(partial)
    for name, content in processor_files().items():
        (partial / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for path in partial.iterdir():
        with path.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
