"""TAR-TVG's r_TAR: do the anchors in the reasoning come nearer to the truth? (systems.md 2.6; section 8, rows 18-21)

r_TAR = TAR1 - beta TAR2 + gamma TAR3, with o_i the overlap of the i-th of N anchors:
TAR1 = sum of i o_i; TAR2 = how far N is from `target`; TAR3 = sum over i >= 2 of +1 if o_i > o_(i-1), else -1.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from tvg.inversion.verbs import Extractor
from tvg.parse import FORMATS, MOST_ANCHORS, anchors
from tvg.rewards.overlap import signed
from tvg.rewards.rollout import Rollout
from tvg.sample import Sample
from tvg.segment import Segment, tiou
from tvg.settings import AnswerContract, RewardSettings

TARGET, BETA, GAMMA = 2, 5.0, 1.0  # article, systems.md 2.6
TIE = 1e-9  # what rounding may add to one of two equal overlaps


def anchors_reward(
    rollout: Rollout, settings: RewardSettings, contract: AnswerContract, _: Extractor | None
) -> float | None:
    """How near the anchors in the reasoning are, that there are as many as wanted, and that each is nearer than the one
    before (TAR-TVG); two of them earn at most 4. Where the format fails, and with more than `at_most` anchors, it is 0.
    """
    if rollout.sample.task != "ground":
        return None
    overlaps = anchor_overlaps(rollout.completion, rollout.sample, hard=settings.overlap == "hard")
    at_most = MOST_ANCHORS if settings.at_most is None else settings.at_most
    if len(overlaps) > at_most or not FORMATS[contract.format](rollout.completion):
        return 0.0
    beta = BETA if settings.beta is None else settings.beta
    gamma = GAMMA if settings.gamma is None else settings.gamma
    nearness = sum(i * overlap for i, overlap in enumerate(overlaps, 1))
    off = _deviation(len(overlaps) - (settings.target or TARGET), settings.deviation)
    return nearness - beta * off + gamma * sum(1 if better else -1 for better in refined(overlaps))


def anchor_overlaps(completion: str, sample: Sample, hard: bool = False) -> list[float]:
    """(N,) of each anchor, the signed overlap in [-1, 1] with the true segment that fits it best; `hard`: the tIoU.

    An anchor that is reversed, has no length or is past every number is -1; `hard`: 0.
    """
    worst, overlap = (0.0, tiou) if hard else (-1.0, signed)

    def nearest(anchor: Segment) -> float:
        finite = all(map(math.isfinite, anchor))
        return max((overlap(anchor, truth) for truth in sample.segments if finite), default=worst)

    return [nearest(anchor) for anchor in anchors(completion)]


def refined(overlaps: Sequence[float]) -> list[bool]:
    """(N - 1,) whether each anchor after the first is nearer than the one before; a tie is not."""
    return [after > before + TIE for before, after in pairwise(overlaps)]


def _deviation(off: int, kind: str | None) -> int:
    match kind:
        case "square":
            return off * off
        case "indicator":
            return int(off != 0)
        case _:
            return abs(off)
