"""Peak GPU memory, foretold: against every storage that real layers take, against what was measured, dial by dial."""

import weakref

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tests.training import DATA, PROMPT, grpo_spec, sft_spec
from tests.unit.test_overview_forecast import grpo, make  # noqa: F401 - a fixture
from tests.unit.test_predict import evaluation
from tvg.model import adapt, plain, scratch, shared
from tvg.model.plain import PlainPolicy
from tvg.overview.cost import memory
from tvg.overview.cost.figures import QWEN
from tvg.overview.cost.memory import peak, rows_per_pass
from tvg.overview.cost.sizes import parameters
from tvg.overview.forecast import forecast
from tvg.overview.forecast_text import as_text
from tvg.plan import Plan
from tvg.settings import FramesSettings, Lora, Runtime
from tvg.spec import AwbcSpec, FilterSpec, HubModel, PathModel, ScratchModel
from tvg.store import identify
from tvg.train import arguments
from tvg.train.grpo import frozen_copy
from tvg.video.decode import Frames

SMALL_WORDS = ScratchModel(
    text={k: v for k, v in QWEN["3B"].text.items() if k != "vocab_size"}, vision=QWEN["3B"].vision
)
RELEASED = {size: HubModel(hub=f"Qwen/Qwen2.5-VL-{size}-Instruct", revision="x") for size in ("3B", "7B")}
PLAIN = Runtime(policy="plain")
GB = 1e9


def rehearsal(**changes):
    """The shape that trainings were measured at: 3B with few words, 2 prompts x 8 rollouts."""
    shape = {"init": SMALL_WORDS, "num_generations": 8, "max_completion_tokens": 128, "beta": 0.04}
    return grpo_spec(**{**shape, "data": wide(DATA), **changes})


def wide(data, **settings):
    """With the papers' frames."""
    return data.model_copy(update={"frames": data.frames.model_copy(update={"frames": FramesSettings(**settings)})})


def changed(spec, **values):
    return spec.model_copy(update=values)


# ---------------------------------------------------------------- against real layers


class Bytes(TorchDispatchMode):
    """The bytes of every storage that is made while it is on and alive, and the most that there were.

    known: a model whose weights were there before.
    """

    def __init__(self, known):
        super().__init__()
        self.now = self.most = 0
        self.alive = {weight.untyped_storage()._cdata: 0 for weight in (*known.parameters(), *known.buffers())}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.alive:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage._cdata)
        return out

    def _gone(self, key):
        self.now -= self.alive.pop(key)


SIZES = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4,
         "num_key_value_heads": 2}  # fmt: skip
SEEN = {"hidden_size": 64, "intermediate_size": 128, "depth": 4, "num_heads": 2}
ROWS, COMPLETION, FRAMES, SIDE = 4, 16, 32, 112


def taken(policy_of, spec, runtime):
    """The most that one pass takes, the weights that are there before it left out; and the tokens of its question."""
    model, tokenizer = scratch.build(ScratchModel(text=SIZES, vision=SEEN))
    if runtime.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if spec.lora:
        for weight in model.parameters():
            weight.data = weight.data.bfloat16()
    model = adapt.apply(model, spec).train()
    for weight in model.parameters():
        weight.data = weight.data.float() if weight.requires_grad else weight.data
    policy = policy_of(model, tokenizer)
    half = runtime.precision != "float32"
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if half else "no")
    pixels = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    frames = Frames(pixels, np.arange(FRAMES) / 2, 2.0, FRAMES / 2, "noise")
    context = policy.encode_group([{"role": "user", "content": "Find it."}], frames)
    ids = torch.randint(10, 50, (ROWS, COMPLETION))
    with Bytes(model) as counted:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logps = policy.score(
                [context] * ROWS, ids, torch.ones_like(ids), model=accelerator.prepare_model(model)
            ).logps
        logps.sum().backward()
        del logps
    AcceleratorState._reset_state()
    return counted.most, len(context.input_ids) - FRAMES // 2 * (SIDE // 28) ** 2


