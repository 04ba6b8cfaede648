"""Logits in float32 from half-precision factors.

The library rounds them to bfloat16, in which a logit of 20 is a multiple of 0.125: enough for sampling and scoring to
disagree by hundredths of a nat about one and the same token.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear


def logits(states: Tensor, weight: Tensor) -> Tensor:
    """(N, D) and (V, D) of one type -> (N, V) float32."""
    half = states.is_cuda and states.dtype.itemsize == 2
    return _Product.apply(states, weight) if half else linear(states, weight).float()


class _Product(torch.autograd.Function):
    """A matrix product that is not rounded; its gradient is, as that of any other product in half precision."""

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return torch.mm(states, weight.t(), out_dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        states, weight = ctx.saved_tensors
        grad = grad.to(states.dtype)
        return grad @ weight, grad.t() @ states


def working_dtype(weight: Tensor) -> torch.dtype:
    """The type that a matrix is multiplied in here: autocast's where it is on, else its own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
