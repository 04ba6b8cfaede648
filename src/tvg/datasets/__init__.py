"""Data sets: raw annotations -> Samples, and where the videos come from. One module a kind, each with `Settings`
(its part of the YAML; `splits` maps each split's name to what it is), `load` and `fetch`.
"""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tvg.config import check, did_you_mean
from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.spec import Closed, DatasetIdentity

KINDS = ("charades_sta", "mini", "timerft")


@dataclass(frozen=True)
class Loaded:
    """One split. Nothing is dropped or changed in silence:

    rejected: rows that gave no sample, clipped: rows whose segment was cut to the duration; both as
    {"file", "line", "text", "reason"}. captions: video -> its dense captions in order of time, where there are any.
    """

    samples: list[Sample]
    rejected: list[dict[str, object]] = field(default_factory=list)
    clipped: list[dict[str, object]] = field(default_factory=list)
    captions: dict[str, list[tuple[Segment, str]]] | None = None


def load(identity: DatasetIdentity, split: str, folder: Path) -> Loaded:
    """The samples of a split; `folder` is where `fetch` put the data set."""
    module, settings = _open(identity)
    known = sorted(settings.splits)
    if split not in known:
        raise TvgError(
            _where(identity), "no such split", got=split, expected=", ".join(known), hint=did_you_mean(split, known)
        )
    return module.load(settings, split, folder)


def fetch(identity: DatasetIdentity, folder: Path, jobs: int) -> None:
    """Draw or download annotations and videos into `folder` and `folder`/videos; what is there already is kept."""
    module, settings = _open(identity)
    module.fetch(settings, folder, jobs)


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
