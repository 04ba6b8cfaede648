"""Both trainers on CUDA in bfloat16, as a job on a GPU runs them: a tiny model of random weights, three steps each."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from tests.training import frozen, graded, grpo_spec, make_store, sft_spec, untrained, weights_of
from tests.unit import test_awbc, test_probes, test_sharded
from tvg.model.load import load
from tvg.model.shared import SharedPolicy
from tvg.settings import Lora, Runtime
from tvg.store import Store
from tvg.train import awbc, grpo, processes, sft
from tvg.train.launch import launch
from tvg.train.record import Metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
RUNTIME = Runtime(rollouts_per_pass=4, save_every=2)
LORA = Lora(r=4, alpha=8)
MIXED = {"ground": 0.5, "describe": 0.5}
TOGETHER = grpo_spec(prompts_per_step=4, tasks=MIXED, learning_rate=1e-4)


@pytest.fixture(autouse=True)
def variance(monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)


def check(folder, spec):
    """Something learnt, the vision tower did not, in bfloat16 on the GPU, with finite numbers."""
    before, after = untrained(spec), {name: weight.cpu() for name, weight in weights_of(folder).items()}
    assert any(not torch.equal(weight, before[name].to(weight.dtype)) for name, weight in after.items())
    for name in filter(frozen, after):
        assert torch.equal(after[name].bfloat16(), before[name].bfloat16()), name
    rows, run = Metrics(folder).rows(), json.loads((folder / "run.json").read_text())
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(torch.isfinite(torch.tensor(row["train/grad_norm"])) and row["train/grad_norm"] > 0 for row in rows)
    assert run["exit"] == 0 and run["precision"] == "bfloat16" and run["peak_memory_gb"] > 0
    assert (folder / "model.done").exists()


@pytest.mark.parametrize("lora", [None, LORA])
def test_sft(tmp_path, lora):
    spec = sft_spec(lora=lora, tasks=MIXED)
    folder = sft.train(spec, make_store(tmp_path), RUNTIME)
    check(folder, spec)
    losses = [row["train/loss"] for row in Metrics(folder).rows()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("lora", [None, LORA])
def test_grpo(tmp_path, lora, monkeypatch):
    shown, score = [], SharedPolicy.score

    def watched(self, contexts, *args, **kwargs):
        shown.extend(contexts)
        return score(self, contexts, *args, **kwargs)

    monkeypatch.setattr(SharedPolicy, "score", watched)
    spec = grpo_spec(lora=lora, tasks=MIXED)
    folder = grpo.train(spec, make_store(tmp_path), RUNTIME)
    check(folder, spec)
    rows = Metrics(folder).rows()
    assert rows[0]["train/kl"] == pytest.approx(0, abs=1e-3), "the reference is the model at the start"
    assert shown and all(context.pixels is not None for context in shown)
    assert (folder / "completions" / "step-000001.parquet").exists()


def test_awbc_with_the_temporal_probe_and_the_fixed_set(tmp_path):
    spec = test_awbc.spec_of(steps=3, rewards=test_probes.TEMPORAL)
    runtime = RUNTIME.model_copy(update={"fixed_set_every": 2, "fixed_set_count": 3})
    folder = awbc.train(spec, test_awbc.store_of(tmp_path), runtime)
    check(folder, spec)
    assert all("train/logprob_drop" in row and row["train/prefix_length"] > 0 for row in Metrics(folder).rows())
    assert ["fixed_set/miou" in row for row in Metrics(folder).rows()] == [True, True, True]
    assert (test_awbc.completions(folder)["logprob_drop"].abs() > 0).any()


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    spec, store, append = grpo_spec(), make_store(tmp_path), Metrics.append

    def interrupted(self, step, values):
        append(self, step, values)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Metrics, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grpo.train(spec, store, RUNTIME.model_copy(update={"save_every": 1}))
    assert (store.stage(spec) / "checkpoints" / "checkpoint-1").exists()
    monkeypatch.setattr(Metrics, "append", append)
    check(grpo.train(spec, store, RUNTIME), spec)


def test_attention_of_a_loaded_model_has_finite_gradients():
    """What cuDNN's kernel turns into NaN: a mask, a length of 64 modulo 128, and scores far below zero."""
    load(grpo_spec().init, None, device="cuda", dtype=torch.bfloat16)
    length, width = 704, 64
    query = torch.randn(1, 1, length, width, device="cuda", dtype=torch.bfloat16) * 0.1
    key, value = query.clone(), query.clone()
    query[..., 0], key[..., 0] = 1.0, -120 * width**0.5
    query.requires_grad_()
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device="cuda").tril()
    torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).float().sum().backward()
    assert query.grad.isfinite().all()


def both(root: Path) -> None:
    """What each process of the next test does: in float32, where two GPUs must do what one does, and in bfloat16."""
    grpo.score = graded
    with processes.joined("cuda"):
        for precision in ("float32", "bfloat16"):
            store = Store(root / precision / "results", root / precision / "data")
            grpo.train(TOGETHER, store, RUNTIME.model_copy(update={"precision": precision}))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_grpo_on_two_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path]))
    for precision in ("float32", "bfloat16"):
        make_store(tmp_path / precision)
    code = "import sys; from tests.gpu.test_train_gpu import *; both(Path(sys.argv[1]))"
    assert launch([sys.executable, "-c", code, str(tmp_path)], 2) == 0
    folders = [Store(tmp_path / name / "results").stage(TOGETHER) for name in ("float32", "bfloat16")]
    check(folders[1], TOGETHER)
    assert json.loads((folders[1] / "run.json").read_text())["processes"] == 2
    alone = grpo.train(TOGETHER, make_store(tmp_path / "one"), RUNTIME.model_copy(update={"precision": "float32"}))
    for mine, theirs in zip(Metrics(alone).rows(), Metrics(folders[0]).rows(), strict=True):
        for name in ("loss", "grad_norm", "reward", "length"):
            key = f"train/{name}"
            assert theirs[key] == pytest.approx(mine[key], rel=1e-3, abs=1e-5), key


def resumed(root: Path) -> None:
    """What each process of the next test does."""
    with processes.joined("cuda"):
        test_sharded.stopped(root, "two", "cuda")
        test_sharded.train(root, "two", "cuda")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_sharded_run_on_two_gpus_goes_on_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path]))
    for name in ("one", "two"):
        make_store(tmp_path / name)
    code = "import sys; from tests.gpu.test_train_gpu import *; resumed(Path(sys.argv[1]))"
    assert launch([sys.executable, "-c", code, str(tmp_path)], 2) == 0
    two, alone = test_sharded.folder(tmp_path, "two"), test_sharded.train(tmp_path, "one", "cuda")
    for mine, theirs in zip(Metrics(alone).rows(), Metrics(two).rows(), strict=True):
        assert theirs["train/grad_norm"] == pytest.approx(mine["train/grad_norm"], rel=1e-3)
