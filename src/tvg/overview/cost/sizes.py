"""How many parameters a model has, from its spec alone, and how many of them a stage trains."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from tvg.overview.cost.figures import OWN_VOCABULARY, QWEN, Architecture
from tvg.settings import Closed, Optimiser
from tvg.spec import HubModel, Model, PathModel, ScratchModel, TrainedModel

PATCH = 3 * 2 * 14 * 14  # values of a patch: RGB, two frames, 14 x 14 pixels
MERGED = 4  # patches of a visual token


class Parameters(NamedTuple):
    """Counts of parameters. vision: of the vision tower, its merger included. source: in words."""

    total: int
    vision: int
    merger: int
    shape: Architecture
    source: str


def origin(model: Model) -> Model:
    """The weights that a chain of stages began with."""
    while isinstance(model, TrainedModel):
        model = model.stage.init
    return model


def parameters(model: Model) -> Parameters | None:
    """Of the model that a spec names; None where its shape cannot be told."""
    found = _shape(origin(model))
    return _count(*found) if found else None


def trained(settings: Optimiser, counts: Parameters) -> int:
    """How many of them the stage trains: see tvg.model.adapt."""
    if settings.lora is not None:
        text = counts.shape.text
        hidden, inner, keys = text["hidden_size"], text["intermediate_size"], keys_width(text)
        ends = 2 * 2 * hidden + 2 * (hidden + keys) + 3 * (hidden + inner)  # in and out of q, o; k, v; gate, up, down
        return settings.lora.r * ends * text["num_hidden_layers"]
    return counts.total - (counts.vision - counts.merger if settings.freeze_vision else 0)


def _shape(model: Closed) -> tuple[Architecture, str] | None:
    match model:
        case HubModel():
            size = re.search(r"(?<![\d.])([37])B\b", model.hub, re.IGNORECASE)
            if size is None:
                return None
            named = f"{size[1]}B"
            return QWEN[named], f"Qwen2.5-VL-{named}'s sizes, from its config.json; which size, from the model's name"
        case ScratchModel():
            return _scratch(model), "the sizes under `scratch:` in the scale's file"
        case PathModel():
            return _written(Path(model.path) / "config.json")
        case _:
            return None


def _scratch(model: ScratchModel) -> Architecture:
    return Architecture({"vocab_size": OWN_VOCABULARY, **model.text}, model.vision, True)


def _written(path: Path) -> tuple[Architecture, str] | None:
    """The shape in a config.json: of today's library, or with the text's sizes at the top as released ones have it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        text, vision = content | content.get("text_config", {}), {**QWEN["3B"].vision, **content["vision_config"]}
        shape = Architecture(text, vision, bool(content.get("tie_word_embeddings")))
        _count(shape, str(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return shape, str(path)


def keys_width(text: dict[str, int]) -> int:
    """The width of all keys of a token."""
    return text["hidden_size"] // text["num_attention_heads"] * text["num_key_value_heads"]


def _count(shape: Architecture, source: str) -> Parameters:
    text, hidden, keys = shape.text, shape.text["hidden_size"], keys_width(shape.text)
    attention = 2 * hidden * hidden + hidden + 2 * (hidden * keys + keys)  # q with a bias, o without; k and v
    layer = attention + 3 * hidden * text["intermediate_size"] + 2 * hidden
    words = text["vocab_size"] * hidden * (1 if shape.tied else 2)
    wide, inner = shape.vision["hidden_size"], shape.vision["intermediate_size"]
    block = 4 * (wide * wide + wide) + 2 * wide + 3 * wide * inner + 2 * inner + wide
    across = MERGED * wide
    merger = wide + across * across + across + across * hidden + hidden
    vision = PATCH * wide + shape.vision["depth"] * block + merger
    total = words + text["num_hidden_layers"] * layer + hidden + vision
    return Parameters(total, vision, merger, shape, source)
