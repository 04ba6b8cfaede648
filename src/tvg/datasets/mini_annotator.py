"""What the systems took from outside, drawn with the faults of a real annotator: dense captions (TaRO), and reasoning
that ends in an answer (TVG-R1's cold start). Both had a large model write them.

Pure: an event is its true segment and its one wording. Every rate is a setting, and a rate that is raised adds faults
without moving the others, because each event and each trace draws the same random numbers whatever the rates are.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeFloat, model_validator

from tvg.config import Name
from tvg.segment import Segment
from tvg.settings import Closed

Share = Annotated[float, Field(ge=0, le=1)]
Event = tuple[Segment, str]
Fault = Literal["elsewhere", "unreadable", "untagged", "truncated"]
FAULTS: tuple[Fault, ...] = ("elsewhere", "unreadable", "untagged", "truncated")

LEFT = 0.45  # most of an event's length that one boundary moves, so that some of the event is left
CLOSER = 0.2  # the same for the one event that is asked for: such an answer keeps a tIoU of 0.6, a sound one
SENTENCES = 3  # of the reasoning, so that it fits into the 48 tokens of the mini scale
UNREADABLE = ("from {start:.2f} to {end:.2f}", "{start:.2f}s, {end:.2f}s", "about {start:.0f} seconds")


class Annotator(Closed):
    """Whom the splits were given to, and how often the answers are wrong."""

    captions: tuple[Name, ...] = ()
    """splits whose samples carry dense captions of their video"""
    traces: tuple[Name, ...] = ()
    """splits whose samples carry a completion: reasoning and an answer in TVG-R1's form"""
    missed: Share
    """share of the events that no caption tells"""
    wrong_verb: Share
    """share of the captions that name another verb"""
    off_by: NonNegativeFloat
    """seconds that a boundary may be off, either way"""
    corrupted: Share | None = None
    """share of the traces that are no use: a segment elsewhere, an unreadable answer, no tags, the end cut off"""

    @model_validator(mode="after")
    def rate_of_traces(self) -> "Annotator":
        if bool(self.traces) != (self.corrupted is not None):
            raise ValueError("corrupted: the rate of the splits under `traces`: both or neither")
        return self


class Trace(NamedTuple):
    """A completion; fault: what is wrong with it, None if nothing."""

    text: str
    fault: Fault | None


def dense_captions(
    annotator: Annotator, events: Sequence[Event], wordings: Sequence[str], duration: float, rng: np.random.Generator
) -> tuple[tuple[float, float, str], ...]:
    """Captions (start, end, text) of a video's events in order of time, seconds in tenths; () where all are missed.

    wordings: of all events that there are, for the wrong ones.
    """
    told = []
    for segment, text in events:
        missed, wrong, which, *moves = rng.random(5).tolist()
        if missed < annotator.missed:
            continue
        if wrong < annotator.wrong_verb:
            others = [other for other in wordings if other != text]
            text = others[int(which * len(others))]
        start, end = _moved(segment, min(annotator.off_by, LEFT * segment.length), moves, duration)
        told.append((round(start, 1), round(end, 1), text))
    return tuple(sorted(told))


def trace(
    annotator: Annotator,
    asked: Segment,
    events: Sequence[Event],
    captions: Sequence[tuple[float, float, str]],
    duration: float,
    rng: np.random.Generator,
) -> Trace:
    """Reasoning through what comes before the asked segment, as captioned, then the answer, with two decimals.

    A sound one has a tIoU of 0.6 or more with `asked`; one elsewhere below 0.1; of the others `time_json` reads none.
    """
    spoilt, kind, which, cut, *moves = rng.random(6).tolist()
    fault = FAULTS[int(kind * len(FAULTS))] if spoilt < (annotator.corrupted or 0.0) else None
    said = [text.rstrip(".") for segment, text in events if asked.start <= segment.start < asked.end]
    place = _elsewhere(asked, events, duration, which) if fault == "elsewhere" else asked
    start, end = _moved(place, min(annotator.off_by, CLOSER * place.length), moves, duration)
    before = [text for first, last, text in captions if (first + last) / 2 < place.start]
    before = before[len(before) - min(len(before), SENTENCES - len(said)) :]
    walk = [f"{word} {text}" for word, text in zip(("First", "Then"), before, strict=False)]
    think = " ".join([*walk, f"From {start:.2f} to {end:.2f} {', then '.join(said)}."])
    pair = f"[{start:.2f}, {end:.2f}]"
    match fault:
        case "unreadable":
            pair = UNREADABLE[int(which * len(UNREADABLE))].format(start=start, end=end)
        case "untagged":
            return Trace(f"<think>{think}</think> {pair}" if which < 0.5 else f"{think} {pair}", fault)
    text = f"<think>{think}</think> <time>{pair}</time>"
    if fault == "truncated":
        text = text[: 1 + int(cut * text.index("</time>"))]
    return Trace(text, fault)


def _moved(segment: Segment, reach: float, moves: Sequence[float], duration: float) -> Segment:
    """Both boundaries off by up to `reach` seconds, inside the video. moves: two numbers in [0, 1)."""
    start, end = (time + reach * (2 * move - 1) for time, move in zip(segment, moves, strict=True))
    return Segment(max(0.0, start), min(duration, end))


def _elsewhere(asked: Segment, events: Sequence[Event], duration: float, which: float) -> Segment:
    """Another event, or, where there is none, what lies before or after the asked one."""
    others = [segment for segment, _ in events if segment.end <= asked.start or segment.start >= asked.end]
    if others:
        return others[int(which * len(others))]
    return max(Segment(0.0, asked.start), Segment(asked.end, duration), key=lambda segment: segment.length)
