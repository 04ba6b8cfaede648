"""One question about one video, and its JSON lines."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from tvg.errors import TvgError
from tvg.segment import Segment

Task = Literal["ground", "complete_verb", "recognise_action", "describe", "caption"]
INVERSION_TASKS: tuple[Task, ...] = ("complete_verb", "recognise_action", "describe")
GAP = "[]"  # where a masked query has a verb


@dataclass(frozen=True)
class Sample:
    """A query on a clip. All times in seconds from the start of the clip.

    id: unique in its split. video: file name inside the data set's video folder.
    clip: the visible part of the file, None for the whole file. duration: of the clip.
    segments: where the query is true (several for QVHighlights). task: what is asked.
    verbs: lemmas of the query as the inversion sampler takes them; None until `tvg tasks` has run, () if none.
    masked: the query with its verbs replaced by [], for `complete_verb`.
    completion: a target text, for samples that carry one (collected rollouts, cold-start traces).
    captions: dense captions of the clip, (start, end, text) in order of time, for samples that carry them.
    difficulty: mean tIoU of a model's answers, in [0, 1], where a filter has asked: the higher, the easier.
    """

    id: str
    video: str
    duration: float
    query: str
    segments: tuple[Segment, ...]
    clip: Segment | None = None
    task: Task = "ground"
    verbs: tuple[str, ...] | None = None
    masked: str | None = None
    completion: str | None = None
    captions: tuple[tuple[float, float, str], ...] | None = None
    difficulty: float | None = None

    def to_json(self) -> str:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Sample":
        row = json.loads(line)
        row["segments"] = tuple(Segment(*s) for s in row["segments"])
        row["clip"] = Segment(*row["clip"]) if row.get("clip") else None
        row["verbs"] = tuple(row["verbs"]) if row.get("verbs") is not None else None
        row["captions"] = tuple(map(tuple, row["captions"])) if row.get("captions") is not None else None
        return cls(**row)

    def with_task(self, task: Task) -> "Sample":
        return replace(self, task=task)

    @property
    def removed(self) -> str | None:
        """The query without its first verb, and without a gap in its place; None where nothing is masked.

        >>> Sample("", "", 9.0, "person opens it and sits", (), masked="person [] it and []").removed
        'person it and sits'
        """
        if self.masked is None:
            return None
        around = "(.+?)".join(map(re.escape, self.masked.split(GAP)))
        start, end = re.fullmatch(around, self.query, re.DOTALL).span(1)
        return (self.query[:start].rstrip() + self.query[end:]).strip()


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a JSONL file, in order. Raises TvgError with the line number of a broken line."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Sample.from_json(line)
            except (ValueError, KeyError, TypeError) as error:
                raise TvgError(
                    f"{path}:{number}",
                    f"not a sample ({error})",
                    got=line.strip()[:120],
                    expected="a JSON object with id, video, duration, query, segments",
                    hint="the file is written by `tvg download`; delete it and run again",
                ) from error


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write atomically; returns how many."""
    return write_lines(path, (sample.to_json() for sample in samples))


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines to a temporary name, then rename: a reader never sees half a file. Returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(line + "\n")
            count += 1
    partial.replace(path)
    return count
