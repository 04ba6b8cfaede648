"""The shared policy is the plain one, computed otherwise: in float32 on a CPU, to rounding."""

import copy

import pytest
import torch

from tests.training import sft_spec
from tests.unit.tiny_model import asked, tiny
from tvg.model.adapt import apply
from tvg.model.plain import PlainPolicy
from tvg.model.policy import Context, Sampling
from tvg.model.qwen import QwenPolicy
from tvg.model.shared import SharedPolicy, _batches
from tvg.settings import Lora

pytestmark = pytest.mark.exact
LENGTHS = [5, 9, 1, 7, 12, 3, 12]
PREFIXES = [[], [30, 31, 32], [], [], [40], [], []]


@pytest.fixture(scope="module")
def plain() -> PlainPolicy:
    return tiny()


@pytest.fixture(scope="module")
def shared(plain) -> SharedPolicy:
    return SharedPolicy(copy.deepcopy(plain.model), plain.tokenizer)


@pytest.fixture(scope="module")
def contexts(plain) -> list[Context]:
    """Three groups, of other grids, lengths and time steps, one without a video; their rows are not in order."""
    short = asked(plain, "When does a person jump?", count=8)
    long = asked(plain, "Find the moment: a person sits down.", count=13, height=140, width=84, fps=1.7, seed=1)
    mute = plain.encode_group([{"role": "user", "content": "Say something."}], None)
    return [short, long, short, mute, long, long, mute]


@pytest.fixture(scope="module")
def completions() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(20, 400, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return ids, mask


def close(a: torch.Tensor, b: torch.Tensor, of: str = "") -> None:
    """Equal to 1e-5 of the largest."""
    torch.testing.assert_close(
        a, b, rtol=0, atol=1e-5 * max(1e-3, b.abs().max().item()), msg=lambda text: f"{of} {text}"
    )


def with_adapters(policy: QwenPolicy) -> None:
    """Adapters that do something: their second matrices begin as zeros."""
    policy.model = apply(policy.model, sft_spec(lora=Lora(r=4, alpha=8)))
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.linspace(-0.1, 0.1, weight.numel()).view_as(weight)


# ---------------------------------------------------------------- scoring


def test_log_probabilities_and_entropies(plain, shared, contexts, completions):
    with torch.no_grad():
        a = plain.score(contexts, *completions, temperature=0.7, entropies=True)
        b = shared.score(contexts, *completions, temperature=0.7, entropies=True)
    close(b.logps, a.logps)
    close(b.entropies, a.entropies)


@pytest.mark.parametrize("setting", ["whole", "checkpointing", "few logits at once", "adapters", "frozen vision"])
def test_loss_kl_and_gradients(plain, contexts, completions, setting, monkeypatch):
    """A GRPO loss with a KL term against other weights, as the trainer builds it from log-probabilities."""
    if setting == "few logits at once":
        monkeypatch.setattr("tvg.model.shared.LOGITS_AT_ONCE", 3000)
    advantages, found = torch.linspace(-1, 1, len(LENGTHS))[:, None], []
    for make in (PlainPolicy, SharedPolicy):
        policy = make(copy.deepcopy(plain.model), plain.tokenizer)
        reference = copy.deepcopy(policy.model).requires_grad_(False)
        for weight in reference.parameters():
            weight.mul_(1.2)
        if setting == "adapters":
            with_adapters(policy)
        elif setting == "frozen vision":
            apply(policy.model, sft_spec(freeze_vision=True))
        elif setting == "checkpointing":
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
        with torch.no_grad():
            ahead = policy.score(contexts, *completions, model=reference).logps
        logps = policy.score(contexts, *completions).logps
        kl = (ahead - logps).exp() - (ahead - logps) - 1
        loss = ((0.04 * kl - (logps - logps.detach()).exp() * advantages) * completions[1]).sum() / sum(LENGTHS)
        loss.backward()
        grads = {name: weight.grad for name, weight in policy.model.named_parameters() if weight.grad is not None}
        found.append((loss.detach(), kl.detach(), grads))
    (loss, kl, grads), (other_loss, other_kl, others) = found
    close(other_loss, loss)
    close(other_kl, kl)
    assert grads.keys() == others.keys() and len(grads) > 5
    for name, grad in grads.items():
        close(others[name], grad, name)


def test_a_completion_of_vision_tokens_is_refused(shared, contexts):
    ids = torch.full((1, 2), shared.video_token)
    with pytest.raises(ValueError, match="vision tokens"):
        shared.score(contexts[:1], ids, torch.ones_like(ids))


# ---------------------------------------------------------------- generating


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_rollouts(plain, contexts, temperature, adapters):
    policies = [make(copy.deepcopy(plain.model), plain.tokenizer) for make in (PlainPolicy, SharedPolicy)]
    if adapters:
        for policy in policies:
            with_adapters(policy)
    a, b = (policy.generate(contexts, Sampling(12, temperature), range(7), PREFIXES) for policy in policies)
    assert a == b
    for one, other in zip(a, b, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-4)


def test_greedy_rollouts_are_the_librarys_own(shared, contexts):
    """Token by token those of its generate(), given our positions in its first pass."""
    context = contexts[3]  # without a video: the library's own positions are right
    ours = shared.generate([context], Sampling(24, temperature=0.0), [0])[0]
    ids = context.input_ids[None]
    theirs = shared.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24,
        suppress_tokens=shared.suppressed.tolist(),
    )[0, ids.shape[1] :]  # fmt: skip
    assert ours == theirs.tolist()


