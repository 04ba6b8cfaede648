"""Released weights: are they in the local cache, and does the hub have them?"""

import json
from pathlib import Path

from tvg.hub import OWN
from tvg.overview.cost import reach
from tvg.spec import HubModel

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MEANING = {
    "HTTP 401": "the hub has no such repository, or asks for a token (`hf auth login`)",
    "HTTP 403": "the hub wants its terms accepted first, and a token (`hf auth login`)",
    "HTTP 404": "the hub has no such repository or revision",
}


def cached(model: HubModel) -> bool:
    """Whether config and all weights of this revision are in the local cache."""
    if _path(model, "config.json") is None:
        return False
    index = _path(model, INDEX)
    if index is None:
        return _path(model, SINGLE) is not None
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all(_path(model, name) is not None for name in shards)


def cache() -> Path:
    """Where the hub's files are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def download_command(model: HubModel) -> str:
    return f"hf download {model.hub} --revision {model.revision}"


def mend(model: HubModel) -> str:
    """What to type where the hub does not give them: our own are on no network."""
    own = model.hub.startswith(f"{OWN}/")
    return "make rehearsal" if own else f"{download_command(model)}   (where there is a network)"


def refusal(model: HubModel) -> str | None:
    """Why the hub does not give this revision; None if it does. Asks with the user's own token where there is one."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    said = reach.problem(
        f"{constants.ENDPOINT}/api/models/{model.hub}/revision/{model.revision}", build_hf_headers(), "GET"
    )
    return said and MEANING.get(said[:8], f"the hub: {said}")


def _path(model: HubModel, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.hub, name, revision=model.revision)
    return Path(found) if isinstance(found, str) and Path(found).exists() else None
