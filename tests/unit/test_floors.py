"""The floors that systems.md 2.1 recomputed on Charades-STA test, and the fit of the constant window."""

import csv
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvg.errors import TvgError
from tvg.evaluate import floors, metrics
from tvg.sample import Sample
from tvg.segment import Segment, tiou


@pytest.fixture
def charades_test(real_data):
    """(video, duration, segment) of the 3,720 test queries, with the durations of the csv."""
    with real_data("annotations/charades-sta/Charades_v1_test.csv").open() as table:
        durations = {line["id"]: float(line["length"]) for line in csv.DictReader(table)}
    found = []
    for line in real_data("annotations/charades-sta/charades_sta_test.txt").read_text().splitlines():
        video, start, end = line.split("##")[0].split()
        found.append((video, durations[video], Segment(float(start), float(end))))
    return found


def scored(queries, floor):
    rows = [
        {
            "id": str(k),
            "video": video,
            "task": "ground",
            "segments": [truth],
            "duration": duration,
            "predicted": floor(duration),
            "legacy": None,
            "completion": None,
            "format": False,
            "missing": None,
        }
        for k, (video, duration, truth) in enumerate(queries)
    ]
    got = metrics.score(rows)
    return [round(100 * got[name], 2) for name in ("r1_at_0.3", "r1_at_0.5", "r1_at_0.7", "miou", "r1_ge_0.5")]


def test_whole_video_on_charades(charades_test):
    assert len(charades_test) == 3720
    assert scored(charades_test, floors.whole_video) == [34.30, 0.38, 0.00, 26.99, 0.43]


def test_constant_window_on_charades(charades_test):
    got = scored(charades_test, lambda duration: floors.constant_window((0.0, 0.45), duration))
    assert got[:4] == [48.79, 27.69, 11.85, 30.55]


def sample(duration, *segments):
    return Sample("q", "v.mp4", duration, "opens", tuple(Segment(*s) for s in segments))


def test_fit_finds_the_window_that_all_share():
    assert floors.fit_constant_window([sample(t, (0.25 * t, 0.6 * t)) for t in (10, 20, 33)]) == (0.25, 0.6)


def test_fit_counts_the_best_of_several_segments():
    samples = [sample(10, (0, 1), (5, 10)), sample(20, (10, 20)), sample(30, (15, 30), (0, 3))]
    assert floors.fit_constant_window(samples) == (0.5, 1.0)


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=6))
def test_fit_is_the_best_by_the_one_tiou(drawn):
    samples = [sample(duration, (a, b)) for duration, a, b in drawn]

    def value(window):
        return sum(tiou(floors.constant_window(window, s.duration), s.segments[0]) for s in samples) / len(samples)

    grid = [(a / 20, b / 20) for a in range(20) for b in range(a + 1, 21)]
    assert value(floors.fit_constant_window(samples)) == pytest.approx(max(map(value, grid)))


def test_fit_is_fast_enough_for_a_whole_training_split():
    samples = [sample(20 + k % 30, (k % 11, k % 11 + 8)) for k in range(12_408)]
    started = time.perf_counter()
    floors.fit_constant_window(samples)
    assert time.perf_counter() - started < 2


def test_fit_needs_samples():
    with pytest.raises(TvgError, match="nothing to fit on"):
        floors.fit_constant_window([])
