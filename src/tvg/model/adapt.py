"""What of a model is trained: the vision tower frozen but for its merger, or adapters on the language model alone."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tvg.settings import Optimiser

# The names alone (gate_proj, "all-linear") would hit the vision tower too: stack.md section 6.
TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def apply(model: torch.nn.Module, settings: Optimiser) -> torch.nn.Module:
    """The model to train: `model` itself, or with `lora` a PeftModel around it whose adapters alone are trained.

    freeze_vision freezes the vision tower and leaves its merger trained (systems.md section 8, row 31).
    """
    model.requires_grad_(True)
    model.disable_input_require_grads()  # checkpointing asked for them; a frozen tower would be gone back through
    if settings.freeze_vision:
        for name, weight in model.model.visual.named_parameters():
            weight.requires_grad_(name.startswith("merger."))
    if settings.lora is None:
        return model
    lora = LoraConfig(
        r=settings.lora.r, lora_alpha=settings.lora.alpha, lora_dropout=settings.lora.dropout, target_modules=TARGETS
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed or 0)
        adapted = get_peft_model(model, lora)
    model.disable_input_require_grads()  # peft asks again
    return adapted


def merge(model: torch.nn.Module) -> torch.nn.Module:
    """The library model with its adapters, if any, folded into the weights, in place."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model
