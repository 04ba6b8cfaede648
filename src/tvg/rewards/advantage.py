"""Advantages of GRPO: how much better a rollout is than the others of its group, as trl 1.16 computes them."""

from collections.abc import Hashable, Sequence
from statistics import mean, stdev
from typing import Literal

EPSILON = 1e-4  # TimeZero, Time-R1, VideoChat-R1, TRL (systems.md 1.3)
TARO_EPSILON = 1e-6  # TaRO, released code (tests/vectors/awbc.json)


def advantages(
    rewards: Sequence[float | None],
    groups: Sequence[Hashable],
    scale: Literal["group", "batch", "none"] = "group",
    epsilon: float = EPSILON,
) -> list[float | None]:
    """(N,) advantages, (r - mean) / (std + epsilon) within the group; None for a row whose group is None.

    rewards: (N,), None where no reward applies: that rollout has advantage 0 and is not in its group's mean and std.
    groups: (N,) the group of each row; its rows need not stand side by side.
    scale: std of the group, of all rows that have a group, or 1 without epsilon. The std is the sample's (ddof 1), and
    0 of a single row; so a group of one and a group of equal rewards have advantages of exactly 0.
    """
    members: dict[Hashable, list[float]] = {}
    for reward, group in zip(rewards, groups, strict=True):
        if reward is not None and group is not None:
            members.setdefault(group, []).append(reward)
    of_all = _deviation([reward for found in members.values() for reward in found])
    centre = {group: mean(found) for group, found in members.items()}
    divisor = {
        group: 1.0 if scale == "none" else epsilon + (of_all if scale == "batch" else _deviation(found))
        for group, found in members.items()
    }
    return [
        None if group is None else 0.0 if reward is None else (reward - centre[group]) / divisor[group]
        for reward, group in zip(rewards, groups, strict=True)
    ]


def _deviation(rewards: Sequence[float]) -> float:
    return stdev(rewards) if len(rewards) > 1 else 0.0
