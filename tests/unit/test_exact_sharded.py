"""The shared policy over weights that FSDP has cut into shards: two processes, float32, on a CPU."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.unit.tiny_model import asked, tiny
from tvg.model.policy import Sampling
from tvg.model.shared import SharedPolicy

pytestmark = pytest.mark.exact
PROCESSES = 2


def compare(rank: int, port: int) -> None:
    """One process: its own groups through the sharded model, and all that it must equal through a whole one."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    plain = tiny()
    shared = SharedPolicy(copy.deepcopy(plain.model), plain.tokenizer)
    for policy in (plain, shared):
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    mesh, model = init_device_mesh("cpu", (PROCESSES,)), shared.model
    for part in (*model.model.visual.blocks, *model.model.language_model.layers, model):
        fully_shard(part, mesh=mesh)

    short = asked(plain, "When does a person jump?", count=8)
    long = asked(plain, "Find the moment: a person sits down.", count=13, height=140, width=84, fps=1.7, seed=1)
    contexts = [short, long, short] if rank == 0 else [long, long, short]
    seeds, sampling = [10 * rank + row for row in range(3)], Sampling(9)
    rollouts = plain.generate(contexts, sampling, seeds)
    assert shared.generate(contexts, sampling, seeds) == rollouts

    ids = torch.randint(20, 400, (3, 9), generator=torch.Generator().manual_seed(rank))
    found, expected = (policy.score(contexts, ids, torch.ones_like(ids)).logps for policy in (shared, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.mean().backward()
    expected.mean().backward()
    for (name, weight), whole in zip(model.named_parameters(), plain.model.parameters(), strict=True):
        dist.all_reduce(whole.grad)
        mean = whole.grad / PROCESSES
        torch.testing.assert_close(
            weight.grad.full_tensor(), mean, rtol=0, atol=1e-5 * mean.abs().max().item(), msg=name
        )

    with torch.no_grad():
        for weight in (*model.parameters(), *plain.model.parameters()):
            weight.mul_(1.1)
    assert shared.generate(contexts, sampling, seeds) == plain.generate(contexts, sampling, seeds) != rollouts
    dist.destroy_process_group()


def test_scoring_gradients_and_rollouts_of_a_sharded_model():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(compare, (port,), PROCESSES)
