"""Does the policy see the video? Stacks that lose the pixels raise nothing, so a training asks before it starts."""

from dataclasses import replace

import torch

from tvg.model.policy import Context, Policy


@torch.no_grad()
def sees_video(policy: Policy, context: Context) -> float:
    """The largest change of a log-probability, in nats, when the pixels are negated: 0 if they do not get in."""
    completion = context.input_ids[None, -3:]  # short: a vision token is in no completion
    mask = torch.ones_like(completion)
    training = policy.model.training
    policy.model.eval()
    seen, changed = (
        policy.score([shown], completion, mask).logps for shown in (context, replace(context, pixels=-context.pixels))
    )
    policy.model.train(training)
    return (seen - changed).abs().max().item()
