"""How well the answered segment overlaps a true one: `tiou` and `timed_iou`, on the grounding task only.

The truth comes as the annotators wrote it: an end past the clip's, no length, reversed. Nothing here repairs it.
"""

import math
from collections.abc import Callable

from tvg.inversion.verbs import Extractor
from tvg.parse import PARSERS
from tvg.rewards.rollout import Rollout
from tvg.segment import Segment, timed_iou, tiou
from tvg.spec import AnswerContract, RewardSettings


def tiou_reward(rollout: Rollout, _: RewardSettings, contract: AnswerContract, __: Extractor | None) -> float | None:
    """How far answer and truth overlap, in [0, 1] (TimeZero, Time-R1's fine-tuning, VideoChat-R1, Invert4TVG)."""
    return _best(rollout, contract, tiou)


def timed_iou_reward(
    rollout: Rollout, settings: RewardSettings, contract: AnswerContract, _: Extractor | None
) -> float | None:
    """How far they overlap, times how near each boundary is in shares of the clip's duration, in [0, 1]; with
    `clamp: false`, the released code, below 0 as well (Time-R1's post-training, TaRO).
    """
    duration, clamp = rollout.sample.duration, settings.clamp is not False
    return _best(rollout, contract, lambda predicted, truth: timed_iou(predicted, truth, duration, clamp))


def _best(rollout: Rollout, contract: AnswerContract, overlap: Callable[[Segment, Segment], float]) -> float | None:
    """Against the true segment that fits best; an answer that cannot be read, or is no finite number, scores 0."""
    if rollout.sample.task != "ground":
        return None
    predicted = PARSERS[contract.reward](rollout.completion)
    if predicted is None or not all(map(math.isfinite, predicted)):
        return 0.0
    return max((overlap(predicted, truth) for truth in rollout.sample.segments), default=0.0)
