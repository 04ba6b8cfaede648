"""`kind: filter`: a model answers every sample, and the overlap of its answers decides what is worth training on."""

import json
import logging
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tvg.model.exhausted import Work
from tvg.model.load import dtype_for, load
from tvg.model.policy import Policy, Sampling
from tvg.model.question import context
from tvg.parse import PARSERS
from tvg.progress import progress
from tvg.sample import Sample, write_lines
from tvg.segment import tiou
from tvg.select import asks, finish, histogram
from tvg.settings import FilterSettings, Gaussian, Runtime
from tvg.spec import FilterSpec
from tvg.store import Store
from tvg.train import inputs
from tvg.train.schedule import SEED_BITS, seed_of
from tvg.video.cache import FrameCache

log = logging.getLogger(__name__)


def run(spec: FilterSpec, store: Store, runtime: Runtime, device: str | None = None) -> Path:
    """Answer, choose, write samples.jsonl; returns its path. A killed run keeps the answers that it has made."""
    folder = store.stage(spec)
    folder.mkdir(parents=True, exist_ok=True)
    samples, cache = inputs.read(spec.data, store, folder)
    if not asks(spec):
        kept, rejected = choose(spec, samples, {sample.id: [0.0] for sample in samples})
        kept = [replace(sample, difficulty=None) for sample in kept]
        return finish(spec, store, kept, rejected, {"read": len(samples), "histogram": "no sample was answered"})
    overlaps = _overlaps(spec, samples, cache, store, runtime, device)
    kept, rejected = choose(spec, samples, overlaps)
    means = [statistics.fmean(values) for values in overlaps.values()]
    passed = sum(_reason(spec, statistics.fmean(values), values) is None for values in overlaps.values())
    report = {"read": len(samples), "passed": passed, "mean_tiou": statistics.fmean(means),
              "histogram": histogram(means, "mean tIoU")}  # fmt: skip
    path = finish(spec, store, kept, rejected, report)
    log.info("kept %d of %d samples; %s", len(kept), len(samples), report["histogram"])
    return path


def choose(
    settings: FilterSettings, samples: Sequence[Sample], overlaps: dict[str, list[float]]
) -> tuple[list[Sample], list[dict]]:
    """(kept, rejected rows): by thresholds, then at most `count`. Kept samples carry their difficulty, in their order.

    Where fewer than `min_count` are left, others are drawn. overlaps: sample id -> tIoU of each answer, in [0, 1].
    """
    mean = {sample.id: statistics.fmean(overlaps[sample.id]) for sample in samples}
    reasons = {sample.id: _reason(settings, mean[sample.id], overlaps[sample.id]) for sample in samples}
    left = [sample.id for sample in samples if reasons[sample.id] is None]
    taken = set(_at_most(settings, left, mean))
    reasons |= {ident: f"more than {settings.count}" for ident in left if ident not in taken}
    filling = _filling(settings, [ident for ident in reasons if ident not in taken], len(taken))
    reasons |= dict.fromkeys(filling)
    taken |= set(filling)
    kept = [replace(sample, difficulty=round(mean[sample.id], 6)) for sample in samples if sample.id in taken]
    rejected = [
        {"id": ident, "difficulty": mean[ident], "reason": reason} for ident, reason in reasons.items() if reason
    ]
    return kept, rejected


def weight(difficulty: float, gaussian: Gaussian) -> float:
    """How likely a sample is drawn, in [0, 1]; 0 for one that is never answered right (Time-R1, systems.md 2.3)."""
    return math.exp(-((difficulty - gaussian.centre) ** 2) / (2 * gaussian.width**2)) if difficulty > 0 else 0.0


def _reason(settings: FilterSettings, mean: float, overlaps: Sequence[float]) -> str | None:
    """Why a sample is not kept, or None."""
    if settings.above is not None and not mean > settings.above:
        return f"mean tIoU {mean:.3f}, not above {settings.above}"
    if settings.at_least is not None and mean < settings.at_least:
        return f"mean tIoU {mean:.3f}, below {settings.at_least}"
    if settings.at_most is not None and mean > settings.at_most:
        return f"mean tIoU {mean:.3f}, above {settings.at_most}"
    spread = statistics.stdev(overlaps) if len(overlaps) > 1 else 0.0
    if settings.spread_above is not None and not spread > settings.spread_above:
        return f"standard deviation {spread:.3f}, not above {settings.spread_above}"
    return None


