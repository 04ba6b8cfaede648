"""The whole order of a training's samples, drawn up front: a resumed run repeats it because it is a pure function."""

import hashlib
import logging
import math
import random
from collections import Counter
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


def of_each(spec: StageSpec, processes: int) -> int:
    """Samples of a step that each of so many processes reads; raises TvgError where they cannot be shared equally."""
    if per_step(spec) % processes:
        key = "batch" if isinstance(spec, SftSpec) else "prompts_per_step"
        divisors = [n for n in range(1, per_step(spec) + 1) if per_step(spec) % n == 0]
        raise TvgError(
            "several GPUs",
            "a step cannot be shared equally among them",
            got=f"{key}: {per_step(spec)} on {processes} GPUs",
            expected=f"a number of GPUs that divides it: {', '.join(map(str, divisors))}",
            hint=f"ask for another number of GPUs; another `{key}` would be another training",
        )
    return per_step(spec) // processes


def steps(spec: StageSpec, count: int) -> int:
    """Optimiser steps over `count` samples: the spec's own number, else its epochs, rounded up."""
    return spec.steps or math.ceil(spec.epochs * count / per_step(spec))


def progress(spec: StageSpec, position: int, end: int) -> float:
    """How far a training is at a position of its schedule: 0 in the first step, 1 in the last. end: the schedule's."""
    return (position // per_step(spec)) / max(1, end // per_step(spec) - 1)


def moved(first: float, last: float, done: float) -> float:
    """Linearly from `first` to `last`, `done` in [0, 1] of the way; exactly `first` where they are equal."""
    return first + done * (last - first)


def epoch_of(spec: StageSpec, samples: Sequence[Sample]) -> list[Sample]:
    """What each epoch shows, before it is ordered: the samples; for `draw: static`, with their tasks, some twice.

    A sample that carries its completion keeps the task that the completion was made under, here and in the schedule.
    """
    if spec.draw != "static":
        return list(samples)
    return [*(_asked(sample, "ground") for sample in samples), *_once_more(spec, samples)]


def names(spec: StageSpec, sample: Sample) -> tuple[str, ...]:
    """What tells a sample of an epoch from all others of it: its id, and where it may come twice its task."""
    return (sample.id, sample.task) if spec.draw == "static" else (sample.id,)


def schedule(spec: StageSpec, samples: Sequence[Sample]) -> list[Sample]:
    """The samples in the order of training, each with its task: steps x per_step of them.

    Every epoch has its own shuffle; one that goes by difficulty is shuffled first, so that equals stand in any order.
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
    _check_difficulty(spec, samples)
    size, shown = per_step(spec), epoch_of(spec, samples)
    _tell_repeated(spec, shown[len(samples) :])
    end = steps(spec, len(shown)) * size
    order = []
    for position in range(end):
        epoch, place = divmod(position, len(shown))
        if place == 0:
            epoch_order = _ordered(spec, shown, epoch)
        sample = epoch_order[place]
        if spec.draw != "static":
            drawn_for = ("step", position // size) if spec.draw == "step" else (epoch, sample.id)
            u = seed_of(spec.seed, "task", *drawn_for) / 2**SEED_BITS
            sample = _asked(sample, _draw(shares(spec, progress(spec, position, end)), u))
        order.append(sample)
    return order


def shares(spec: StageSpec, done: float) -> dict[Task, float]:
    """The share of each task, `done` in [0, 1] of the way from the first step to the last."""
    last = spec.tasks if spec.tasks_end is None else spec.tasks_end
    mixed = {task: moved(spec.tasks.get(task, 0.0), last.get(task, 0.0), done) for task in spec.every_task}
    return {task: share for task, share in mixed.items() if share > 0}


def _ordered(spec: StageSpec, shown: Sequence[Sample], epoch: int) -> list[Sample]:
    order = list(shown)
    random.Random(seed_of(spec.seed, "order", epoch)).shuffle(order)
    if spec.order != "none":  # a difficulty is an overlap: the higher, the easier
        order.sort(key=lambda sample: sample.difficulty, reverse=spec.order == "easy_to_hard")
    return order


def _once_more(spec: StageSpec, samples: Sequence[Sample]) -> list[Sample]:
    """The samples that `draw: static` repeats under the tasks other than `ground`: all of a video's, or none.

    The seed alone ranks the videos; the tasks take theirs from the top of that rank one after the other, each until one
    more video would lead away from its share. So a larger share repeats what a smaller one does, and more.
    """
    videos: dict[str, list[Sample]] = {}
    for sample in samples:
        videos.setdefault(sample.video, []).append(sample)
    rank = sorted(videos, key=lambda video: seed_of(spec.seed, "static", video), reverse=True)
    found, due = [], 0.0
    for task in (task for task in spec.tasks if task != "ground"):
        due += len(samples) * spec.tasks[task] / spec.tasks["ground"]
        while rank:
            more = [_asked(sample, task) for sample in videos[rank[-1]] if _can(sample, task)]
            if len(found) + len(more) / 2 > due:
                break
            found += more
            rank.pop()
    return found


def _can(sample: Sample, task: Task) -> bool:
    """May a task be asked about a sample? The inversion tasks need a verb, and a completion has its own."""
    return sample.completion is None and (task not in INVERSION_TASKS or bool(sample.verbs))


def _asked(sample: Sample, task: Task) -> Sample:
    """The sample under a task, or under `ground` where it has no verb for it; as it is where it has its completion."""
    if sample.completion is not None:
        return sample
    return sample.with_task(task if _can(sample, task) else "ground")


def _draw(tasks: dict[Task, float], u: float) -> Task:
    """The task whose share of [0, 1) holds `u`."""
    for task, share in tasks.items():
        u -= share
        if u < 0:
            return task
    return task


def _check_verbs(spec: StageSpec, samples: Sequence[Sample]) -> None:
    asked = [task for task in spec.every_task if task in INVERSION_TASKS]
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


def _check_difficulty(spec: StageSpec, samples: Sequence[Sample]) -> None:
    unknown = sum(sample.difficulty is None for sample in samples)
    if spec.order != "none" and unknown:
        raise TvgError(
            "training data",
            f"an order by difficulty ({spec.order}) of samples whose difficulty is not known",
            got=f"{unknown} of {len(samples)} samples without one",
            expected="samples that a filter stage has had answered",
            hint="name a stage of kind filter as `data:`, or leave out `order`",
        )


def _tell_repeated(spec: StageSpec, repeated: Sequence[Sample]) -> None:
    if spec.draw == "static":
        tasks = Counter(sample.task for sample in repeated)
        told = ", ".join(f"{count} as {task}" for task, count in tasks.items()) or "none"
        log.info("samples that every epoch repeats: %s; of %d videos", told, len({s.video for s in repeated}))
