"""The policy interface: encode what a group shares, generate its rollouts, score them.

Trainers and evaluators know only this. `plain` (library modules, simple, the oracle) and `shared` (what a group has in
common is computed once) implement it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tvg.video.decode import Frames


@dataclass(frozen=True)
class Context:
    """What the rollouts of one group share: a prompt with its video, ready for the model (on the CPU).

    input_ids: (P,) int64, the video's placeholder tokens expanded. pixels: (patches, channels x 2 x 14 x 14) float32,
    None without a video. grid: (t, h, w) in patches before the 2x2 merge. seconds_per_grid: seconds between two
    temporal patches, from the true sampling rate.
    """

    input_ids: Tensor
    pixels: Tensor | None = None
    grid: tuple[int, int, int] | None = None
    seconds_per_grid: float | None = None


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. A rollout stops at the end token, which is part of it, or after max_new_tokens."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Scores:
    """Per-token log-probabilities and entropies of completions, (B, C) float32; entropies None unless asked for."""

    logps: Tensor
    entropies: Tensor | None = None


class Completion(list[int]):
    """Token ids. logps: the log-probability of each, at the sampling's temperature (1 if greedy), top_p left aside."""

    def __init__(self, tokens: Iterable[int], logps: list[float]):
        super().__init__(tokens)
        self.logps = logps


class Policy(Protocol):
    """One model with its processor."""

    model: torch.nn.Module

    def encode_group(self, messages: list[dict], frames: Frames | None) -> Context:
        """Chat messages (plain strings) and the frames to put beside the first user text -> a Context."""

    def generate(
        self,
        contexts: Sequence[Context],
        sampling: Sampling,
        seeds: Sequence[int],
        prefixes: Sequence[list[int]] | None = None,
    ) -> list[Completion]:
        """One completion for each context; a group repeats its context object, which is encoded once.

        seeds: one integer a rollout; the same seed gives the same rollout whatever else is in the batch, up to the
        rounding of logits. prefixes: forced first tokens of each completion, returned as part of it, and counted in
        max_new_tokens. Never emits vision tokens.
        """

    def score(
        self,
        contexts: Sequence[Context],
        completion_ids: Tensor,
        completion_mask: Tensor,
        temperature: float = 1.0,
        model: torch.nn.Module | None = None,
        entropies: bool = False,
    ) -> Scores:
        """Log-probabilities of right-padded completions (B, C) under logits / temperature; with gradient if enabled.

        0 where completion_mask is 0. The tokens that `generate` never emits have no share of the probability.
        model: the module to run instead of self.model (a wrapped one, a reference).
        """