CASES = {
    "plain": {},
    "stored": {"gradient_checkpointing": False},
    "whole": {"freeze_vision": False},
    "adapters": {"lora": Lora(r=2)},
    "float32": {"precision": "float32"},
    "shared": {"policy": "shared"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_pass_takes_what_is_foretold(case, monkeypatch):
    options = CASES[case]
    runtime = Runtime(**{"policy": "plain", **{k: v for k, v in options.items() if k in Runtime.model_fields}})
    spec = grpo_spec(
        init=ScratchModel(text=SIZES, vision=SEEN), prompts_per_step=1, num_generations=ROWS, beta=0.0,
        max_completion_tokens=COMPLETION, data=wide(DATA, max_pixels=SIDE**2, min_pixels=SIDE**2),
        **{k: v for k, v in options.items() if k not in Runtime.model_fields},
    )  # fmt: skip
    counts = parameters(spec.init)
    model = memory._Model(counts, memory.layer_of(spec, runtime), runtime.policy)
    visual = memory.visual_tokens(spec, FRAMES)
    assert visual == FRAMES / 2 * (SIDE / 28) ** 2
    policy = shared.SharedPolicy if runtime.policy == "shared" else PlainPolicy
    counted, question = taken(policy, spec, runtime)
    monkeypatch.setattr(memory, "TEXT_TOKENS", question)
    one = memory.one_pass(spec, runtime, counts, visual)
    moments = memory._learning(spec, runtime, model, one, memory.trained(spec, counts))
    found = max(sum(parts.values()) for _, parts in moments)
    assert 0.95 < found / counted < 1.25


# ---------------------------------------------------------------- against what was measured on an H200


def test_trainings_that_were_measured():
    found = peak(rehearsal(), PLAIN, frames=100)
    in_half = found.parts["gradients"] - found.parts["reference"]  # which then was float32, as gradients are
    assert (found.total + in_half) / GB == pytest.approx(76, rel=0.05)
    spec = AwbcSpec(
        **{k: v for k, v in rehearsal(max_completion_tokens=160) if k in AwbcSpec.model_fields and k != "kind"}
    )
    every = peak(spec, PLAIN, frames=100)
    some = spec.model_copy(update={"num_generations": 5, "prompts_per_step": 2})  # four better than their mean, of five
    assert peak(some, PLAIN, frames=100).total / GB == pytest.approx(56, rel=0.1)
    assert every.total > peak(some, PLAIN, frames=100).total, "all but one may be better than their mean"


@pytest.mark.parametrize(("policy", "videos", "measured"), [("plain", 8, 33), ("shared", 1, 16.5)])
def test_the_loss_that_was_measured(policy, videos, measured):
    """Weights and gradients in bfloat16, the vision tower trained, no optimiser: no training of ours."""
    counts, runtime = parameters(RELEASED["3B"]), Runtime(policy=policy)
    prompt, rows, completion = 3720, 8, 256
    tokens = rows * (prompt + completion) if policy == "plain" else prompt + rows * completion
    row = (completion + 1) * counts.shape.text["vocab_size"]
    one = memory.Pass(tokens, videos * 3600 * 4, rows * row, row, 1)
    model = memory._Model(counts, memory.LOW, policy)
    spec, gradients = rehearsal(freeze_vision=False), counts.total * memory.HALF
    moments = memory._learning(spec, runtime, model, one, gradients // memory.SINGLE)
    found = memory._most({"weights": counts.total * memory.HALF}, list(moments))
    assert found.total / GB == pytest.approx(measured, rel=0.2)


# ---------------------------------------------------------------- parts and dials


def test_what_stands_is_exact():
    spec, counts = rehearsal(), parameters(SMALL_WORDS)
    learning = counts.total - (counts.vision - counts.merger)
    parts = peak(spec, PLAIN).parts
    assert parts["weights"] == 4 * counts.total and parts["Adam"] == 8 * learning
    assert parts["gradients"] == 4 * learning and parts["reference"] == memory.reference(spec, counts, memory.MIXED)
    assert peak(spec, changed(PLAIN, precision="float32")).parts["reference"] == 4 * learning
    assert "reference" not in peak(rehearsal(beta=0.0), PLAIN).parts
    adapted = peak(rehearsal(lora=Lora(r=16)), PLAIN).parts
    assert 2 * counts.total < adapted["weights"] < 2.1 * counts.total and "reference" not in adapted
    assert "copy for rollouts" not in parts and peak(spec, Runtime(policy="shared")).parts["copy for rollouts"] == (
        2 * (counts.total - counts.vision)
    )


@pytest.mark.parametrize("freeze_vision", [True, False])
def test_the_reference_takes_what_is_foretold(freeze_vision):
    spec = grpo_spec(init=ScratchModel(text=SIZES, vision=SEEN), freeze_vision=freeze_vision)
    model = adapt.apply(scratch.build(spec.init)[0], spec)
    there = {id(weight) for weight in model.parameters()}
    copied = [weight for weight in frozen_copy(model, torch.bfloat16).parameters() if id(weight) not in there]
    assert sum(weight.nbytes for weight in copied) == memory.reference(spec, parameters(spec.init), memory.MIXED)


def test_on_eight_gpus_the_7b_model_fits_an_h200():
    spec = rehearsal(init=RELEASED["7B"], prompts_per_step=8, freeze_vision=False, max_completion_tokens=512)
    runtime = Runtime(shard_optimizer=True, compile=True)
    one, eight = peak(spec, runtime), peak(spec, runtime, gpus=8)
    learning = parameters(RELEASED["7B"]).total
    assert one.parts["Adam"] == 8 * learning and eight.parts["Adam"] == learning
    assert eight.parts["gradients"] == 4 * learning, "whatever the moment"
    assert eight.total < 141 * GB < one.total
    whole = peak(spec, changed(runtime, shard_optimizer=False), gpus=8)
    assert whole.parts["Adam"] == 8 * learning and whole.total > 141 * GB
    found = next(dial for dial in memory.dials(spec, runtime) if dial.name == "shard_optimizer")
    assert found.saves == one.total - eight.total and not found.science and found.to == "on 8 GPUs"


@pytest.mark.parametrize(
    ("runtime", "lower"),
    [({"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
     ({"rollouts_per_pass": 16}, {"rollouts_per_pass": 8}), ({"policy": "plain"}, {"policy": "shared"}),
     ({"generate_batch": 512}, {"generate_batch": 16}), ({"precision": "float32"}, {"precision": "auto"})],
)  # fmt: skip
def test_each_runtime_dial_lowers_it(runtime, lower):
    spec = rehearsal(prompts_per_step=64, lora=Lora(r=16))
    now = PLAIN.model_copy(update=runtime)
    assert peak(spec, now.model_copy(update=lower)).total < peak(spec, now).total
    (name,) = lower
    found = next(dial for dial in memory.dials(spec, now) if dial.name == name)
    if lower[name] == getattr(rehearsal(), "num_generations", None) or isinstance(lower[name], bool | str):
        saved = peak(spec, now).total - peak(spec, now.model_copy(update=lower)).total
        assert found.saves == pytest.approx(saved) and not found.science


def test_dials_that_make_another_training_are_marked():
    found = {
        dial.name: dial for dial in memory.dials(rehearsal(freeze_vision=False, max_completion_tokens=4096), PLAIN)
    }
    for name in ("lora", "freeze_vision", "beta", "max_completion_tokens", "total_pixels"):
        assert found[name].science and found[name].saves > 0
    assert not found.keys() & {"rollouts_per_pass", "gradient_checkpointing"}, "turned already"
    assert memory.dials(grpo_spec(), PLAIN) == [], "a small model fits anywhere"


def test_longer_videos_and_completions_take_more():
    spec = rehearsal()
    assert memory.visual_tokens(spec) == 3584
    assert memory.visual_tokens(spec, 60) <= 3584 < memory.visual_tokens(spec, 768) == 384 * 16
    assert peak(spec, PLAIN, frames=768).total > peak(spec, PLAIN, frames=60).total
    assert peak(changed(spec, max_completion_tokens=512), PLAIN).total > peak(spec, PLAIN).total


def test_models_of_two_sizes_and_of_none():
    runtime, specs = PLAIN, {size: rehearsal(init=model) for size, model in RELEASED.items()}
    assert peak(specs["7B"], runtime).total > 2 * peak(specs["3B"], runtime).total
    assert peak(rehearsal(init=PathModel(path="nowhere")), runtime) is None
    assert peak(rehearsal(init=HubModel(hub="someone/model", revision="x")), runtime) is None


def test_jobs_that_only_answer():
    spec = evaluation(model=RELEASED["3B"], data=wide(DATA))
    counts = parameters(RELEASED["3B"])
    found = peak(spec, PLAIN)
    assert found.parts["weights"] == 2 * counts.total and found.at == "generation"
    assert peak(spec, PLAIN.model_copy(update={"evaluate_batch": 1})).total < found.total
    assert [dial.name for dial in memory.dials(spec, PLAIN)][:1] == ["evaluate_batch"]
    chosen = FilterSpec(
        version=1, model=RELEASED["3B"], data=wide(DATA), prompt=PROMPT, versions={}, above=0.0, num_generations=1
    )  # fmt: skip
    assert peak(chosen, PLAIN).total > found.total, "64 prompts at a time, not 8"


def test_numbers_that_stand_elsewhere_too():
    assert memory.LOGITS_AT_ONCE == {"plain": plain.LOGITS_AT_ONCE, "shared": shared.LOGITS_AT_ONCE}
    assert memory.PREFILL_TOKENS == shared.PREFILL_TOKENS
    for total, at_most, group in ((64, 24, 8), (64, 8, 8), (8, 64, 8), (60, 8, 1), (64, 8, 1)):
        assert rows_per_pass(total, at_most, group) == arguments.rows_per_pass(total, at_most, group)


# ---------------------------------------------------------------- on a terminal


def test_the_plan_tells_each_stage_s_memory_and_dials(make):  # noqa: F811
    plan = make("3b")
    found = forecast(plan)
    sizes = {one.id: one.memory for one in found.trainings}
    main = sizes[identify(grpo(plan))]
    assert main.total == peak(grpo(plan), plan.scale.runtime).total and all(sizes.values())
    text = as_text(found)
    assert max(map(len, text.splitlines())) <= 100
    for told in ("GPU memory", f"~{main.total / GB:.0f} GB", "Adam 25", "*lora r 16 (-", "rollouts_per_pass 1 (-"):
        assert told in text
    small = as_text(forecast(make("mini")))
    assert "< 8.0 GB" in small and "any GPU" in small and "less by" not in small


def test_a_model_that_nothing_is_known_of_is_unknown(make):  # noqa: F811
    folder = make().folder / "scales"
    scale = (folder / "3b.yaml").read_text()
    (folder / "3b.yaml").write_text(scale.replace("Qwen/Qwen2.5-VL-3B-Instruct", "someone/model"))
    plan = Plan.load({"scale": "3b", "experiments": ["time_r1-main"]})
    (one,) = forecast(plan).trainings
    assert one.memory is None and one.dials == []
    assert "unknown" in next(line for line in as_text(forecast(plan)).splitlines() if line.startswith(one.id))


def test_a_supervised_stage_counts_its_own_batch():
    spec = sft_spec(init=RELEASED["3B"], data=wide(DATA), batch=64)
    assert [dial.name for dial in memory.dials(spec, PLAIN)][:2] == ["shard_optimizer", "rollouts_per_pass"]
    assert peak(spec, PLAIN).total > peak(spec, PLAIN.model_copy(update={"rollouts_per_pass": 1})).total
