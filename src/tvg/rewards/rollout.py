"""What a reward sees."""

from collections.abc import Callable
from dataclasses import dataclass

from tvg.inversion.verbs import Extractor
from tvg.sample import Sample
from tvg.spec import AnswerContract, RewardSettings


@dataclass(frozen=True)
class Rollout:
    """A completion, as text, and the sample that it answers."""

    completion: str
    sample: Sample


# None where the reward does not apply to the sample's task
Reward = Callable[[Rollout, RewardSettings, AnswerContract, Extractor | None], float | None]
