"""Overlaps: the vectors, and what must hold of any two segments."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tvg.segment import Segment, soft_iou, timed_iou, tiou

CASES = json.loads((REPO / "tests/vectors/overlap.json").read_text())["cases"]
seconds = st.floats(0, 1000, allow_nan=False).map(lambda t: round(t, 3))
ordered = st.tuples(seconds, seconds).map(lambda pair: Segment(*sorted(pair)))
proper = ordered.filter(lambda segment: segment.length > 0.01)
anything = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(lambda pair: Segment(*pair))
durations = st.floats(0.1, 1000)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_vectors(case):
    predicted, truth, duration = Segment(*case["p"]), Segment(*case["g"]), case["t"]
    assert tiou(predicted, truth) == pytest.approx(case["iou"], abs=1e-6)
    assert soft_iou(predicted, truth) == pytest.approx(case["siou"], abs=1e-6)
    assert timed_iou(predicted, truth, duration, clamp=False) == pytest.approx(case["tiou"], abs=1e-6)
    assert timed_iou(predicted, truth, duration) == pytest.approx(case["tiou_clamped"], abs=1e-6)


@given(anything, anything, durations)
def test_ranges_hold_for_any_floats(predicted, truth, duration):
    assert 0 <= tiou(predicted, truth) <= 1
    assert 0 <= timed_iou(predicted, truth, duration) <= 1


@given(ordered, ordered)
def test_released_timed_iou_has_no_lower_bound_but_never_exceeds_one(predicted, truth):
    """For a truth inside its clip; past the clip's end, two negative terms could multiply to more than 1."""
    assert timed_iou(predicted, truth, truth.end + 0.1, clamp=False) <= 1
    assert timed_iou(Segment(0, 1000), Segment(0, 10), 10, clamp=False) < -0.9


@given(ordered, ordered)
def test_soft_iou_of_ordered_segments_is_signed_tiou(predicted, truth):
    assert -1 <= soft_iou(predicted, truth) <= tiou(predicted, truth) <= 1
    assert tiou(predicted, truth) == max(0, soft_iou(predicted, truth))


@given(anything, anything)
def test_symmetry(a, b):
    assert tiou(a, b) == tiou(b, a)
    assert soft_iou(a, b) == soft_iou(b, a)


@given(proper, proper, durations)
def test_timed_iou_only_takes_away(predicted, truth, duration):
    assert timed_iou(predicted, truth, duration) <= tiou(predicted, truth)
    assert timed_iou(truth, truth, duration) == tiou(truth, truth) == 1


@given(proper, proper)
def test_tiou_is_intersection_over_union(a, b):
    intersection = max(0, min(a.end, b.end) - max(a.start, b.start))
    union = a.length + b.length - intersection
    assert tiou(a, b) == pytest.approx(intersection / union, abs=1e-6)


@given(proper, proper, st.integers(-500, 500), durations)
def test_only_differences_matter(predicted, truth, by, duration):
    moved = predicted.shifted(by), truth.shifted(by)
    assert tiou(*moved) == pytest.approx(tiou(predicted, truth), abs=1e-6)
    assert soft_iou(*moved) == pytest.approx(soft_iou(predicted, truth), abs=1e-6)
    assert timed_iou(*moved, duration) == pytest.approx(timed_iou(predicted, truth, duration), abs=1e-6)


@given(proper, st.floats(0, 1), st.floats(0, 1), st.floats(0, 50), durations)
def test_refining_a_boundary_never_costs(truth, nearer, farther, off, duration):
    """Of two predictions that err on one side only, the nearer one scores at least as much by every measure."""
    near, far = sorted((nearer, farther))
    good, bad = (truth._replace(start=truth.start - off * share) for share in (near, far))
    for overlap in (tiou, soft_iou, lambda p, t: timed_iou(p, t, duration)):
        assert overlap(good, truth) >= overlap(bad, truth) - 1e-9


@given(proper, proper, st.floats(1, 100))
def test_soft_iou_still_ranks_misses(predicted, truth, gap):
    """Where tIoU is a flat 0, coming nearer still pays."""
    truth = truth.shifted(predicted.end + gap - truth.start)
    nearer = predicted._replace(end=predicted.end + 0.5)
    assert tiou(predicted, truth) == tiou(nearer, truth) == 0
    assert soft_iou(nearer, truth) > soft_iou(predicted, truth)


def test_degenerate_segments_are_zero_not_an_error():
    point = Segment(5.0, 5.0)
    assert tiou(point, point) == soft_iou(point, point) == timed_iou(point, point, 0.0) == 0
    assert soft_iou(point, Segment(7.0, 7.0)) == -1


@given(anything, durations)
def test_clipped_stays_inside(segment, duration):
    inside = segment.clipped(duration)
    assert 0 <= inside.start <= duration and 0 <= inside.end <= duration
    assert math.isfinite(inside.length)
