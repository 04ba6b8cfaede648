"""Memory that runs out: an error that names the step, the samples and the dials, and a state that goes on."""

import pytest
import torch

from tests.training import DATA, PROMPT, QUICK, graded, grpo_spec, make_store, same_rows, sft_spec, weights_of
from tests.unit.test_predict import GROUND, evaluation
from tvg.errors import TvgError
from tvg.evaluate.predict import predict
from tvg.model.exhausted import Work
from tvg.model.plain import PlainPolicy
from tvg.model.qwen import unwrap
from tvg.select import difficulty
from tvg.settings import Lora
from tvg.spec import FilterSpec
from tvg.train import grpo, sft, stage
from tvg.train.record import Metrics

PLAIN = QUICK.model_copy(update={"policy": "plain", "save_every": 50})
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3 GiB"


@pytest.fixture(autouse=True)
def variance(monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)


def full(*_, **__):
    raise torch.OutOfMemoryError(FULL)


def from_step(step, method, at=1):
    """A method of a trainer or policy that finds no memory from the step on, at its call number `at` within it."""
    calls = {}

    def call(self, *arguments, **options):
        now = trainers[-1].state.global_step + 1 if trainers else 0
        calls[now] = calls.get(now, 0) + 1
        return full() if now >= step and calls[now] >= at else method(self, *arguments, **options)

    return call


trainers = []


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    trainers.clear()
    run = stage._run
    monkeypatch.setattr(stage, "_run", lambda trainer, folder: trainers.append(trainer) or run(trainer, folder))


@pytest.mark.parametrize(
    ("holder", "name", "at", "doing"),
    [(PlainPolicy, "generate", 1, "rollouts are generated"), (PlainPolicy, "score", 2, "completions are scored"),
     (torch.Tensor, "backward", 1, "gradients are computed"), (torch.optim.AdamW, "step", 1, "the optimiser")],
)  # fmt: skip
def test_a_training_names_what_did_not_fit_and_goes_on_from_there(tmp_path, monkeypatch, holder, name, at, doing):
    spec = grpo_spec(steps=3, prompts_per_step=2)
    straight = grpo.train(spec, make_store(tmp_path / "straight"), PLAIN, "cpu")
    store = make_store(tmp_path / "full")
    trainers.clear()
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, from_step(2, getattr(holder, name), at))
        with pytest.raises(TvgError, match=f"no GPU memory left while {doing}") as found:
            grpo.train(spec, store, PLAIN, "cpu")
    error, folder = found.value, store.stage(spec)
    assert error.where == "step 2" and "Tried to allocate" not in error.got and "out of memory" in error.got
    if "optimiser" not in doing:
        ids = {sample.id for sample in trainers[-1].job.order[2:4]}
        assert all(f"{ident} (32 visual tokens, " in error.got for ident in ids)
        assert ("4 completions" if "generated" in doing else "completions of ") in error.got
    for dial in ("rollouts_per_pass (now 8)", "gradient_checkpointing (now false)", "lora (now none)", "tvg plan"):
        assert dial in error.hint
    assert all(weight.grad is None for weight in trainers[-1].model.parameters()), "dropped before it is saved"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-1"]
    grpo.train(spec, store, PLAIN, "cpu")
    assert same_rows(Metrics(folder).rows()) == same_rows(Metrics(straight).rows())
    weights = weights_of(folder)
    assert all(torch.equal(weight, weights[name]) for name, weight in weights_of(straight).items())


def test_a_supervised_training_names_its_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(PlainPolicy, "score", from_step(2, PlainPolicy.score))
    store, spec = make_store(tmp_path), sft_spec()
    with pytest.raises(TvgError, match="while responses are scored") as found:
        sft.train(spec, store, PLAIN, "cpu")
    assert "toy-" in found.value.got and "completions of" in found.value.got
    assert (store.stage(spec) / "checkpoints" / "checkpoint-1").exists()


def test_an_evaluation_and_a_filter_name_their_queries_and_their_dial(tmp_path, monkeypatch):
    monkeypatch.setattr(PlainPolicy, "generate", full)
    store, spec = make_store(tmp_path), evaluation(settings=GROUND)
    with pytest.raises(TvgError, match="evaluate_batch") as found:
        predict(spec, store, PLAIN.model_copy(update={"evaluate_batch": 4}), "cpu")
    assert found.value.where == "evaluation on toy" and "toy-0 (32 visual tokens, 1 completions)" in found.value.got
    chosen = FilterSpec(
        version=1, model=spec.model, data=DATA, prompt=PROMPT, versions={}, above=0.0, num_generations=2
    )
    with pytest.raises(TvgError, match="generate_batch"):
        difficulty.run(chosen, store, PLAIN, "cpu")


def test_what_the_failed_work_held_is_free_before_anything_is_saved():
    def work(held):
        large = torch.zeros(10)
        held.append(torch.UntypedStorage._weak_ref(large.untyped_storage()))
        full()

    held = []
    with pytest.raises(TvgError), Work().told(lambda: "here", "none"):
        work(held)
    assert torch.UntypedStorage._expired(held[0])


@pytest.mark.parametrize("lora", [None, Lora(r=2, alpha=4)])
def test_no_gradient_goes_through_a_frozen_tower(tmp_path, lora):
    spec = grpo_spec(lora=lora)
    policy = stage._policy(spec, make_store(tmp_path), PLAIN.model_copy(update={"gradient_checkpointing": True}), "cpu")
    seen = []
    for block in unwrap(policy.model).model.visual.blocks:
        block.register_forward_hook(lambda _module, _inputs, out: seen.append(out.requires_grad))
    policy.model.train()
    chat = [{"role": "user", "content": "Find it."}]
    frames = next(iter(difficulty.FrameCache(make_store(tmp_path / "x").frames(DATA.frames)).values()))
    context = policy.encode_group(chat, frames)
    ids = torch.tensor([[5, 6, 7]])
    policy.score([context], ids, torch.ones_like(ids)).logps.sum().backward()
    assert seen and not any(seen)
    assert any(weight.grad is not None for name, weight in policy.model.named_parameters() if "language_model" in name)
