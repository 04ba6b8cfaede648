"""MLPs widened by zeros: the same numbers, zeros that stay, and the released widths in files."""

import copy

import torch

from tests.unit.tiny_model import SCRATCH, asked
from tvg.model import scratch
from tvg.model.load import read, save
from tvg.model.plain import PlainPolicy
from tvg.model.policy import Sampling
from tvg.model.shared import SharedPolicy
from tvg.model.widths import STEP

ODD = SCRATCH.model_copy(update={"vision": {**SCRATCH.vision, "intermediate_size": 60}})


def test_a_widened_model_learns_as_the_narrow_one_and_is_saved_narrow(tmp_path):
    model, tokenizer = scratch.build(ODD)
    plain, shared = PlainPolicy(model, tokenizer), SharedPolicy(copy.deepcopy(model), tokenizer)
    mlp = shared.model.model.visual.blocks[0].mlp
    assert mlp.gate_proj.weight.shape == (STEP, 32) and mlp.down_proj.weight.shape == (32, STEP)
    context = asked(plain, "When does a person jump?")
    ids = torch.tensor([[30, 31, 32, 33]])
    for policy in (plain, shared):
        policy.model.train()
        optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-2, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (-policy.score([context], ids, torch.ones_like(ids)).logps.mean()).backward()
            optimizer.step()
    assert not mlp.gate_proj.weight[60:].any() and not mlp.gate_proj.bias[60:].any()
    assert not mlp.down_proj.weight[:, 60:].any()
    assert plain.generate([context], Sampling(8), [0]) == shared.generate([context], Sampling(8), [0])

    save(shared, tmp_path / "model")
    again, _ = read(tmp_path / "model", torch.float32)
    for (name, weight), other in zip(plain.model.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(other, weight, rtol=0, atol=1e-3, msg=name)  # three steps of Adam magnify rounding
