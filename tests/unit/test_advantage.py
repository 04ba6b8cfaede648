"""Advantages: of a group, and as trl computes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvg.rewards.advantage import advantages

rewards_ = st.lists(st.tuples(st.none() | st.floats(-10, 10), st.none() | st.integers(0, 2)))


@given(rewards_, st.sampled_from(["group", "batch", "none"]))
def test_advantages_of_a_group_sum_to_zero_and_keep_the_order_of_rewards(pairs, scale):
    found = advantages([reward for reward, _ in pairs], [group for _, group in pairs], scale)
    for group in {group for _, group in pairs} - {None}:
        rows = [(reward, found[k]) for k, (reward, of) in enumerate(pairs) if of == group]
        assert all(advantage == 0.0 for reward, advantage in rows if reward is None)
        rewarded = sorted((reward, advantage) for reward, advantage in rows if reward is not None)
        assert abs(sum(advantage for _, advantage in rewarded)) < 1e-6
        assert [a for _, a in rewarded] == sorted(a for _, a in rewarded)
    assert all((advantage is None) == (group is None) for advantage, (_, group) in zip(found, pairs, strict=True))


def test_advantages_are_trls():
    """Its own arithmetic, from the source that is installed; single precision."""
    import torch

    import tvg.train  # noqa: F401 - mends torchvision before trl looks for it

    # isort: split
    from trl.trainer.utils import nanstd

    rewards = [[2.0, 3.0, 2.5, 3.5], [1.0, None, 0.0, 1.0], [None, None, 0.7, None], [0.1] * 4]
    table = torch.tensor([[float("nan") if r is None else r for r in row] for row in rewards])
    centred = table - torch.nanmean(table, dim=1, keepdim=True)
    theirs = torch.nan_to_num(centred / (nanstd(table, dim=1, keepdim=True) + 1e-4), nan=0.0)
    ours = advantages([r for row in rewards for r in row], [k for k, row in enumerate(rewards) for _ in row])
    assert ours == pytest.approx(theirs.flatten().tolist(), abs=1e-4)
