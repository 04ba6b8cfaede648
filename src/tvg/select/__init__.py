"""Stages that make data: `filter` chooses samples by difficulty, `collect` keeps good completions as targets.

Each writes samples.jsonl, last, and beside it rejected.jsonl (what was left out, and why) and report.json.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tvg.errors import TvgError
from tvg.sample import Sample, write_lines, write_samples
from tvg.settings import FilterSettings
from tvg.spec import CollectSpec, FilterSpec, canonical
from tvg.store import Store

BINS = 10


def asks(settings: FilterSettings) -> bool:
    """Does any rule read the difficulty? A mere draw needs no model."""
    limits = (settings.above, settings.at_least, settings.at_most, settings.spread_above, settings.gaussian)
    return any(limit is not None for limit in limits) or settings.pick == "evenly"


def finish(
    spec: FilterSpec | CollectSpec, store: Store, kept: Sequence[Sample], rejected: Iterable[dict], report: dict
) -> Path:
    """Write the stage's files, samples.jsonl last. Raises TvgError with report["histogram"] where nothing is kept."""
    folder = store.stage(spec)
    write_lines(folder / "spec.json", [json.dumps(canonical(spec), indent=1, ensure_ascii=False)])
    write_lines(folder / "rejected.jsonl", (json.dumps(row, ensure_ascii=False) for row in rejected))
    write_lines(folder / "report.json", [json.dumps({**report, "kept": len(kept)}, indent=1)])
    if not kept:
        raise TvgError(
            folder, f"the {spec.kind} stage keeps nothing", got=f"{report['read']} read; {report['histogram']}",
            expected="at least one", hint=f"see {folder / 'rejected.jsonl'}, and loosen the stage's thresholds",
        )  # fmt: skip
    write_samples(folder / "samples.jsonl", kept)
    return folder / "samples.jsonl"


def histogram(values: Iterable[float], what: str) -> str:
    """`what: 12 in [0.0, 0.1), ...`, of the bins that hold any; the range is cut into BINS."""
    values = sorted(values)
    if not values:
        return f"{what}: none"
    low, high = values[0], values[-1]
    width = (high - low) / BINS or 1.0
    counts: dict[int, int] = {}
    for value in values:
        place = min(BINS - 1, int((value - low) / width))
        counts[place] = counts.get(place, 0) + 1
    shown = (f"{n} in [{low + k * width:.2f}, {low + (k + 1) * width:.2f}]" for k, n in sorted(counts.items()))
    return f"{what}: {', '.join(shown)}"
