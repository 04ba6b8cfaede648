"""Data sets: raw annotations -> Samples, and where the videos come from. One module a kind, each with `Settings` (its
part of the YAML; `splits` maps each split's name to what it is), `load(settings, split, folder, measure)` -> Loaded and
`fetch(settings, folder, jobs)` -> Stock.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from tvg.config import check, did_you_mean
from tvg.datasets.adopt import Fetched, Measure, take_stock
from tvg.datasets.audit import Loaded
from tvg.errors import TvgError
from tvg.settings import Closed
from tvg.spec import DatasetIdentity

KINDS = ("captions_json", "charades_sta", "didemo", "jsonl", "mini", "qvhighlights", "timerft", "tvgbench")
__all__ = ["KINDS", "Fetched", "Loaded", "Measure", "check_settings", "fetch", "load"]


def load(
    identity: DatasetIdentity, split: str, folder: Path, measure: Measure | None = None, listing: Path | None = None
) -> Loaded:
    """The samples of a split; `folder` is where `fetch` put the data set.

    measure: how long videos are, for a kind that takes what the rows do not say from the files. listing: rejected and
    clipped rows are written beside this path, before too many of them are an error. Raises TvgError.
    """
    module, settings = _open(identity)
    known = sorted(settings.splits)
    if split not in known:
        raise TvgError(
            _where(identity), "no such split", got=split, expected=", ".join(known), hint=did_you_mean(split, known)
        )
    loaded = module.load(settings, split, folder, measure)
    if listing is not None:
        loaded.list_problems(listing)
    loaded.check_loss(f", listed in {listing.with_suffix('.rejected.jsonl')}" if listing else "")
    return loaded


def fetch(identity: DatasetIdentity, folder: Path, jobs: int, measure: Measure, listing: Path) -> Fetched:
    """Draw or download annotations and videos into `folder` and `folder`/videos; what is there already is adopted.

    Where all is there, nothing is written but `listing`, the videos that are absent or not as annotated: the folder
    may be read-only. Raises TvgError when too many are.
    """
    module, settings = _open(identity)
    return take_stock(module.fetch(settings, folder, jobs), measure, listing)


def check_settings(identity: DatasetIdentity) -> None:
    """Raises TvgError where the data set's YAML is not what its kind takes; reads no other file."""
    _open(identity)


def _open(identity: DatasetIdentity) -> tuple[ModuleType, Closed]:
    if identity.kind not in KINDS:
        raise TvgError(
            _where(identity), "unknown kind of data set", got=identity.kind, expected=", ".join(KINDS),
            hint=did_you_mean(identity.kind, list(KINDS)),
        )  # fmt: skip
    module = import_module(f"{__name__}.{identity.kind}")
    return module, check(module.Settings, identity.settings, _where(identity))


def _where(identity: DatasetIdentity) -> str:
    return f"config/datasets/{identity.name}.yaml"
