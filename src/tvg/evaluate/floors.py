"""Answers without any video: the numbers to beat before a model's number means anything (systems.md 2.1)."""

from collections.abc import Sequence

import numpy as np

from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment

GRID = 20  # windows start and end on twentieths of the clip


def whole_video(duration: float) -> Segment:
    """The whole clip, `duration` in seconds."""
    return Segment(0.0, duration)


def constant_window(window: tuple[float, float], duration: float) -> Segment:
    """The same part of every clip; `window` in fractions of its duration."""
    return Segment(window[0] * duration, window[1] * duration)


def fit_constant_window(samples: Sequence[Sample]) -> tuple[float, float]:
    """The window (start, end), in fractions of the clip, with the best mean tIoU on `samples`; the earliest of equals.

    A query with several segments counts its best one, as in the metrics. Raises TvgError without samples.
    """
    if not samples:
        raise TvgError(
            "constant window",
            "nothing to fit on",
            got="0 samples",
            expected="the training split",
            hint="check the data role that the floor fits on",
        )
    spans = np.array([segment for sample in samples for segment in sample.segments])
    durations = np.repeat([sample.duration for sample in samples], [len(sample.segments) for sample in samples])
    first = np.cumsum([0, *(len(sample.segments) for sample in samples[:-1])])
    windows = [(a / GRID, b / GRID) for a in range(GRID) for b in range(a + 1, GRID + 1)]
    scores = [np.maximum.reduceat(_tiou(window, spans, durations), first).mean() for window in windows]
    return windows[int(np.argmax(scores))]


def _tiou(window: tuple[float, float], spans: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """tvg.segment.tiou of one window against (N, 2) true segments, vectorised; a test holds the two together."""
    start, end = window[0] * durations, window[1] * durations
    hull = np.maximum(end, spans[:, 1]) - np.minimum(start, spans[:, 0])
    shared = np.minimum(end, spans[:, 1]) - np.maximum(start, spans[:, 0])
    return np.divide(np.maximum(shared, 0.0), hull, out=np.zeros_like(hull), where=hull > 0)
