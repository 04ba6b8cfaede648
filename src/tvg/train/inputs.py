"""What a training reads: samples whose videos have frames, and their contexts, made ahead of the model."""

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import torch

from tvg.errors import TvgError
from tvg.sample import Sample, read_samples, write_lines
from tvg.spec import DataSpec
from tvg.store import Store
from tvg.train import processes
from tvg.video.cache import FrameCache

log = logging.getLogger(__name__)
Made = TypeVar("Made")
MOST_SKIPPED = 0.05  # share of samples without frames above which a training would be of something else


def read(data: DataSpec, store: Store, folder: Path) -> tuple[list[Sample], FrameCache]:
    """The samples with frames, and the frames. The others are listed in folder/skipped.jsonl; many are an error."""
    path = store.chosen(data)
    samples = list(islice(read_samples(path), data.limit))
    cache = FrameCache(store.frames(data.frames))
    usable = [sample for sample in samples if sample.video in cache]
    skipped = [sample for sample in samples if sample.video not in cache]
    if processes.is_first():
        write_lines(folder / "skipped.jsonl", (_reason(sample, cache) for sample in skipped))
    if skipped:
        log.warning("%d of %d samples have no frames: %s", len(skipped), len(samples), folder / "skipped.jsonl")
    if len(skipped) > MOST_SKIPPED * len(samples):
        raise TvgError(
            path,
            "too many samples have no frames",
            got=f"{len(skipped)} of {len(samples)}, listed in {folder / 'skipped.jsonl'}",
            expected=f"at most {MOST_SKIPPED:.0%}",
            hint="fetch the missing videos, delete the frame cache's index files and run again",
        )
    return usable, cache


def _reason(sample: Sample, cache: FrameCache) -> str:
    reason = cache.failures.get(sample.video, "not in the frame cache")
    return json.dumps({"id": sample.id, "video": sample.video, "reason": reason}, ensure_ascii=False)


class Ahead(Generic[Made]):
    """Contexts by their position in the schedule; the next `depth` are made on threads while the model is at work.

    turn: the positions in the order in which they will be asked for. Threads, not worker processes: a signal to the
    whole job would kill those before the trainer can save. With 0 threads each context is made when it is asked for.
    """

    def __init__(self, make: Callable[[int], Made], turn: Sequence[int], depth: int, threads: int):
        self.make, self.turn, self.depth = make, turn, depth
        self._place = {position: place for place, position in enumerate(turn)}
        self._pool = ThreadPoolExecutor(threads, "contexts", torch.set_num_threads, (1,)) if threads else None
        self._pending: dict[int, Future[Made]] = {}

    def __call__(self, position: int) -> Made:
        if self._pool is None:
            return self.make(position)
        place = self._place[position]
        for near in self.turn[place : place + self.depth]:
            if near not in self._pending:
                self._pending[near] = self._pool.submit(self.make, near)
        return self._pending.pop(position).result()
