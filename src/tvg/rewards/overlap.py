"""How well the answered segment overlaps a true one: `tiou`, `soft_iou` and `timed_iou`, on the grounding task only.

The truth comes as the annotators wrote it: an end past the clip's, no length, reversed. Nothing here repairs it;
`clamp_truth` cuts it at the clip's ends.
"""

import math
from collections.abc import Callable

from tvg.inversion.verbs import Extractor
from tvg.parse import PARSERS
from tvg.rewards.rollout import Rollout
from tvg.segment import Segment, soft_iou, timed_iou, tiou
from tvg.settings import AnswerContract, RewardSettings


def tiou_reward(rollout: Rollout, _: RewardSettings, contract: AnswerContract, __: Extractor | None) -> float | None:
    """How far answer and truth overlap, in [0, 1] (TimeZero, Time-R1's fine-tuning, VideoChat-R1, Invert4TVG)."""
    return best(rollout, contract, tiou)


def soft_iou_reward(
    rollout: Rollout, _: RewardSettings, contract: AnswerContract, __: Extractor | None
) -> float | None:
    """The signed overlap of answer and truth, in [-1, 1]: a gap counts as a share of the hull (TAR-TVG). An answer that
    cannot be read, is reversed or has no length is -1: as bad as the farthest miss (systems.md 8, rows 19 and 21).
    """
    return best(rollout, contract, signed, worst=-1.0)


def signed(predicted: Segment, truth: Segment) -> float:
    """soft_iou in [-1, 1], as rewards use it: -1 for a predicted segment that is reversed or has no length."""
    return max(-1.0, soft_iou(predicted, truth)) if predicted.length > 0 else -1.0


def timed_iou_reward(
    rollout: Rollout, settings: RewardSettings, contract: AnswerContract, _: Extractor | None
) -> float | None:
    """How far they overlap, times how near each boundary is in shares of the clip's duration, in [0, 1]; with
    `clamp: false`, the released code, below 0 as well (Time-R1's post-training, TaRO).
    """
    duration, clamp = rollout.sample.duration, settings.clamp is not False

    def timed(predicted: Segment, truth: Segment) -> float:
        return timed_iou(predicted, truth.clipped(duration) if settings.clamp_truth else truth, duration, clamp)

    return best(rollout, contract, timed)


def best(
    rollout: Rollout, contract: AnswerContract, overlap: Callable[[Segment, Segment], float], worst: float = 0.0
) -> float | None:
    """The answer against the true segment that fits best; `worst` if it cannot be read, or is no finite number."""
    if rollout.sample.task != "ground":
        return None
    predicted = PARSERS[contract.reward](rollout.completion)
    if predicted is None or not all(map(math.isfinite, predicted)):
        return worst
    return max((overlap(predicted, truth) for truth in rollout.sample.segments), default=worst)
