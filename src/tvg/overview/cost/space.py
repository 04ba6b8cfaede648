"""What a plan downloads, and what stays on disk: bytes, each with where its number comes from."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from tvg.overview.cost import weights
from tvg.overview.cost.counts import Counts
from tvg.overview.cost.figures import ARCHIVES, SECONDS
from tvg.overview.cost.sizes import Parameters, parameters, trained
from tvg.overview.layout import amount
from tvg.sample import read_samples
from tvg.settings import Closed, FramesSettings, Runtime
from tvg.spec import DatasetIdentity, FramesSpec, HubModel, StageSpec
from tvg.store import Store
from tvg.video.budget import fit, pixel_cap

CHECKPOINTS = 3  # two kept and one being written: tvg.train.checkpoints
SINGLE, HALF = 4, 2  # bytes of a float32, of a bfloat16
RGB = 3  # bytes of a pixel in the frame cache


@dataclass(frozen=True)
class Item:
    """Something that is downloaded or kept. size: bytes, None if nothing tells. where: data, results or cache."""

    what: str
    size: float | None
    source: str
    where: str
    most: bool = False


# ---------------------------------------------------------------- downloads


def downloads(store: Store, counts: Counts, specs: Iterable[Closed], models: Iterable[Closed]) -> list[Item]:
    """Data sets and released weights that are not here yet. models: those that something will still load."""
    found = []
    for spec in specs:
        if isinstance(spec, DatasetIdentity) and not store.fetched(spec).exists():
            found += _data(store, counts, spec)
    return found + released(models)


def released(models: Iterable[Closed]) -> list[Item]:
    """Weights on the hub that are not in its cache here."""
    hubs = {model for model in models if isinstance(model, HubModel)}
    return [_weights(model) for model in sorted(hubs, key=lambda m: m.hub) if not weights.cached(model)]


def _weights(model: HubModel) -> Item:
    counts = parameters(model)
    if counts is None:
        return Item(f"weights {model.hub}", None, "the size of the model cannot be told", "cache")
    source = f"{amount(counts.total)} parameters x 2 bytes, bfloat16 ({counts.source})"
    return Item(f"weights {model.hub}", counts.total * HALF, source, "cache")


def _data(store: Store, counts: Counts, identity: DatasetIdentity) -> Iterator[Item]:
    """Archives of videos; annotation files are text, and small."""
    folder, wanted = store.videos(identity), counts.all_videos(identity)
    here = sum(1 for _ in folder.glob("*")) if folder.is_dir() else 0
    if wanted.value is not None and here >= wanted.value and not wanted.most:
        return
    for url in archives(identity):
        path = store.dataset(identity) / url.rsplit("/", 1)[-1]
        if path.exists():
            continue
        known = ARCHIVES.get(url)
        source = known.source if known else f"the size of {url} is not known"
        yield Item(f"{path.name} of {identity.name}", known.value if known else None, source, "data")


def archives(identity: DatasetIdentity) -> list[str]:
    """Addresses of what is not under `files:`, the annotations."""
    return sorted(set(urls({key: value for key, value in identity.settings.items() if key != "files"})))


def urls(settings: Any) -> Iterator[str]:
    """Every value of a key `url`, at any depth."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key == "url" and isinstance(value, str):
                yield value
            else:
                yield from urls(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from urls(value)


def by_hand(store: Store, specs: Iterable[Closed]) -> list[str]:
    """Data sets whose videos nobody may pass on: the user brings them. Where from, and where to."""
    return [
        f"{spec.name}: bring the videos yourself, into {store.videos(spec)} (from {spec.settings['videos_from']})"
        for spec in specs
        if isinstance(spec, DatasetIdentity) and "videos_from" in spec.settings and not store.fetched(spec).exists()
    ]


# ---------------------------------------------------------------- what stays


def kept(
    store: Store,
    counts: Counts,
    specs: Iterable[Closed],
    models: Iterable[Closed],
    runtime: Runtime,
    stages: Iterable[StageSpec],
) -> list[Item]:
    """What will lie there more than now. stages: those that will be trained; specs, models: as for `downloads`."""
    specs = list(specs)
    items = [item for spec in specs if isinstance(spec, DatasetIdentity) for item in _videos(store, counts, spec)]
    items += released(models)
    items += [_frames(store, counts, spec) for spec in specs if isinstance(spec, FramesSpec)]
    items += _models(list(stages), runtime)
    return [item for item in items if item.size != 0]


def while_training(stages: Iterable[StageSpec]) -> Item | None:
    """Checkpoints of the largest training, which go when it ends."""
    found = [(size, text) for size, text in map(_checkpoints, stages) if size]
    if not found:
        return None
    size, text = max(found)
    return Item("checkpoints of each training that runs", size, text, "results")


def model_bytes(spec: StageSpec, counts: Parameters, runtime: Runtime) -> int:
    """The weights that a stage saves: float32, but under adapters the type that the base was loaded in."""
    half = spec.lora is not None and runtime.precision != "float32"
    return counts.total * (HALF if half else SINGLE)


def _checkpoints(spec: StageSpec) -> tuple[float, str]:
    counts = parameters(spec.init) if hasattr(spec, "init") else None
    if counts is None:
        return 0.0, ""
    learning = trained(spec, counts)
    source = f"{amount(learning)} trained parameters x 12 bytes (float32, two moments of AdamW)"
    return CHECKPOINTS * 3 * SINGLE * learning, f"{source} x {CHECKPOINTS}: two are kept, a third is being written"


def _models(stages: list[StageSpec], runtime: Runtime) -> Iterator[Item]:
    """One line for all models of a size."""
    sizes: dict[tuple[float | None, str], int] = {}
    for spec in stages:
        if not hasattr(spec, "init"):
            continue
        key = _model(spec, runtime)
        sizes[key] = sizes.get(key, 0) + 1
    for (size, source), count in sizes.items():
        total = None if size is None else size * count
        yield Item(f"weights of {count} trained stage{'s' * (count > 1)}", total, source, "results")


def _model(spec: StageSpec, runtime: Runtime) -> tuple[float | None, str]:
    counts = parameters(spec.init)
    if counts is None:
        return None, "the size of the model cannot be told"
    each = model_bytes(spec, counts, runtime)
    kind = "float32" if each == counts.total * SINGLE else "bfloat16"
    return each, f"{amount(counts.total)} parameters in {kind}, as stages save them ({counts.source})"


def _videos(store: Store, counts: Counts, identity: DatasetIdentity) -> Iterator[Item]:
    if store.fetched(identity).exists():
        return
    if identity.kind == "mini":
        from tvg.datasets.mini import KILOBYTES

        side = identity.settings.get("side", 0)
        known = KILOBYTES if side == 112 else None  # what the note in mini.yaml is about
        count = counts.all_videos(identity).value or 0
        source = f"about {KILOBYTES} kB a video, config/datasets/mini.yaml" if known else (
            f"a drawn video of {side} pixels a side was not measured"
        )  # fmt: skip
        yield Item(f"drawn videos of {identity.name}", known and known * 1e3 * count, source, "data")
        return
    for item in _data(store, counts, identity):
        yield item
        if item.size is not None:
            source = (
                "at most the archive's size, since MP4 does not shrink in a zip and only the videos in use are "
                "unpacked; the archive may be deleted then"
            )
            yield Item(f"unpacked videos of {identity.name}", item.size, source, "data", most=True)


def _frames(store: Store, counts: Counts, spec: FramesSpec) -> Item:
    """A frame cache, less the shards that are whole."""
    folder = store.frames(spec)
    indices = sorted(folder.glob("*-of-*.json"))
    of = int(indices[0].stem.rsplit("-", 1)[-1]) if indices else 1
    missing, videos = 1 - len(indices) / of if indices else 1.0, counts.videos(spec)
    each, source, most = bytes_a_video(store, spec)
    size = None if videos.value is None else videos.value * each * missing
    told = f"{videos.value:,} videos ({videos.source})" if videos.value is not None else videos.source
    what = f"frames of {spec.dataset.name}"
    return Item(what, size, f"{told} x {each / 1e6:.2g} MB: {source}", "results", most=most or videos.most)


def bytes_a_video(store: Store, spec: FramesSpec) -> tuple[float, str, bool]:
    """Bytes of a video's frames, from the pixel budget; where from; whether it is the most that it can be."""
    settings, side = spec.frames, spec.dataset.settings.get("side")
    rgb = f"uint8 RGB at {settings.fps:g} frames a second"
    if side and spec.dataset.kind == "mini":
        seconds = mean(spec.dataset.settings["duration"])
        count = frame_count(seconds, settings)
        height, width = fit(side, side, count, settings)
        return count * height * width * RGB, f"{rgb}, {height} x {width} pixels, {seconds:g} s on average", False
    seconds, source = _mean_seconds(store, spec)
    if seconds is not None:
        count = frame_count(seconds, settings)
        told = f"{rgb}, {seconds:.1f} s on average ({source}), each frame as large as the pixel budget lets it be"
        return count * pixel_cap(count, settings) * RGB, told, True
    most = max(n * pixel_cap(n, settings) * RGB for n in range(settings.min_frames, settings.max_frames + 1))
    return most, f"{rgb}, the most that the pixel budget lets any video have", True


def frame_count(seconds: float, settings: FramesSettings) -> int:
    """How many frames a video of so many seconds is sampled to, about."""
    return min(settings.max_frames, max(settings.min_frames, math.ceil(seconds * settings.fps)))


def _mean_seconds(store: Store, spec: FramesSpec) -> tuple[float | None, str]:
    """The mean duration of a data set's videos, from annotations that are here, else as published."""
    durations: dict[str, float] = {}
    for path in store.root.glob(f"samples/{spec.dataset.name}.*.jsonl"):
        if path.name.count(".") == 2:  # a split's samples; not .verbless, .rejected, .clipped, nor the same with verbs
            durations |= {s.video: s.duration for s in read_samples(path) if s.clip is None}
    if durations:
        return mean(durations.values()), "the samples in the store"
    known = SECONDS.get(spec.dataset.name)
    return (known.value, known.source) if known else (None, "")


def room(path: Path) -> Path:
    """The nearest folder above a path that exists: what its disk has is what the path will have."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def total(items: Iterable[Item]) -> tuple[float, list[Item]]:
    """The bytes of what is known, and what is not known."""
    items = list(items)
    return sum(item.size or 0 for item in items), [item for item in items if item.size is None]
