"""`kind: collect`: good completions become targets of an SFT: rollouts of a stage, or those that a data set brings."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tvg.parse import PARSERS, anchors
from tvg.sample import Sample, read_samples
from tvg.segment import soft_iou, tiou
from tvg.select import finish, histogram
from tvg.settings import CollectSettings
from tvg.spec import CollectSpec
from tvg.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A completion of a sample; reward: the rollout's, None for a data set's own completion."""

    sample: Sample
    completion: str
    reward: float | None = None


def run(spec: CollectSpec, store: Store) -> Path:
    """Choose, write samples.jsonl, each with its completion; returns its path."""
    candidates = list(_rollouts(spec, store) if spec.source else _given(spec, store))
    kept, rejected = choose(spec, spec.prompt.answer.reward, candidates)
    rewards = [one.reward for one in candidates if one.reward is not None]
    passed = sum(_reason(spec, spec.prompt.answer.reward, one) is None for one in candidates)
    report = {"read": len(candidates), "passed": passed, "yield": passed / max(1, len(candidates)),
              "histogram": histogram(rewards, "rewards")}  # fmt: skip
    path = finish(spec, store, kept, rejected, report)
    log.info("kept %d of %d completions; %s", len(kept), len(candidates), report["histogram"])
    return path


def choose(settings: CollectSettings, parser: str, candidates: list[Candidate]) -> tuple[list[Sample], list[dict]]:
    """(kept, rejected rows). A kept sample carries its completion; its id says which of several it is.

    Fewer than `min_count` that pass are filled up with the best of the others; of more than `count`, the best stay.
    """
    reasons = [_reason(settings, parser, one) for one in candidates]
    best = sorted(range(len(candidates)), key=lambda k: (reasons[k] is not None, -(candidates[k].reward or 0.0), k))
    passed = reasons.count(None)
    wanted = max(passed, min(settings.min_count or 0, len(candidates)))
    chosen = set(best[: min(wanted, settings.count or wanted)])
    kept, rejected, seen = [], [], {}
    for k, one in enumerate(candidates):
        if k not in chosen:
            reason = reasons[k] or f"more than {settings.count}"
            rejected.append({"id": one.sample.id, "reward": one.reward, "reason": reason})
            continue
        seen[one.sample.id] = number = seen.get(one.sample.id, 0) + 1
        ident = one.sample.id if number == 1 else f"{one.sample.id}.{number}"
        kept.append(replace(one.sample, id=ident, completion=one.completion))
    if wanted > passed:
        log.warning("only %d of %d pass the thresholds: the best others fill up to %d", passed, len(candidates), wanted)
    return kept, rejected


def _reason(settings: CollectSettings, parser: str, one: Candidate) -> str | None:
    """Why a completion is not kept, or None. Thresholds of rewards and anchors are strict, as published."""
    if settings.min_reward is not None and not (one.reward is not None and one.reward > settings.min_reward):
        return f"reward {one.reward}, not above {settings.min_reward}"
    found = anchors(one.completion) if settings.min_anchors or settings.min_soft_iou else []
    if len(found) < max(settings.min_anchors or 0, len(settings.min_soft_iou)):
        return f"{len(found)} anchors"
    for place, (anchor, least) in enumerate(zip(found, settings.min_soft_iou, strict=False), 1):
        best = max(soft_iou(anchor, truth) for truth in one.sample.segments)
        if not best > least:
            return f"soft IoU {best:.3f} of anchor {place}, not above {least}"
    if settings.min_tiou is not None:
        predicted = PARSERS[parser](one.completion)
        best = max((tiou(predicted, truth) for truth in one.sample.segments), default=0.0) if predicted else 0.0
        if predicted is None or best < settings.min_tiou:
            return "no readable answer" if predicted is None else f"tIoU {best:.3f}, below {settings.min_tiou}"
    return None


def _given(spec: CollectSpec, store: Store) -> Iterator[Candidate]:
    for sample in islice(read_samples(store.chosen(spec.data)), spec.data.limit):
        if sample.completion is not None:
            yield Candidate(sample, sample.completion)


def _rollouts(spec: CollectSpec, store: Store) -> Iterator[Candidate]:
    """Every grounding rollout of the stage, in the order of training."""
    import pandas

    samples = {sample.id: sample for sample in read_samples(store.chosen(spec.data))}
    for path in sorted((store.stage(spec.source) / "completions").glob("step-*.parquet")):
        for row in pandas.read_parquet(path).itertuples():
            if row.task == "ground":
                yield Candidate(samples[row.id].with_task("ground"), row.completion, row.reward)
