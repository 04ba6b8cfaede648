"""Rewards: pure functions of a rollout, by name. Weights and options stand in the experiment's YAML.

| name        | on the tasks | range                        | options                                              |
|-------------|--------------|------------------------------|------------------------------------------------------|
| `format`    | all          | 0 or 1                       |                                                      |
| `tiou`      | ground       | [0, 1]                       |                                                      |
| `soft_iou`  | ground       | [-1, 1]                      |                                                      |
| `timed_iou` | ground       | [0, 1]                       | `clamp: false`: below 0 too; `clamp_truth`           |
| `anchors`   | ground       | up to 4 for two anchors      | `target`, `beta`, `gamma`, `deviation`, `overlap`,   |
|             |              |                              | `at_most`                                            |
| `temporal`  | ground       | 0 or 1; None without a probe | `gate`, `strict_gate`, `margin`, `within`, `tokens`  |
| `verbs`     | inversion    | 0 or 1; with cosine [0, 1]   | `match: cosine`, `superset` or `synonym`;            |
|             |              |                              | `describe: any`                                      |

A reward that does not apply to the sample's task is None and drops out of the weighted sum, as in TRL. `temporal` reads
what a probe of the model measured: a rollout without that has None as well.
"""

import difflib
from collections.abc import Iterable, Mapping

from tvg.errors import TvgError
from tvg.inversion.verbs import Extractor
from tvg.rewards.anchors import anchors_reward
from tvg.rewards.format import format_reward
from tvg.rewards.overlap import soft_iou_reward, timed_iou_reward, tiou_reward
from tvg.rewards.rollout import Reward, Rollout
from tvg.rewards.temporal import temporal_reward
from tvg.rewards.verbs import verbs_reward
from tvg.sample import INVERSION_TASKS
from tvg.settings import AnswerContract, RewardSettings

__all__ = [
    "OPTIONS",
    "REWARDS",
    "TASKS",
    "VERSIONS",
    "Reward",
    "Rollout",
    "applicable",
    "check",
    "score",
    "weighted_sum",
]

REWARDS: dict[str, Reward] = {
    "format": format_reward,
    "tiou": tiou_reward,
    "soft_iou": soft_iou_reward,
    "timed_iou": timed_iou_reward,
    "anchors": anchors_reward,
    "temporal": temporal_reward,
    "verbs": verbs_reward,
}
VERSIONS: dict[str, int] = {  # part of specs; bump what changes
    "format": 1,
    "tiou": 1,
    "soft_iou": 1,
    "timed_iou": 1,
    "anchors": 1,
    "temporal": 1,
    "verbs": 1,
}
TASKS: dict[str, frozenset[str]] = {  # which tasks a reward reads; those not listed read all
    **dict.fromkeys(("tiou", "soft_iou", "timed_iou", "anchors", "temporal"), frozenset({"ground"})),
    "verbs": frozenset(INVERSION_TASKS),
}
OPTIONS: dict[str, frozenset[str]] = {
    "timed_iou": frozenset({"clamp", "clamp_truth"}),
    "anchors": frozenset({"target", "beta", "gamma", "deviation", "overlap", "at_most"}),
    "temporal": frozenset({"gate", "strict_gate", "margin", "within", "tokens"}),
    "verbs": frozenset({"match", "describe"}),
}


def check(rewards: Mapping[str, RewardSettings], where: str = "rewards") -> None:
    """Raises TvgError for an unknown reward, and for an option that the reward does not read."""
    for name, settings in rewards.items():
        if name not in REWARDS:
            near = difflib.get_close_matches(name, REWARDS, n=1, cutoff=0.0)[0]
            raise TvgError(
                where, "no such reward", got=name, expected=", ".join(REWARDS), hint=f"did you mean {near!r}?"
            )
        given = {option for option, value in settings if option != "weight" and value is not None}
        for option in sorted(given - OPTIONS.get(name, frozenset())):
            readers = [reward for reward, options in OPTIONS.items() if option in options]
            raise TvgError(
                where,
                f"the reward {name!r} has no option {option!r}",
                got=f"{option}: {getattr(settings, option)}",
                expected=f"{option} under {' or '.join(readers)}",
                hint="remove the option",
            )


def score(
    rewards: Mapping[str, RewardSettings],
    rollout: Rollout,
    contract: AnswerContract,
    extractor: Extractor | None = None,
) -> dict[str, float | None]:
    """The raw value of each reward, None where it does not apply. The extractor is needed by `verbs` alone."""
    check(rewards)
    return {name: REWARDS[name](rollout, settings, contract, extractor) for name, settings in rewards.items()}


def weighted_sum(raw: Mapping[str, float | None], rewards: Mapping[str, RewardSettings]) -> float | None:
    """The rewards that apply, times their weights; None if none does."""
    applied = [rewards[name].weight * value for name, value in raw.items() if value is not None]
    return sum(applied) if applied else None


def applicable(rewards: Mapping[str, RewardSettings], tasks: Iterable[str]) -> dict[str, RewardSettings]:
    """The rewards that read at least one of the tasks: the others would be None for every rollout."""
    tasks = frozenset(tasks)
    return {name: settings for name, settings in rewards.items() if TASKS.get(name, tasks) & tasks}
