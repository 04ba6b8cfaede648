"""What a reward sees."""

from collections.abc import Callable
from dataclasses import dataclass

from tvg.inversion.verbs import Extractor
from tvg.sample import Sample
from tvg.settings import AnswerContract, RewardSettings


@dataclass(frozen=True)
class Rollout:
    """A completion, as text, and the sample that it answers; and what a probe of the model has measured, if any has.

    logprob_drop: mean over the response's tokens of log p(token | video) - log p(token | perturbed video) (TaRO).
    group_drop: the mean of it over the rollouts of the group; None for a rollout that is alone.
    """

    completion: str
    sample: Sample
    logprob_drop: float | None = None
    group_drop: float | None = None


# None where the reward does not apply to the sample's task
Reward = Callable[[Rollout, RewardSettings, AnswerContract, Extractor | None], float | None]
