"""The shared policy on CUDA: kernels, recorded steps and flash attention against plain torch and the plain policy."""

import copy

import pytest
import torch

from tests.training import sft_spec
from tests.unit.tiny_model import asked, frames, tiny
from tvg.model.adapt import apply
from tvg.model.decoding import Engine
from tvg.model.plain import PlainPolicy
from tvg.model.policy import Context, Sampling
from tvg.model.qwen import QwenPolicy
from tvg.model.shared import SharedPolicy
from tvg.model.steps import TorchSteps
from tvg.settings import Lora

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
LENGTHS = [5, 9, 1, 7, 12, 3, 12]
HALF, WHOLE = torch.bfloat16, torch.float32


def policies(dtype: torch.dtype = HALF, compiled: bool = False, scale: float = 1.0) -> tuple[PlainPolicy, SharedPolicy]:
    """Both kinds over copies of one tiny model on the GPU, its matrices `scale` times as large."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    plain = tiny()
    for name, weight in plain.model.named_parameters():
        weight.data = weight.data.to(dtype) * (scale if weight.ndim > 1 and "embed" not in name else 1)
    plain.model.cuda()
    return plain, SharedPolicy(copy.deepcopy(plain.model), plain.tokenizer, compiled=compiled)


def batch(policy: QwenPolicy) -> list[Context]:
    short = asked(policy, "When does a person jump?", count=8)
    long = asked(policy, "Find the moment: a person sits down.", count=13, height=140, width=84, fps=1.7, seed=1)
    mute = policy.encode_group([{"role": "user", "content": "Say something."}], None)
    return [short, long, short, mute, long, long, mute]


def completions() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(20, 400, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    return ids, (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()


def sampled(policy: QwenPolicy, contexts: list[Context], count: int = 40) -> tuple[torch.Tensor, ...]:
    """Rollouts (ids, mask) and the log-probabilities that they were sampled with, on the CPU."""
    made = policy.generate(contexts, Sampling(count), range(len(contexts)))
    ids, mask, logps = (
        torch.zeros(len(made), count).long(),
        torch.zeros(len(made), count).long(),
        torch.zeros(len(made), count),
    )
    for row, one in enumerate(made):
        ids[row, : len(one)], mask[row, : len(one)] = torch.tensor(one), 1
        logps[row, : len(one)] = torch.tensor(one.logps)
    return ids, mask, logps


@pytest.mark.parametrize("compiled", [False, True])
def test_log_probabilities_are_the_plain_policys(compiled):
    plain, shared = policies(compiled=compiled, scale=0.25)
    contexts = batch(plain)
    with torch.no_grad():
        a, b = (policy.score(contexts, *completions(), entropies=True) for policy in (plain, shared))
    apart = (a.logps - b.logps)[completions()[1].bool()]
    assert apart.abs().mean() <= 0.03 and apart.mean().abs() <= 0.01
    assert (a.entropies - b.entropies).abs().mean() <= 0.03


def test_gradients_are_the_plain_policys():
    """In float32 within rounding; in bfloat16 they point the same way."""
    for dtype, least in ((WHOLE, 0.99999), (HALF, 0.98)):
        plain, shared = policies(dtype, scale=0.25)
        contexts, weights = batch(plain), torch.linspace(-1, 1, len(LENGTHS), device="cuda")[:, None]
        for policy in (plain, shared):
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
            policy.model.train()
            (policy.score(contexts, *completions()).logps * weights).sum().backward()
        grads = [torch.cat([w.grad.float().flatten() for w in p.model.parameters()]) for p in (plain, shared)]
        assert torch.cosine_similarity(*grads, dim=0) >= least, dtype


@pytest.mark.parametrize("dtype", [WHOLE, HALF])
@pytest.mark.parametrize("group", [1, 2, 8, 16])
def test_kernels_equal_plain_torch(dtype, group, monkeypatch):
    """The same tokens, forced, through both kinds of step: their log-probabilities agree."""
    _, shared = policies(dtype, scale=0.25)
    contexts = [context for context in batch(shared)[:4] for _ in range(group)]
    made = shared.generate(contexts, Sampling(300), range(len(contexts)))
    monkeypatch.setattr("tvg.model.decoding._steps", TorchSteps)
    monkeypatch.setattr(Engine, "_record", lambda *_: None)
    shared.engine.release()
    again = shared.generate(contexts, Sampling(300), range(len(contexts)), [list(one) for one in made])
    a, b = (torch.tensor([logp for one in each for logp in one.logps]) for each in (made, again))
    assert (a - b).abs().mean() <= (1e-5 if dtype == WHOLE else 0.01)


def test_greedy_rollouts_are_the_plain_policys():
    plain, shared = policies(WHOLE)
    contexts, sampling = batch(plain), Sampling(24, temperature=0.0)
    prefixes = [[], [30, 31, 32], [], [], [40], [], []]
    assert plain.generate(contexts, sampling, range(7), prefixes) == shared.generate(
        contexts, sampling, range(7), prefixes
    )


@pytest.mark.parametrize("kind", ["bfloat16", "float32 under autocast", "adapter"])
def test_what_is_scored_is_what_was_sampled_also_after_a_step(kind):
    _, shared = policies(HALF if kind != "float32 under autocast" else WHOLE, scale=0.25)
    if kind == "adapter":
        shared.model = apply(shared.model, sft_spec(lora=Lora(r=4, alpha=8)))
    contexts = batch(shared)
    for _ in range(2):
        with torch.no_grad():
            with torch.autocast("cuda", dtype=HALF, enabled=kind != "bfloat16"):  # it keeps cast weights till its end
                ids, mask, logps = sampled(shared, contexts)
                scored = shared.score(contexts, ids, mask).logps.cpu()
            assert ((scored - logps) * mask).abs().sum() / mask.sum() <= 0.02
            for weight in shared.model.parameters():  # an optimizer's step, in place
                weight.add_(0.1 * weight.std() * torch.randn_like(weight) if weight.numel() > 1 else 0)


def test_a_recorded_step_serves_the_next_batch_of_its_shape():
    _, shared = policies(WHOLE)
    first = asked(shared, "When does a person jump?", count=8)
    other = shared.encode_group([{"role": "user", "content": "And when does it end, say?"}], frames(10, seed=3))
    sampling = Sampling(20)
    one = shared.generate([first] * 4, sampling, range(4))
    steps = shared.engine.steps
    two = shared.generate([other] * 4, sampling, range(4))
    assert shared.engine.steps is steps, "the slots were made again"
    shared.engine.release()
    assert shared.generate([first] * 4, sampling, range(4)) == one and one != two
    shared.engine.release()
    assert shared.generate([other] * 4, sampling, range(4)) == two
