"""How the released evaluators score a list of answers, and how we do: one row of PROTOCOLS each.

From their code at the commits of systems.md, which leaves out what a paper may say otherwise; systems.md 1.4, 2 and 4
and data_quirks.md 4, tested on what their own functions gave. None clips an answer or a truth to the clip.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tvg.parse import PARSERS
from tvg.segment import Segment, tiou


@dataclass(frozen=True)
class Protocol:
    """One way of scoring.

    parser: reads a completion, by name in tvg.parse.
    threshold: R1@m counts overlaps `>` m or `>=` m. Both numbers are always given; this says which one is theirs.
    segments: of several true ones the `best` counts, or only the `first` is looked at, or `each` is a query of its own.
    missing: a query without a prediction is a `zero`, or is `dropped`: it leaves the denominator without a word.
    empty_hull: what comes of two equal points, 0/0. `zero`; or `dropped`: the division raises, and the query leaves the
        denominator; or `nan`: a miss for R1, and the whole mIoU is undone. Where answer and truth are both reversed and
        overlap, `dropped` divides two negative numbers and gives 1 (theirs can be more), `nan` gives NaN.
    swap: a reversed answer is turned round; otherwise it overlaps nothing.
    """

    parser: str
    threshold: Literal[">", ">="]
    segments: Literal["best", "first", "each"] = "first"
    missing: Literal["zero", "dropped"] = "dropped"
    empty_hull: Literal["zero", "dropped", "nan"] = "zero"
    swap: bool = False

    def __str__(self) -> str:
        """For people: `whole_last, R1: IoU >= m, segments: first, ...`."""
        rules = [f"{key}: {getattr(self, key)}" for key in ("segments", "missing", "empty_hull")]
        return ", ".join([self.parser, f"R1: IoU {self.threshold} m", *rules, *(["swap"] if self.swap else [])])


PROTOCOLS: dict[str, Protocol] = {
    "strict": Protocol("strict_answer", ">", segments="best", missing="zero"),
    "timezero": Protocol("whole_last", ">=", empty_hull="dropped"),
    "time_r1": Protocol("whole_last", ">", empty_hull="nan"),
    "videochat_r1": Protocol("whole_last", ">=", empty_hull="dropped"),
    "invert4tvg": Protocol("whole_last", ">=", segments="each"),
    "tvg_r1": Protocol("time_first2", ">=", segments="best"),
    "taro": Protocol("last2", ">=", segments="best", swap=True),
}


@dataclass(frozen=True)
class Answer:
    """A prediction: the text, if there is one, else the segment read from it; neither: an answer nobody could read."""

    completion: str | None = None
    predicted: Segment | None = None

    def read(self, protocol: Protocol) -> Segment | None:
        """The segment as the protocol reads it; the text goes before a segment that another parser found in it."""
        found = self.predicted if self.completion is None else PARSERS[protocol.parser](self.completion)
        return Segment(*sorted(found)) if found is not None and protocol.swap else found


def score(
    protocol: Protocol, answers: Mapping[Hashable, Answer], truths: Mapping[Hashable, Sequence[Segment]]
) -> dict[str, float | int | str | None]:
    """The metrics of `answers` (id -> answer) to the queries `truths` (id -> at least one true segment).

    miou, r1_at_m (overlap > m), r1_ge_m (>= m): fractions in [0, 1], means over `n_scored`; None where that is 0, and
    the miou where an overlap is NaN. n: queries. n_scored: the denominator, which is n under `strict`; less where a
    protocol drops queries, more where each of several segments is a query. missing: queries without an answer.
    parse_failures: answers from which no segment could be read. timestamp_rate: the share of `n` whose reasoning names
    a time, if any answer is a text. note: what these numbers do not tell, if anything.
    Answers to other queries are not looked at.
    """
    from tvg.evaluate.metrics import means_at  # numpy comes with it

    read = {query: answers[query].read(protocol) for query in truths if query in answers}
    overlaps = [
        overlap for query in truths for overlap in _overlaps(protocol, query in read, read.get(query), truths[query])
    ]
    means = means_at(overlaps)
    return {
        **{name: None if value is None or math.isnan(value) else value for name, value in means.items()},
        "n": len(truths),
        "n_scored": len(overlaps),
        "missing": len(truths) - len(read),
        "parse_failures": sum(segment is None for segment in read.values()),
        "threshold": protocol.threshold,
        **_reasoning([answers[query].completion for query in truths if query in answers], len(truths)),
        **_note(protocol, overlaps, len(truths)),
    }


def _overlaps(protocol: Protocol, answered: bool, predicted: Segment | None, truth: Sequence[Segment]) -> list[float]:
    """What one query adds to the denominator, and how much of it is overlapped."""
    if not answered and protocol.missing == "dropped":
        return []
    asked = truth[:1] if protocol.segments == "first" else truth
    if predicted is None:
        return [0.0] * (len(asked) if protocol.segments == "each" else 1)
    found = [overlap for segment in asked if (overlap := _overlap(protocol, predicted, segment)) is not None]
    return [max(found)] if found and protocol.segments == "best" else found


def _overlap(protocol: Protocol, predicted: Segment, truth: Segment) -> float | None:
    """tIoU, but for an empty hull; None if the query leaves the denominator."""
    hull = max(predicted.end, truth.end) - min(predicted.start, truth.start)
    if hull > 0 or protocol.empty_hull == "zero":
        return tiou(predicted, truth)
    if protocol.empty_hull == "nan":
        return math.nan
    return 1.0 if hull < 0 else None


def _reasoning(texts: Sequence[str | None], n: int) -> dict[str, float]:
    from tvg.evaluate.reasoning import names_time  # the rewards come with it

    written = [text for text in texts if text is not None]
    return {"timestamp_rate": sum(map(names_time, written)) / n} if written else {}


def _note(protocol: Protocol, overlaps: Sequence[float], n: int) -> dict[str, str]:
    undone = sum(map(math.isnan, overlaps))
    if undone:
        return {"note": f"{undone} overlaps are 0/0, NaN in the authors' code: so is their mIoU, here null"}
    if len(overlaps) < n:
        return {"note": f"{n - len(overlaps)} of {n} queries are not in the denominator, as in the authors' code"}
    if len(overlaps) > n:
        return {"note": f"each of {len(overlaps)} true segments is a query of its own"}
    return {}
