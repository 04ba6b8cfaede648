"""QVHighlights: JSON lines of {qid, query, duration, vid, relevant_windows, ...}; windows on a grid of two seconds.

A query may be true in several windows, up to 25: they are the segments of one sample, and the best one counts.
"""

import json
from functools import partial
from pathlib import Path

from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import Claim, Stock
from tvg.datasets.brought import Brought, Item, load_split, take
from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment


class Settings(Brought):
    """`kind: qvhighlights`: JSON lines; a person brings the videos, VID.mp4."""


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read folder/annotations. measure: not used. Raises TvgError: a file absent, not as pinned, or without truth."""
    return load_split(settings, split, folder, partial(_items, needs_truth=True), _read)


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Download the annotations; folder/videos is the user's to fill. jobs: not used."""
    return take(settings, folder, _items, _read, lambda sample: Claim(sample.duration))


def _items(path: Path, needs_truth: bool = False) -> list[Item]:
    """Only \\n ends a line, and the last one may lack it. Raises TvgError for the test file that is meant to be
    answered on the publisher's server: its lines have no windows.
    """
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    items = [Item(number, line, line) for number, line in enumerate(lines, 1) if line.strip()]
    if needs_truth and not any('"relevant_windows"' in item.text for item in items):
        raise TvgError(
            path, "no query has its windows", got="the file without the truth", expected="`relevant_windows` in each",
            hint="of the test split, highlight_test_with_gt.jsonl has them: name it in the data set's YAML",
        )  # fmt: skip
    return items


def _read(line: str) -> tuple[Sample, None]:
    row = json.loads(line)
    segments = tuple(Segment(*map(float, window)) for window in row["relevant_windows"])
    return Sample(
        f"qvhighlights-{row['qid']}", f"{row['vid']}.mp4", float(row["duration"]), row["query"], segments
    ), None
