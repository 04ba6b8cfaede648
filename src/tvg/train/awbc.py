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
from tvg.train import processes, stage
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

    def _keep(self) -> None:
        super()._keep()
        kept, lengths = self._metrics["train"], processes.gathered([len(prefix) for prefix in self._prefixes])
        kept["train/prefix_length"].append(sum(lengths) / len(lengths))
        kept["train/captions_cut"].append(sum(processes.gathered([self.construction.cut])))
        self.construction.cut = 0

    def _advantages(self, of_trl: Tensor) -> Tensor:
        """With TaRO's epsilon, a hundredth of trl's; negative ones too: the loss leaves them out."""
        rewards = processes.gathered([row["reward"] for row in self._rollouts])
        positions = processes.gathered(self._positions)
        found = advantages(rewards, positions, self.spec.scale_rewards, TARO_EPSILON)
        own = found[processes.rank() * len(of_trl) :][: len(of_trl)]
        return torch.tensor(own, dtype=of_trl.dtype, device=of_trl.device)

    def _loss(self, model, inputs) -> Tensor:
        """-max(A, 0) log p, summed over this pass and divided by the response tokens of all rollouts of the step.

        Rollouts of no weight count in that mean, but are not run through the model. The logged entropy is that of the
        others. The gradient of several processes is the mean of theirs: each loss is a share of so many times the mean.
        """
        weights = inputs["advantages"].clamp(min=0)
        rows = weights.nonzero().flatten()
        if not len(rows):
            rows = rows.new_zeros(1)  # some forward pass there must be: it gives a gradient of zeros
        self._positions = [self._positions[row] for row in rows.tolist()]
        ids, mask, self._sampled = (
            inputs[name][rows] for name in ("completion_ids", "completion_mask", "sampling_per_token_logps")
        )
        logps, entropies, _ = self._get_per_token_logps_and_entropies(
            model, ids, mask, logits_to_keep=ids.shape[1], compute_entropy=True
        )
        total = self.accelerator.reduce(torch.stack([(entropies * mask).sum(), mask.sum()]))
        self._metrics["train"]["entropy"].append((total[0] / total[1]).item())
        return -(weights[rows, None] * logps * mask).sum() * processes.count() / inputs["num_items_in_batch"]
