"""Which process works on which prompts: equally many, about equally much, the same steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training import grpo_spec, sft_spec
from tvg.errors import TvgError
from tvg.train.balance import dealt, shares, turns
from tvg.train.schedule import of_each


@st.composite
def works(draw):
    """Work of the prompts of a step, and how many processes share it."""
    count, each = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return draw(st.lists(st.integers(0, 10_000), min_size=count * each, max_size=count * each)), count


@given(works())
def test_each_prompt_goes_to_one_process_and_equally_many_to_each(drawn):
    work, count = drawn
    found = shares(work, count)
    assert sorted(item for share in found for item in share) == list(range(len(work)))
    assert {len(share) for share in found} == {len(work) // count}


@given(works())
def test_loads_differ_by_no_more_than_the_prompts_do(drawn):
    work, count = drawn
    loads = [sum(work[item] for item in share) for share in shares(work, count)]
    assert max(loads) - min(loads) <= max(work) - min(work)


@given(works())
def test_the_kth_prompts_of_all_are_neighbours_in_size(drawn):
    work, count = drawn
    falling = sorted(work, reverse=True)
    for k, items in enumerate(zip(*shares(work, count), strict=True)):
        assert sorted((work[item] for item in items), reverse=True) == falling[k * count : (k + 1) * count]


def test_one_long_video_among_short_ones_is_paired_with_the_shortest():
    assert shares([5, 50, 4, 6], 2) == [[1, 2], [3, 0]]


@given(works(), st.integers(1, 4))
def test_every_step_holds_its_own_positions_and_one_process_keeps_the_order(drawn, steps):
    work, count = drawn
    step = len(work)
    found = turns(steps * step, step, count, lambda position: work[position % step])
    each = step // count
    for number in range(steps):
        held = [position for turn in found for position in turn[number * each : (number + 1) * each]]
        assert sorted(held) == list(range(number * step, (number + 1) * step))
    assert turns(steps * step, step, 1, lambda position: 0 / 0) == [list(range(steps * step))]


@given(works(), st.data())
def test_what_the_library_deals_in_turn_is_each_processs_own(drawn, data):
    work, count = drawn
    each = len(work) // count
    at_once = data.draw(st.sampled_from([n for n in range(1, each + 1) if each % n == 0]))
    of = turns(2 * len(work), len(work), count, lambda position: work[position % len(work)])
    rows = dealt(of, at_once)
    hands = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]
    for process in range(count):
        assert [row for hand in hands[process::count] for row in hand] == of[process]


def test_a_step_that_cannot_be_shared_equally_is_an_error_that_names_the_numbers_that_can():
    assert of_each(grpo_spec(prompts_per_step=8), 4) == 2 and of_each(sft_spec(batch=6), 3) == 2
    with pytest.raises(TvgError, match="prompts_per_step: 8 on 3 GPUs") as error:
        of_each(grpo_spec(prompts_per_step=8), 3)
    assert "1, 2, 4, 8" in error.value.expected
