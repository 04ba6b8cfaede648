"""Advantage-weighted behaviour cloning, TaRO's warm start (systems.md 2.8): GRPO's trainer with another loss.

Rollouts begin with forced captions (tvg.train.construct), which GRPO's ratio could not learn from: the policy would
never have sampled them. Here a rollout that is better than its group's mean is imitated, prefix and all; the others
teach nothing.
"""

from pathlib import Path

import torch
from torch import Tensor
from trl import GRPOConfig

from tvg.rewards.advantage import TARO_EPSILON, advantages
from tvg.settings import Runtime
from tvg.spec import AwbcSpec
from tvg.store import Store
from tvg.train import stage
from tvg.train.construct import Construction
from tvg.train.grpo import VideoGrpo, arguments
from tvg.train.stage import Job


def train(spec: AwbcSpec, store: Store, runtime: Runtime, device: str | None = None) -> Path:
    """Train the stage and return its folder; resumes by itself. Raises SystemExit(130 or 143) when asked to stop."""
    return stage.train(spec, store, runtime, _trainer, device)


def _trainer(job: Job) -> "VideoAwbc":
    return VideoAwbc(job, arguments(job, loss_type="dapo"))


class VideoAwbc(VideoGrpo):
    """No ratio, no clipping, no reference."""

    def __init__(self, job: Job, args: GRPOConfig):
        super().__init__(job, args, beta=0.0)
        self.construction = Construction(job)

    def _prefix(self, row: int) -> list[int]:
        return self.construction(self._positions[row], row % self.num_generations)

    def _rollout(self, row: int, *measured) -> dict:
        return super()._rollout(row, *measured) | {"prefix": len(self._prefixes[row])}

    def _log_rollouts(self) -> None:
        super()._log_rollouts()
        kept = self._metrics["train"]
        kept["train/prefix_length"].append(sum(map(len, self._prefixes)) / len(self._prefixes))
        kept["train/captions_cut"].append(self.construction.cut)
        self.construction.cut = 0

    def _advantages(self, of_trl: Tensor) -> Tensor:
        """With TaRO's epsilon, a hundredth of trl's; negative ones too: the loss leaves them out."""
        rewards = [row["reward"] for row in self._rollouts]
        found = advantages(rewards, self._positions, self.spec.scale_rewards, TARO_EPSILON)
        return torch.tensor(found, dtype=of_trl.dtype, device=of_trl.device)

    def _loss(self, model, inputs) -> Tensor:
        """-max(A, 0) log p, summed over this pass and divided by the response tokens of all rollouts of the step.

        Rollouts of no weight count in that mean, but are not run through the model. The logged entropy is that of the
        others.
        """
        weights = inputs["advantages"].clamp(min=0)
        rows = weights.nonzero().flatten()
        if not len(rows):
            rows = rows.new_zeros(1)  # some forward pass there must be: it gives a gradient of zeros
        self._positions = [self._positions[row] for row in rows.tolist()]
        ids, mask = inputs["completion_ids"][rows], inputs["completion_mask"][rows]
        logps, entropies, _ = self._get_per_token_logps_and_entropies(
            model, ids, mask, logits_to_keep=ids.shape[1], compute_entropy=True
        )
        self._metrics["train"]["entropy"].append(((entropies * mask).sum() / mask.sum()).item())
        return -(weights[rows, None] * logps * mask).sum() / inputs["num_items_in_batch"]