def _at_most(settings: FilterSettings, left: list[str], mean: dict[str, float]) -> list[str]:
    """`count` of the ids that are left: evenly along the difficulty, or drawn without replacement."""
    if settings.gaussian:
        left = [ident for ident in left if weight(mean[ident], settings.gaussian) > 0]
    if settings.count is None or len(left) <= settings.count:
        return left
    if settings.pick == "evenly":
        falling = sorted(left, key=lambda ident: (-mean[ident], ident))
        step = (len(falling) - 1) / max(1, settings.count - 1)
        return [falling[round(k * step)] for k in range(settings.count)]

    def key(ident: str) -> float:
        """The largest of log(u) / weight are a draw without replacement, whatever the order of the samples."""
        return _log_chance(settings, ident) / (weight(mean[ident], settings.gaussian) if settings.gaussian else 1.0)

    return sorted(left, key=key, reverse=True)[: settings.count]


def _filling(settings: FilterSettings, others: list[str], taken: int) -> list[str]:
    """As many of the other ids as `min_count` is short of, drawn."""
    short = min(max(0, (settings.min_count or 0) - taken), len(others))
    if short:
        log.warning("only %d samples pass the thresholds: %d others are drawn to fill up", taken, short)
    return sorted(others, key=partial(_log_chance, settings), reverse=True)[:short]


def _log_chance(settings: FilterSettings, ident: str) -> float:
    """log(u) of a u in (0, 1) that is the sample's own."""
    return math.log((seed_of(settings.seed, "filter", ident) + 1) / (2**SEED_BITS + 1))


# ---------------------------------------------------------------- answers


def _overlaps(
    spec: FilterSpec, samples: list[Sample], cache: FrameCache, store: Store, runtime: Runtime, device: str | None
) -> dict[str, list[float]]:
    """Sample id -> tIoU of its answers, through answers.jsonl, which a killed run goes on with."""
    path = store.stage(spec) / "answers.jsonl"
    rows = _written(path)
    todo = [sample for sample in samples if sample.id not in rows]
    log.info("%d samples to answer %d times, %d answered before", len(todo), spec.num_generations, len(rows))
    if todo:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        policy = load(
            spec.model, store, device=device, dtype=dtype_for(runtime.precision, device), policy=runtime.policy,
            compiled=runtime.compile,
        )  # fmt: skip
        side_by_side = max(1, runtime.generate_batch // spec.num_generations)
        batches = [todo[start : start + side_by_side] for start in range(0, len(todo), side_by_side)]
        with path.open("a", encoding="utf-8") as out:
            for batch in progress(batches, "answering", unit="batches"):
                for row in _answers(spec, policy, batch, cache):
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                    rows[row["id"]] = row
                out.flush()
    return {sample.id: rows[sample.id]["tiou"] for sample in samples}


def _answers(spec: FilterSpec, policy: Policy, samples: list[Sample], cache: FrameCache) -> Iterator[dict]:
    contexts = [context(policy, spec.prompt, sample, cache[sample.video]) for sample in samples]
    count = spec.num_generations
    seeds = [seed_of(spec.seed, "filter", sample.id, k) for sample in samples for k in range(count)]
    sampling = Sampling(spec.max_completion_tokens, spec.temperature)
    work = Work()
    work("samples are answered", [sample.id for sample in samples], contexts)
    hint = f"lower `generate_batch` of the scale's `runtime`: {len(seeds)} at once; what is answered is kept"
    with torch.no_grad(), work.told(lambda: "filter", hint):
        ids = policy.generate([one for one in contexts for _ in range(count)], sampling, seeds)
    texts = [policy.decode(one) for one in ids]
    for k, sample in enumerate(samples):
        own = texts[k * count : (k + 1) * count]
        yield {"id": sample.id, "tiou": [overlap(spec, text, sample) for text in own], "completions": own}


def overlap(spec: FilterSpec, text: str, sample: Sample) -> float:
    """tIoU of an answer with the true segment that fits best; 0 where it cannot be read."""
    predicted = PARSERS[spec.prompt.answer.reward](text)
    if predicted is None and spec.fallback:
        predicted = PARSERS[spec.fallback](text)
    if predicted is None or not all(map(math.isfinite, predicted)):
        return 0.0
    return max((tiou(predicted, truth) for truth in sample.segments), default=0.0)


def _written(path: Path) -> dict[str, dict]:
    """The rows of a killed run; its last line may be cut short, and is then answered again."""
    rows = {}
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):
                row = json.loads(line)
                rows[row["id"]] = row
    write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows.values()))
    return rows