def test_rollouts_follow_the_distribution_that_is_scored(shared, contexts):
    """Teacher-forced: what a rollout says of its tokens' probabilities is what scoring it finds."""
    made = shared.generate(contexts, Sampling(20, temperature=0.8), range(7), PREFIXES)
    ids, mask = torch.zeros(7, 20, dtype=torch.long), torch.zeros(7, 20, dtype=torch.long)
    logps = torch.zeros(7, 20)
    for row, one in enumerate(made):
        ids[row, : len(one)], mask[row, : len(one)], logps[row, : len(one)] = (
            torch.tensor(one),
            1,
            torch.tensor(one.logps),
        )
    with torch.no_grad():
        scored = shared.score(contexts, ids, mask, temperature=0.8).logps
    close(logps, scored)


def test_rollouts_do_not_depend_on_their_neighbours(shared, contexts):
    sampling = Sampling(12)
    together = shared.generate(contexts, sampling, range(7))
    for row, context in enumerate(contexts):
        assert shared.generate([context], sampling, [row])[0] == together[row]


def test_prompts_are_encoded_in_batches(shared, contexts, monkeypatch):
    whole = shared.generate(contexts, Sampling(12), range(7))
    monkeypatch.setattr("tvg.model.shared.PREFILL_TOKENS", 100)
    assert shared.generate(contexts, Sampling(12), range(7)) == whole
    assert list(_batches([60, 30, 20, 150, 10], 100)) == [(0, 2), (2, 3), (3, 4), (4, 5)]


# ---------------------------------------------------------------- weights


def test_weights_are_the_models_own_memory(plain, contexts):
    policy = SharedPolicy(copy.deepcopy(plain.model), plain.tokenizer)
    before = policy.generate(contexts, Sampling(12), range(7))
    of_policy = {weight.untyped_storage().data_ptr() for weight in policy.model.parameters()}
    weights = policy.engine.weights
    read = [weights.head, weights.norm, *(each for layer in weights.layers for each in vars(layer).values())]
    assert all(tensor.untyped_storage().data_ptr() in of_policy for tensor in read)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(1.1)  # as an optimizer does, in place
    after = policy.generate(contexts, Sampling(12), range(7))
    fresh = SharedPolicy(copy.deepcopy(policy.model), plain.tokenizer).generate(contexts, Sampling(12), range(7))
    assert after == fresh != before


def test_weights_that_were_moved_are_found_again(plain, contexts):
    policy = SharedPolicy(copy.deepcopy(plain.model), plain.tokenizer)
    policy.generate(contexts, Sampling(4), range(7))
    for weight in policy.model.parameters():
        weight.data = 1.1 * weight.data
    fresh = SharedPolicy(copy.deepcopy(policy.model), plain.tokenizer).generate(contexts, Sampling(12), range(7))
    assert policy.generate(contexts, Sampling(12), range(7)) == fresh


def test_a_shared_model_saves_and_loads_like_any_other(plain, contexts, tmp_path):
    policy = SharedPolicy(copy.deepcopy(plain.model), plain.tokenizer)
    policy.generate(contexts, Sampling(4), range(7))
    policy.model.save_pretrained(tmp_path)
    again = type(policy.model).from_pretrained(tmp_path)
    for (name, weight), other in zip(policy.model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, other), name
