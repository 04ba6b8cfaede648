"""How many samples, completions, questions, steps and videos a plan is about, from the best source that there is."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tvg import datasets
from tvg.overview.cost.figures import VIDEOS
from tvg.overview.states import lines, read_json
from tvg.sample import INVERSION_TASKS, read_samples
from tvg.select import asks
from tvg.settings import Closed
from tvg.spec import (
    CollectSpec,
    DatasetIdentity,
    DataSpec,
    DataStageSpec,
    EvaluationSpec,
    FilterSpec,
    Floor,
    FramesSpec,
    SamplesSpec,
    SftSpec,
    StageSpec,
)
from tvg.store import Store, identify


class Count(NamedTuple):
    """A number, None if nothing tells it; most: it may be fewer. source: in words."""

    value: int | None
    source: str
    most: bool = False


class Counts:
    """Counts of one store; files are read once."""

    def __init__(self, store: Store):
        self.store = store
        self._known: dict[str, Count] = {}  # by id: a spec holds mappings, and cannot be a key

    def samples(self, data: DataSpec) -> Count:
        """What a training, a choice or an evaluation reads."""
        found = self._once(data.made_by, self._kept) if data.made_by else self._once(data.samples, self._split)
        if data.limit is None or found.value is None:
            return found
        return found._replace(value=min(found.value, data.limit))

    def steps(self, spec: StageSpec) -> Count:
        """Optimiser steps of a training, as tvg.train.schedule counts them."""
        if spec.steps:
            return Count(spec.steps, "the stage's own number")
        count = self.samples(spec.data)
        if count.value is None:
            return count
        told, shown = "", float(count.value)
        if spec.draw == "static":
            told, shown = ", and what each epoch repeats of them, to whole videos", shown / spec.tasks["ground"]
        return count._replace(value=math.ceil(spec.epochs * shown / per_step(spec)), source=count.source + told)

    def read(self, spec: DataStageSpec) -> Count:
        """What a filter or a collect stage chooses among: samples, or completions."""
        found = read_json(self.store.stage(spec) / "report.json").get("read")
        if found is not None:
            return Count(found, "the choice's own report")
        return self._rollouts(spec.source) if isinstance(spec, CollectSpec) and spec.source else self.samples(spec.data)

    def answers(self, spec: DataStageSpec) -> Count:
        """How many answers a model gives for a choice: of a filter, `num_generations` to each sample."""
        if not (isinstance(spec, FilterSpec) and asks(spec)):
            return Count(0, "no model is asked")
        count = self.read(spec)
        return count._replace(value=count.value and count.value * spec.num_generations)

    def questions(self, spec: EvaluationSpec) -> Count:
        """What an evaluation asks. Every sample as every task; the inversion tasks only where the query has a verb."""
        return self._once(spec, self._questions)

    def _once(self, spec: Closed, count: Callable[[Any], Count]) -> Count:
        ident = identify(spec)
        if ident not in self._known:
            self._known[ident] = count(spec)
        return self._known[ident]

    def _split(self, spec: SamplesSpec) -> Count:
        plain = spec.model_copy(update={"verbs": None, "verbs_version": None})
        for path in (self.store.samples(spec), self.store.samples(plain)):
            if path.exists():
                return Count(lines(path), "the samples in the store")
        name = spec.dataset.name
        if spec.dataset.kind == "mini":
            drawn = datasets.load(spec.dataset, spec.split, self.store.dataset(spec.dataset))
            return Count(len(drawn.samples), f"the scripts of {name}, which are drawn from its seed")
        rows = _of_split(spec.dataset, spec.split).get("rows")
        if rows:
            return Count(rows, f"`rows` in config/datasets/{name}.yaml, before cleaning", most=True)
        own = _own_file(spec.dataset, spec.split)
        if own is not None and own.exists():
            return Count(lines(own), f"the lines of {own}, before cleaning", most=True)
        return Count(None, f"config/datasets/{name}.yaml states no `rows`, and its annotations are not here yet")

    def _kept(self, spec: DataStageSpec) -> Count:
        """What a choice has kept; before it is made, the most that it can keep."""
        path = self.store.stage(spec) / "samples.jsonl"
        if path.exists():
            return Count(lines(path), f"the samples that the {spec.kind} stage has kept")
        count = self.read(spec)
        if spec.count is not None and (count.value is None or count.value > spec.count):
            return Count(spec.count, f"`count` of the {spec.kind} stage, which keeps no more", most=True)
        return count._replace(source=f"no more than the {spec.kind} stage reads: {count.source}", most=True)

    def _rollouts(self, spec: StageSpec) -> Count:
        """The grounding rollouts of a whole training."""
        steps, mixed = self.steps(spec), spec.every_task != ["ground"]
        most = steps.most or mixed
        told = "the rollouts of all its source's steps" + (", whatever their task" if mixed else "")
        value = steps.value and steps.value * per_step(spec) * spec.num_generations
        return Count(value, f"{told} ({steps.source})", most)

    def _questions(self, spec: EvaluationSpec) -> Count:
        inverted = [task for task in spec.settings.tasks if task in INVERSION_TASKS]
        path = self.store.samples(spec.data.samples)
        if not path.exists():
            count = self.samples(spec.data)
            total = count.value and count.value * len(spec.settings.tasks)
            return count._replace(value=total, most=count.most or bool(inverted))
        rows = islice(read_samples(path), spec.data.limit)
        with_verbs = [bool(sample.verbs) for sample in rows]
        others = len(spec.settings.tasks) - len(inverted)
        return Count(len(with_verbs) * others + sum(with_verbs) * len(inverted), "the samples in the store")

    def videos(self, frames: FramesSpec) -> Count:
        """The videos of a frame cache."""
        every, limit = self.all_videos(frames.dataset), frames.limit
        if limit is None or (every.value is not None and every.value <= limit):
            return every
        return Count(limit, f"`limit`: at most one video for each of {limit} samples", most=True)

    def all_videos(self, identity: DatasetIdentity) -> Count:
        """All videos of a data set."""
        if listed := read_json(self.store.fetched(identity)).get("videos"):
            return Count(listed, "the videos that are here")
        if identity.kind == "mini":
            return Count(sum(identity.settings["splits"].values()), f"`splits` in config/datasets/{identity.name}.yaml")
        if known := VIDEOS.get(identity.name):
            return Count(int(known.value), known.source)
        if identity.kind == "jsonl" and (folder := self.store.videos(identity)).is_dir():
            return Count(sum(1 for _ in folder.iterdir()), f"no more videos than files in {folder}", most=True)
        splits = [_of_split(identity, split) for split in identity.settings.get("splits", {})]
        videos, rows = ([split.get(key) for split in splits] for key in ("videos", "rows"))
        if videos and all(videos):  # one video may be in two splits
            return Count(sum(videos), f"`videos` in config/datasets/{identity.name}.yaml", most=len(videos) > 1)
        if rows and all(rows):
            return Count(sum(rows), f"no more videos than `rows` in config/datasets/{identity.name}.yaml", most=True)
        return Count(None, f"nothing says how many videos {identity.name} has")


def per_step(spec: StageSpec) -> int:
    """Samples that one optimiser step reads."""
    return spec.batch if isinstance(spec, SftSpec) else spec.prompts_per_step


def asks_a_model(spec: EvaluationSpec) -> bool:
    return not isinstance(spec.model, Floor)


def _own_file(identity: DatasetIdentity, split: str) -> Path | None:
    """The user's own rows of a split."""
    file = _of_split(identity, split).get("file")
    return Path(file).expanduser() if isinstance(file, str) else None


def _of_split(identity: DatasetIdentity, split: str) -> dict:
    """What the YAML says of a split: for some kinds a mapping, for others a number."""
    found = identity.settings.get("splits", {})
    found = found.get(split) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
