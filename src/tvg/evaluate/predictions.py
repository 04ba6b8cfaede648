"""The prediction file of an evaluation: read, checked, and completed to every annotated query."""

import json
import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from tvg.errors import TvgError
from tvg.sample import Sample, read_samples
from tvg.segment import Segment
from tvg.spec import EvaluationSpec
from tvg.store import Store

log = logging.getLogger(__name__)

FIELDS = (
    "id",
    "video",
    "task",
    "query",
    "segments",
    "duration",
    "verbs",
    "completion",
    "predicted",
    "legacy",
    "format",
)


def read_predictions(path: Path) -> list[dict]:
    """The rows of a predictions file. Raises TvgError with the number of a broken line, or if there is none."""
    rows = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                rows.append({"missing": None, **json.loads(line)})
                if absent := [field for field in FIELDS if field not in rows[-1]]:
                    raise ValueError(f"line {number} lacks {', '.join(absent)}")
    except (OSError, ValueError, TypeError) as error:
        raise TvgError(
            path,
            "cannot read these predictions",
            got=error,
            expected="JSON lines that `tvg predict` wrote",
            hint="delete the file and run the evaluation again",
        ) from error
    return rows


def as_sample(row: Mapping) -> Sample:
    """The query that a row answers, with its truth."""
    return Sample(
        id=row["id"],
        video=row["video"],
        duration=row["duration"],
        query=row["query"],
        task=row["task"],
        segments=tuple(Segment(*segment) for segment in row["segments"]),
        verbs=None if row["verbs"] is None else tuple(row["verbs"]),
    )


def complete(rows: list[dict], spec: EvaluationSpec, store: Store) -> list[dict]:
    """The rows, and a missing one for each annotated query that has none, so that the denominator never shrinks.

    Raises TvgError if a query is answered twice or is not of this benchmark.
    """
    where = store.evaluation(spec) / "predictions.jsonl"
    seen = {(row["id"], row["task"]): row for row in rows}
    if len(seen) != len(rows):
        raise TvgError(
            where,
            "a query is answered twice",
            got=f"{len(rows)} rows",
            expected=f"{len(seen)} rows",
            hint="delete the file and run the evaluation again",
        )
    annotations = store.samples(spec.data.samples)
    if not annotations.exists():
        log.warning("%s: annotations absent here, so queries without any prediction cannot be counted", annotations)
        return rows
    samples = {sample.id: sample for sample in islice(read_samples(annotations), spec.data.limit)}
    if strange := {row["id"] for row in rows} - samples.keys():
        raise TvgError(
            where,
            "predictions for other queries",
            got=f"{len(strange)} ids, such as {min(strange)}",
            expected=f"ids of {annotations}",
            hint="delete the file and run the evaluation again",
        )
    wanted = [(s, t) for s in samples.values() for t in spec.settings.tasks if t == "ground" or s.verbs]
    return rows + [unanswered(sample, task) for sample, task in wanted if (sample.id, task) not in seen]


def unanswered(sample: Sample, task: str) -> dict:
    """The row of a query without an answer."""
    return {
        "id": sample.id,
        "video": sample.video,
        "task": task,
        "query": sample.query,
        "duration": sample.duration,
        "segments": [list(segment) for segment in sample.segments],
        "verbs": list(sample.verbs or ()) or None,
        "completion": None,
        "predicted": None,
        "legacy": None,
        "format": False,
        "missing": "no prediction",
        "tokens": 0,
    }
