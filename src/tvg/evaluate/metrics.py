"""What a prediction file scores. Every annotated query counts: a missing video or an unreadable answer is a zero.

R1@m is the share of queries with tIoU > m, as the papers write; `r1_ge_m` counts tIoU >= m, as most released code does.
Several true segments: the best one. A reversed answer overlaps nothing. All fractions in [0, 1] (systems.md 4).
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tvg.errors import TvgError
from tvg.evaluate import actions, intervals, reasoning
from tvg.evaluate.intervals import mean
from tvg.evaluate.predictions import complete, read_predictions
from tvg.sample import write_lines
from tvg.segment import Segment, soft_iou, tiou
from tvg.settings import AnswerContract
from tvg.spec import EvaluationSpec
from tvg.store import Store

log = logging.getLogger(__name__)

THRESHOLDS = (0.3, 0.5, 0.7)
HEADLINE = "r1_at_0.5"
ABSURD = 1e100  # seconds


def score(rows: Sequence[Mapping], contract: AnswerContract | None = None, extractor: Callable | None = None) -> dict:
    """All metrics of prediction rows, as metrics.json holds them.

    contract: says whether a legacy parser read the answers too, and whether they hold anchors. extractor: finds verbs,
    for rows of inversion tasks.
    """
    contract = contract or AnswerContract()
    ground = [row for row in rows if row["task"] == "ground"]
    available = [row for row in ground if row["missing"] is None]
    overall, gaps = columns(ground, contract=contract), offsets(available)
    anchored = reasoning.anchored(ground, contract)
    asked = actions.by_task(rows) if extractor else {}
    right = {task: actions.marks(found, contract, extractor) for task, found in asked.items()}
    return {
        "headline": HEADLINE,
        "n": len(ground),
        "n_scored": len(available),
        "missing": len(ground) - len(available),
        "parse_failures": sum(_read(row["predicted"]) is None for row in available),
        **_means(overall),
        **{name: mean([value for _, value in found]) if found else None for name, found in anchored.items()},
        "intervals": intervals.bootstrap([row["video"] for row in ground], overall)
        | {task: intervals.bootstrap([r["video"] for r in asked[task]], {task: right[task]})[task] for task in asked}
        | {name: _interval(found) for name, found in anchored.items() if found},
        "available_only": {"n": len(available), **_means(columns(available, contract=contract))},
        "clipped": _means(columns(ground, clip=True, formats=False)),
        "legacy": _legacy(ground, contract),
        "start_offset": _spread([start for start, _ in gaps]),
        "end_offset": _spread([end for _, end in gaps]),
        "actions": {task: actions.summary(found, right[task]) for task, found in asked.items()},
    }


def _interval(found: Sequence[tuple[str, float]]) -> list[float]:
    """Of the mean of these (video, value)."""
    videos, values = zip(*found, strict=True)
    return intervals.bootstrap(videos, {"mean": values})["mean"]


def columns(
    rows: Sequence[Mapping],
    key: str = "predicted",
    clip: bool = False,
    formats: bool = True,
    contract: AnswerContract | None = None,
) -> dict[str, list[float]]:
    """Metric name -> one value for each ground row; its mean is the metric. `clip`: truth cut at the clip's end.

    formats: what the texts are like too, of which `contract` says what was asked for.
    """
    out = _at_thresholds([_overlap(row, key, clip) for row in rows])
    if formats and any(row["completion"] is not None for row in rows):  # floors write no text
        out["format_rate"] = [float(row["format"] and row["missing"] is None) for row in rows]
        out |= reasoning.columns(rows, contract or AnswerContract())
    return out


def _at_thresholds(overlaps: list[float]) -> dict[str, list[float]]:
    out = {f"r1_at_{m}": [float(overlap > m) for overlap in overlaps] for m in THRESHOLDS}
    out |= {f"r1_ge_{m}": [float(overlap >= m) for overlap in overlaps] for m in THRESHOLDS}
    return out | {"miou": overlaps}


def means_at(overlaps: list[float]) -> dict[str, float | None]:
    """r1_at_m, r1_ge_m and miou of queries with these overlaps; None if there are no queries."""
    return _means(_at_thresholds(overlaps))


def _legacy(rows: Sequence[Mapping], contract: AnswerContract) -> dict | None:
    """The same metrics as the authors' own evaluation parser read the answers."""
    if contract.legacy is None:
        return None
    return {"parser": contract.legacy, **_means(columns(rows, "legacy", formats=False))}


