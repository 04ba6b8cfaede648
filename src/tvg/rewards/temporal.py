"""TaRO's temporal-sensitive reward: does the response need the order of the frames? (systems.md 2.8)

A probe shuffles the frames near the true boundaries and takes how much less likely the response becomes
(tvg.train.probes); the reward compares that drop with its group's mean.
"""

from collections.abc import Hashable, Sequence
from statistics import mean

from tvg.inversion.verbs import Extractor
from tvg.rewards.overlap import best
from tvg.rewards.rollout import Rollout
from tvg.segment import tiou
from tvg.settings import AnswerContract, RewardSettings

GATE = 0.7  # released code
TIE = 1e-9  # what rounding may add to one of two equal numbers


def temporal_reward(
    rollout: Rollout, settings: RewardSettings, contract: AnswerContract, _: Extractor | None
) -> float | None:
    """1.0 if shuffled frames make the response unlikelier by more than its group's mean, and the answer overlaps the
    truth by `gate`; else 0.0 (TaRO). It does not ask for the format. None for a rollout that no probe has seen.
    """
    sample, drop = rollout.sample, rollout.logprob_drop
    if sample.task != "ground" or drop is None:
        return None
    overlap = best(rollout, contract, lambda predicted, truth: tiou(predicted, truth.clipped(sample.duration)))
    gate = GATE if settings.gate is None else settings.gate
    open_ = overlap > gate + TIE if settings.strict_gate else overlap >= gate - TIE
    group = drop if rollout.group_drop is None else rollout.group_drop
    return float(open_ and drop > group + (settings.margin or 0.0) + TIE)


def group_drops(drops: Sequence[float | None], groups: Sequence[Hashable]) -> list[float | None]:
    """(N,) the mean drop of each row's group, over its rows that have one; None for a row whose group is None.

    drops: (N,), None where no probe ran. groups: (N,); the rows of a group need not stand side by side.
    """
    members: dict[Hashable, list[float]] = {}
    for drop, group in zip(drops, groups, strict=True):
        if drop is not None and group is not None:
            members.setdefault(group, []).append(drop)
    means = {group: mean(found) for group, found in members.items()}
    return [means.get(group) for group in groups]
