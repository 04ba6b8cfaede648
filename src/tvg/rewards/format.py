"""Is the completion in the form that the prompt asks for?"""

from tvg.inversion.verbs import Extractor
from tvg.parse import FORMATS
from tvg.rewards.rollout import Rollout
from tvg.settings import AnswerContract, RewardSettings


def format_reward(rollout: Rollout, _: RewardSettings, contract: AnswerContract, __: Extractor | None) -> float:
    """1.0 if the completion passes the contract's format check for its task, else 0.0 (systems.md 1.4)."""
    return float(FORMATS[contract.format_of(rollout.sample.task)](rollout.completion))