def compare(first: Iterable[Mapping], second: Iterable[Mapping]) -> dict[str, dict]:
    """How much the first predictions score above the second on the same queries, with 95 % paired intervals.

    Raises TvgError if they answer different queries.
    """
    one, two = ({row["id"]: row for row in rows if row["task"] == "ground"} for rows in (first, second))
    if one.keys() != two.keys():
        raise TvgError(
            "paired comparison",
            "the two sides answer different queries",
            got=f"{len(one.keys() ^ two.keys())} ids on one side only",
            expected="the same benchmark, split and limit",
            hint="evaluate both again under one configuration",
        )
    ids = sorted(one)
    a, b = ([rows[i] for i in ids] for rows in (one, two))
    return intervals.paired([row["video"] for row in a], columns(a, formats=False), columns(b, formats=False))


def evaluate(spec: EvaluationSpec, store: Store) -> dict:
    """Score the predictions of `spec`; writes metrics.json, and missing.jsonl where videos were missing."""
    folder = store.evaluation(spec)
    rows = complete(read_predictions(folder / "predictions.jsonl"), spec, store)
    keys = ("id", "video", "task", "missing")
    missing = [{key: row[key] for key in keys} for row in rows if row["missing"] is not None]
    (folder / "missing.jsonl").unlink(missing_ok=True)
    if missing:
        write_lines(folder / "missing.jsonl", (json.dumps(row, ensure_ascii=False) for row in missing))
        log.warning(
            "%s: %d of %d answers without a video, listed in missing.jsonl", folder.name, len(missing), len(rows)
        )
    metrics = score(rows, spec.prompt.answer, _extractor(spec))
    write_lines(folder / "metrics.json", [json.dumps(metrics, indent=1, allow_nan=False)])
    log.info("%s: %s %.1f %% of %d queries", folder.name, HEADLINE, 100 * (metrics.get(HEADLINE) or 0), metrics["n"])
    return metrics


def _extractor(spec: EvaluationSpec) -> Callable | None:
    from tvg.inversion.verbs import extractor  # spaCy comes with it

    return extractor(spec.data.samples.verbs) if spec.data.samples.verbs else None


def _read(value: Sequence[float] | None) -> Segment | None:
    """A stored pair as a segment; NaN and numbers whose sums would overflow read as no answer."""
    return Segment(*value) if value is not None and all(abs(v) < ABSURD for v in value) else None


def _overlap(row: Mapping, key: str, clip: bool = False) -> float:
    predicted = _read(row[key])
    if predicted is None or row["missing"] is not None:
        return 0.0
    truths = [Segment(*segment) for segment in row["segments"]]
    return max(tiou(predicted, truth.clipped(row["duration"]) if clip else truth) for truth in truths)


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    names = [*(f"r1_at_{m}" for m in THRESHOLDS), *(f"r1_ge_{m}" for m in THRESHOLDS), "miou"]
    return {name: mean(column) if column else None for name, column in {**dict.fromkeys(names), **values}.items()}


def offsets(rows: Iterable[Mapping]) -> list[tuple[float, float]]:
    """How late each readable answer starts and ends, in seconds, against the true segment that it overlaps best.

    Where it overlaps none, against the nearest.
    """
    pairs = [(_read(row["predicted"]), [Segment(*s) for s in row["segments"]]) for row in rows]
    best = [(p, max(truths, key=lambda truth, p=p: soft_iou(p, truth))) for p, truths in pairs if p is not None]
    return [(predicted.start - truth.start, predicted.end - truth.end) for predicted, truth in best]


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p10, median, p90 = np.quantile(seconds, [0.1, 0.5, 0.9])
    return {"mean": mean(seconds), "median": float(median), "p10": float(p10), "p90": float(p90)}
