"""Action understanding: the inversion tasks on the true clips, scored by the rewards that train them (systems.md 2.5).

Only queries with at least one extracted verb are asked; a clip whose video is missing counts as wrong.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from tvg import rewards
from tvg.evaluate.intervals import mean
from tvg.evaluate.predictions import as_sample
from tvg.rewards import Rollout
from tvg.sample import INVERSION_TASKS
from tvg.settings import AnswerContract, RewardSettings

BINARY = {"verbs": RewardSettings(weight=1.0, match="binary")}


def by_task(rows: Iterable[Mapping]) -> dict[str, list[Mapping]]:
    """The prediction rows of each inversion task that was asked, queries without a verb left out."""
    asked = {task: [row for row in rows if row["task"] == task and row["verbs"]] for task in INVERSION_TASKS}
    return {task: found for task, found in asked.items() if found}


def marks(rows: Sequence[Mapping], contract: AnswerContract, extractor: Callable) -> list[float]:
    """1.0 for each row whose answer names the right action, else 0.0."""
    return [_mark(row, contract, extractor) for row in rows]


def summary(rows: Sequence[Mapping], right: Sequence[float]) -> dict:
    """Accuracy and format rate of one task over all `n` asked queries, in [0, 1]."""
    return {
        "accuracy": mean(right),
        "format_rate": mean([float(row["format"] and row["missing"] is None) for row in rows]),
        "n": len(rows),
        "missing": sum(row["missing"] is not None for row in rows),
    }


def _mark(row: Mapping, contract: AnswerContract, extractor: Callable) -> float:
    if row["missing"] is not None or row["completion"] is None:
        return 0.0
    rollout = Rollout(completion=row["completion"], sample=as_sample(row))
    return float(rewards.score(BINARY, rollout, contract, extractor)["verbs"] == 1.0)
