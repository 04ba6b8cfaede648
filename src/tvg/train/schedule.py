"""The whole order of a training's samples, drawn up front: a resumed run repeats it because it is a pure function."""

import hashlib
import logging
import math
import random
from collections.abc import Sequence

from tvg.errors import TvgError
from tvg.sample import INVERSION_TASKS, Sample, Task
from tvg.spec import SftSpec, StageSpec

log = logging.getLogger(__name__)
SEED_BITS = 63


def seed_of(*parts: object) -> int:
    """A seed in [0, 2**63) from whatever names a random choice. Unlike hash(), equal on every machine and run."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)


def per_step(spec: StageSpec) -> int:
    """Samples that one optimiser step reads."""
    return spec.batch if isinstance(spec, SftSpec) else spec.prompts_per_step


def steps(spec: StageSpec, count: int) -> int:
    """Optimiser steps over `count` samples: the spec's own number, else its epochs, rounded up."""
    return spec.steps or math.ceil(spec.epochs * count / per_step(spec))


def schedule(spec: StageSpec, samples: Sequence[Sample]) -> list[Sample]:
    """The samples in the order of training, each with its task: steps x per_step of them, every epoch its own shuffle.

    A sample that carries its completion keeps the task that the completion was made under.
    """
    if not samples:
        raise TvgError(
            "training data",
            "no sample is left to train on",
            got=0,
            expected="at least one sample with frames",
            hint="look into skipped.jsonl in the stage's folder, and at the data's `limit`",
        )
    _check_verbs(spec, samples)
    size = per_step(spec)
    order = []
    for position in range(steps(spec, len(samples)) * size):
        epoch, place = divmod(position, len(samples))
        if place == 0:
            epoch_order = _shuffled(spec, samples, epoch)
        sample = epoch_order[place]
        drawn_for = ("step", position // size) if spec.draw == "step" else (epoch, sample.id)
        order.append(sample if sample.completion is not None else _with_task(spec, sample, *drawn_for))
    return order


def _shuffled(spec: StageSpec, samples: Sequence[Sample], epoch: int) -> list[Sample]:
    order = list(samples)
    random.Random(seed_of(spec.seed, "order", epoch)).shuffle(order)
    return order


def _with_task(spec: StageSpec, sample: Sample, *drawn_for: object) -> Sample:
    task = _draw(spec.tasks, seed_of(spec.seed, "task", *drawn_for) / 2**SEED_BITS)
    return sample.with_task("ground" if task in INVERSION_TASKS and not sample.verbs else task)


def _draw(tasks: dict[Task, float], u: float) -> Task:
    """The task whose share of [0, 1) holds `u`."""
    for task, share in tasks.items():
        u -= share
        if u < 0:
            return task
    return task


def _check_verbs(spec: StageSpec, samples: Sequence[Sample]) -> None:
    asked = [task for task in spec.tasks if task in INVERSION_TASKS]
    if not asked:
        return
    verbless = sum(not sample.verbs for sample in samples)
    if verbless == len(samples):
        raise TvgError(
            "training data",
            "no sample has verbs, so no inversion task can be drawn",
            got=f"tasks {', '.join(asked)}",
            expected="samples whose verbs `tvg tasks` has extracted",
            hint="name a verb back-end in the scale, or train on ground alone",
        )
    if verbless:
        log.info("%d of %d samples have no verb: they are only ever grounded", verbless, len(samples))
