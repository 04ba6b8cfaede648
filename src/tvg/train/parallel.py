"""What learning takes on each of several GPUs: gradients once, and AdamW's moments of a share of the weights.

The weights are whole on every GPU, since rollouts and packed scoring read all of them: ZeRO's first stage
(arXiv 1910.02054), not FSDP. Of 7 billion weights on 8 GPUs, the moments take 8 GB of each instead of 61.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from tvg.train import processes

KEPT = ("step", "exp_avg", "exp_avg_sq")  # by AdamW, of each weight


def owners(sizes: Sequence[int], count: int) -> list[int]:
    """Which of `count` processes keeps the moments of each weight: the largest first, to whoever has least so far.

    >>> owners([1, 5, 2, 3], 2)
    [1, 0, 1, 1]
    """
    of, load = [0] * len(sizes), [0] * count
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        of[place] = load.index(min(load))
        load[of[place]] += sizes[place]
    return of


class ShardedAdamW(AdamW):
    """AdamW whose step on each weight is made by one process, which keeps its moments and tells the others.

    torch's ZeroRedundancyOptimizer does not do (2.13): it has no state to give where accelerate wraps it, puts fused
    AdamW's counts of steps on the CPU as it loads, and gathers whole shares, pickled, in every GPU's memory.
    """

    def __init__(self, weights: Any, **settings: Any):
        super().__init__(weights, **settings)
        every = self._every()
        self._owner = dict(zip(every, owners([weight.numel() for weight in every], processes.count()), strict=True))

    def _every(self) -> list[Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    def _owns(self, weight: Tensor) -> bool:
        return self._owner[weight] == processes.rank()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """As AdamW's; all processes take part."""
        whole = [group["params"] for group in self.param_groups]
        for group in self.param_groups:
            group["params"] = [weight for weight in group["params"] if self._owns(weight)]
        loss = super().step(closure)
        for group, weights in zip(self.param_groups, whole, strict=True):
            group["params"] = weights
        for weight, owner in self._owner.items():
            distributed.broadcast(weight.data, owner)
        return loss

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Meanwhile the first process's state is that of an unsharded AdamW, what others keep being on the CPU.

        After a step. All processes take part, with room for one more weight on each GPU.
        """
        others = {weight: {} for weight in self._owner if processes.is_first() and not self._owns(weight)}
        for weight, owner in self._owner.items():
            for name in KEPT:
                shape = () if name == "step" else weight.shape
                value = self.state[weight][name] if self._owns(weight) else weight.new_empty(shape)
                distributed.broadcast(value, owner)
                if weight in others:
                    others[weight][name] = value.cpu()
        self.state.update(others)
        try:
            yield
        finally:
            for weight in others:
                del self.state[weight]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From that of any AdamW, of which what others keep is left out."""
        names = [name for group in state_dict["param_groups"] for name in group["params"]]
        own = {name for name, weight in zip(names, self._every(), strict=True) if self._owns(weight)}
        state = {name: kept for name, kept in state_dict["state"].items() if name in own}
        super().load_state_dict({**state_dict, "state": state})


def hold_once(wrapped: DistributedDataParallel) -> None:
    """Have gradients lie, all the time, in the buckets that torch sums them in over the processes.

    Needs gradient_as_bucket_view. By itself torch moves them there in a step's last pass, so that those of its other
    passes lie beside empty buckets, and it lays the buckets out anew after the first backward pass. So two passes are
    run here, of nothing and with the last weights first, and from now on gradients are zeroed instead of dropped.
    """
    module, nothing = wrapped.module, nn.Module()
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    nothing.forward = lambda factor: factor * torch.stack([weight.sum() for weight in learning]).sum()
    wrapped.module = nothing
    for _ in range(2):
        module.zero_grad(set_to_none=True)
        wrapped(0).backward()  # on GPUs it wants some argument
    wrapped.module = module
    wrapped.zero_grad = partial(module.zero_grad, set_to_none=False)


class Parallel:
    """What both trainers do beside the library's where several processes train. Mixed in before a trl trainer."""

    def get_optimizer_cls_and_kwargs(self, *args: Any) -> tuple[type, dict[str, Any]]:
        kind, settings = super().get_optimizer_cls_and_kwargs(*args)
        sharded = self.job.runtime.shard_optimizer and processes.count() > 1
        return ShardedAdamW if sharded else kind, settings

    def _prepare_for_training(self, *args: Any) -> tuple[nn.Module, Any]:
        self.accelerator.ddp_handler.gradient_as_bucket_view = True
        model, rows = super()._prepare_for_training(*args)
        if processes.count() > 1:
            hold_once(model)
        return model, rows

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        own = self.optimizer.optimizer  # inside accelerate's
        with own.gathered() if isinstance(own, ShardedAdamW) else nullcontext():
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The library would read the moments of all weights into the memory of every GPU."""
        if checkpoint is None:
            return
        for name, into in (("optimizer.pt", self.optimizer), ("scheduler.pt", self.lr_scheduler)):
            into.load_state_dict(torch.load(Path(checkpoint) / name, map_location="cpu", mmap=True, weights_only=True))
