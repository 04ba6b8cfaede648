"""What a probe of the model measures beside the rollouts: TaRO's shuffled frames (systems.md 2.8)."""

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tvg.model.policy import Context
from tvg.model.question import visible
from tvg.prompts import render
from tvg.segment import Segment
from tvg.train.stage import Job, ahead

WITHIN = 3.0  # seconds; released code
EPSILON = 1e-6  # seconds: what rounding may add to a frame's time
THOUGHT = "</think>"


def shuffled(count: int, fps: float, segments: Iterable[Segment], within: float, seed: int) -> list[int]:
    """(count,) which of the frames is shown at each place, once those near the true boundaries are shuffled.

    Frame k is shown at k / fps seconds. The frames at most `within` seconds from a start change places at random, then,
    independently, those from the end: where both are near, they move twice. A single frame stays.
    """
    order, draw = list(range(count)), random.Random(seed)
    for boundary in (time for segment in segments for time in segment):
        near = [k for k in range(count) if abs(k / fps - boundary) <= within + EPSILON]
        moved = [order[k] for k in near]
        draw.shuffle(moved)
        for k, frame in zip(near, moved, strict=True):
            order[k] = frame
    return order


class ShuffledFrames:
    """How much less likely each response becomes when frames near the true boundaries are shuffled, in nats a token.

    A group shares one shuffle. Only pictures move: the model is told the same times. Made for a stage with the reward
    `temporal`, whose settings say how far around the boundaries, and over which tokens the mean is taken.
    """

    def __init__(self, job: Job):
        settings = job.spec.rewards["temporal"]
        self.job = job
        self.within = WITHIN if settings.within is None else settings.within
        self.thinking = settings.tokens == "think"
        self.perturbed = ahead(self._perturb, job.spec, job.turns, job.device)

    def _perturb(self, position: int) -> Context | None:
        """None where no picture moves, and for a task other than `ground`."""
        sample = self.job.order[position]
        if sample.task != "ground":
            return None
        frames = visible(sample, self.job.frames[sample.video])
        truth = [segment.clipped(sample.duration) for segment in sample.segments]  # as the reward reads it
        order = shuffled(len(frames), frames.fps, truth, self.within, self.job.seed_at(position, "shuffle"))
        if order == sorted(order):
            return None
        moved = replace(frames, pixels=frames.pixels[order])
        return self.job.policy.encode_group(render(self.job.spec.prompt, sample), moved)

    def __call__(
        self, positions: list[int], contexts: list[Context], completion_ids: list[list[int]], temperature: float,
        at_once: int,
    ) -> list[float | None]:  # fmt: skip
        """(rows,) mean over tokens of log p(token | video) - log p(token | perturbed video); 0 where no picture moves.

        None for a task other than `ground`, and where no token counts. positions: (rows,) in the schedule, groups side
        by side. at_once: rows of one forward pass. The model is used as it is; the caller switches the gradient off.
        """
        perturbed = {position: self.perturbed(position) for position in dict.fromkeys(positions)}
        counted = [self._counted(ids) for ids in completion_ids]
        asked = [self.job.order[position].task == "ground" for position in positions]
        drops = [0.0 if ask and ids else None for ask, ids in zip(asked, counted, strict=True)]
        # Unmoved videos are not scored: rounding could differ between two passes, and would then be paid for.
        moved = [row for row, position in enumerate(positions) if drops[row] is not None and perturbed[position]]
        self.job.stop.check()  # here: in several processes not equally many are moved
        for rows in (moved[first : first + at_once] for first in range(0, len(moved), at_once)):
            ids = [counted[row] for row in rows]
            true = self._means([contexts[row] for row in rows], ids, temperature)
            other = self._means([perturbed[positions[row]] for row in rows], ids, temperature)
            for row, drop in zip(rows, (true - other).tolist(), strict=True):
                drops[row] = drop
        return drops

    def _counted(self, ids: list[int]) -> list[int]:
        """The tokens that the mean is taken over: all of them, or those that end before the reasoning does."""
        decode = self.job.policy.decode
        if not self.thinking or (end := decode(ids).find(THOUGHT)) < 0:
            return ids
        return ids[: bisect_right(range(len(ids) + 1), end, key=lambda count: len(decode(ids[:count]))) - 1]

    def _means(self, contexts: Sequence[Context], completion_ids: Sequence[list[int]], temperature: float) -> Tensor:
        """(B,) float64, the mean log-probability of the tokens of each completion."""
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in completion_ids], batch_first=True)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        logps = self.job.policy.score(contexts, padded, mask, temperature).logps
        return logps.double().sum(1).cpu() / lengths
