"""Uncertainty by resampling videos: queries of one video stand or fall together, so videos are the unit.

1,000 resamples, 95 % (systems.md 4). The same rows in any order give the same interval.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 1000
COVERAGE = 0.95


def bootstrap(
    videos: Sequence[str], columns: Mapping[str, Sequence[float]], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, list[float]]:
    """The 95 % interval [low, high] of each column's mean over queries.

    videos: (N,) the video of each query; columns: name -> (N,) per-query values. No queries, no intervals.
    """
    if not videos:
        return {}
    draws, counts, sums = _resampled(videos, columns, seed, resamples)
    tail = (1 - COVERAGE) / 2
    means = (draws @ sums) / (draws @ counts)[:, None]
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return {name: [float(low[k]), float(high[k])] for k, name in enumerate(columns)}


def paired(
    videos: Sequence[str], first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]], seed: int = 0
) -> dict[str, dict]:
    """How much `first` is above `second` on the same queries: name -> {difference, interval}."""
    gaps = {name: [a - b for a, b in zip(first[name], second[name], strict=True)] for name in first}
    intervals = bootstrap(videos, gaps, seed)
    return {name: {"difference": mean(gaps[name]), "interval": intervals[name]} for name in gaps if videos}


def mean(values: Sequence[float]) -> float:
    """The exact mean, whatever the order; values must not be empty."""
    return math.fsum(values) / len(values)


def _resampled(
    videos: Sequence[str], columns: Mapping[str, Sequence[float]], seed: int, resamples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each resample takes each video (R, V), queries a video (V,), column sums a video (V, C)."""
    members: dict[str, list[int]] = {}
    for place, video in enumerate(videos):
        members.setdefault(video, []).append(place)
    places = [members[video] for video in sorted(members)]
    sums = np.array([[math.fsum(values[p] for p in group) for values in columns.values()] for group in places])
    counts = np.array([len(group) for group in places], dtype=float)
    draws = np.random.default_rng(seed).multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples)
    return draws.astype(float), counts, sums.reshape(len(places), len(columns))
