"""The segment (start, end) in seconds, and every overlap of two segments that a reward or a metric uses.

Any floats are legal: loaders validate, these functions do not. 0/0 is defined as 0 everywhere.
Formulas: TimeZero, Time-R1, TaRO (released code) and TAR-TVG (article), tested on tests/vectors/overlap.json.
"""

from typing import NamedTuple


class Segment(NamedTuple):
    """A moment of a clip. `start`, `end` in seconds from the start of the clip."""

    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start

    def clipped(self, duration: float) -> "Segment":
        """The part inside [0, duration]."""
        return Segment(min(max(self.start, 0.0), duration), min(max(self.end, 0.0), duration))

    def shifted(self, by: float) -> "Segment":
        return Segment(self.start + by, self.end + by)


def soft_iou(predicted: Segment, truth: Segment) -> float:
    """Signed overlap over the hull, in (-1, 1] for ordered segments; below 0, a gap as a share of the hull (TAR-TVG).

    A reversed segment is not repaired: the formula may then leave the range.
    """
    hull = max(predicted.end, truth.end) - min(predicted.start, truth.start)
    return (min(predicted.end, truth.end) - max(predicted.start, truth.start)) / hull if hull > 0 else 0.0


def tiou(predicted: Segment, truth: Segment) -> float:
    """Overlap over the hull, in [0, 1]; equals intersection over union for ordered segments, 0 for a reversed one."""
    return max(0.0, soft_iou(predicted, truth))


def timed_iou(predicted: Segment, truth: Segment, duration: float, clamp: bool = True) -> float:
    """tIoU times how near both boundaries are, relative to the clip's `duration` in seconds (Time-R1, TaRO).

    In [0, 1] with `clamp`; the released code does not clamp, and goes negative where a boundary is off by more
    than the clip is long.
    """
    if duration <= 0:
        return 0.0
    near = [1 - abs(p - t) / duration for p, t in zip(predicted, truth, strict=True)]
    if clamp:
        near = [max(0.0, n) for n in near]
    return tiou(predicted, truth) * near[0] * near[1]
