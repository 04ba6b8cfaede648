"""GRPO on video, the real trainer at toy size: what it generates from and scores, what it learns, how it resumes."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas
import pytest
import torch
from pydantic import ValidationError

from tests.conftest import REPO
from tests.training import QUICK, frozen, graded, grpo_spec, make_store, same_rows, untrained, weights_of
from tvg.errors import TvgError
from tvg.model.question import visible
from tvg.model.shared import SharedPolicy
from tvg.sample import INVERSION_TASKS
from tvg.settings import Lora, RewardSettings, Runtime
from tvg.train import grpo, inputs
from tvg.train.record import Metrics
from tvg.train.schedule import schedule

MIXED = {"ground": 0.5, "complete_verb": 0.25, "describe": 0.25}
VECTORS = {case["id"]: case for case in json.loads((REPO / "tests/vectors/grpo.json").read_text())["cases"]}
ONE = {"format": RewardSettings(weight=1.0)}


@pytest.fixture(autouse=True)
def variance(monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "score", graded)
        store, spec = make_store(tmp_path_factory.mktemp("grpo")), grpo_spec(steps=5, tasks=MIXED)
        return grpo.train(spec, store, QUICK, "cpu"), spec, store


def completions(folder, step=1) -> pandas.DataFrame:
    return pandas.read_parquet(folder / "completions" / f"step-{step:06d}.parquet")


def spied(monkeypatch) -> list:
    """The calls of VideoGrpo._compute_loss: (trainer, its inputs)."""
    calls, loss = [], grpo.VideoGrpo._compute_loss

    def spy(self, model, inputs):
        calls.append((self, inputs))
        return loss(self, model, inputs)

    monkeypatch.setattr(grpo.VideoGrpo, "_compute_loss", spy)
    return calls


# ------------------------------------------------------------ what is learnt and kept


def test_weights_change_but_the_frozen_vision_tower_does_not(trained):
    folder, spec, _ = trained
    before, after = untrained(spec), weights_of(folder)
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == frozen(name), name


def test_metrics_of_each_step(trained):
    folder, _, _ = trained
    rows = Metrics(folder).rows()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    names = (
        "loss reward rewards/format reward_std length grad_norm learning_rate tokens_per_second kl entropy truncated"
    )
    names += " zero_std_groups unparsed top_verb_share generate_seconds step_seconds"
    assert {"time", *(f"train/{name}" for name in names.split())} <= set(rows[0])
    assert rows[0]["train/kl"] == 0 and rows[-1]["train/kl"] > 0
    assert not (folder / "checkpoints").exists() and (folder / "model.done").exists()
    assert json.loads((folder / "run.json").read_text())["exit"] == 0


def test_a_group_shares_one_sample_and_one_task(trained):
    folder, spec, _ = trained
    table = completions(folder)
    assert len(table) == spec.prompts_per_step * spec.num_generations
    groups = table.groupby("id", sort=False)
    assert len(groups) == spec.prompts_per_step
    assert (groups["task"].nunique() == 1).all() and (groups["query"].nunique() == 1).all()
    assert groups["rollout"].apply(list).tolist() == [list(range(spec.num_generations))] * spec.prompts_per_step
    assert (groups["completion"].nunique() > 1).all(), "rollouts of a group differ"
    assert groups["advantage"].sum().abs().max() < 1e-4


def test_metrics_agree_with_the_completions(trained):
    folder, spec, _ = trained
    row, table = Metrics(folder).rows()[0], completions(folder)
    assert row["train/reward"] == pytest.approx(table["reward"].mean())
    assert row["train/rewards/tiou"] == pytest.approx(table["rewards/tiou"].mean())
    assert row["train/reward_std"] == pytest.approx(table.groupby("id")["reward"].std().mean())
    assert row["train/unparsed"] == 1, "a random model answers nothing"
    assert row["train/top_verb_share"] == 0
    assert row["train/truncated"] <= 1 and row["train/length"] <= spec.max_completion_tokens


# ------------------------------------------------------------ the video reaches generation and loss


def test_generation_and_loss_see_the_same_pixels_and_the_loss_depends_on_them(tmp_path, monkeypatch):
    generated, calls = [], spied(monkeypatch)
    generate = SharedPolicy.generate

    def watched(self, contexts, *args, **kwargs):
        generated.extend(contexts)
        return generate(self, contexts, *args, **kwargs)

    monkeypatch.setattr(SharedPolicy, "generate", watched)
    grpo.train(grpo_spec(steps=1), make_store(tmp_path), QUICK, "cpu")
    trainer, inputs = calls[-1]
    shown = trainer._contexts
    assert {id(context) for context in generated} == {id(context) for context in shown.values()}
    assert all(context.pixels is not None and context.seconds_per_grid == 1.0 for context in shown.values())

    def logps():
        trainer._positions = inputs["position"].tolist()
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        width = inputs["completion_ids"].shape[1]
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width)[0]

    seen = logps()
    trainer._contexts = {at: replace(context, pixels=-context.pixels) for at, context in shown.items()}
    assert (logps() - seen).abs().max() > 1e-3


def test_a_groups_context_is_encoded_once(tmp_path, monkeypatch):
    encoded, encode = [], SharedPolicy.encode_group
    monkeypatch.setattr(SharedPolicy, "encode_group", lambda self, *args: encoded.append(1) or encode(self, *args))
    spec = grpo_spec(steps=2)
    grpo.train(spec, make_store(tmp_path), QUICK, "cpu")
    assert len(encoded) == 1 + spec.steps * spec.prompts_per_step  # one for the question whether it sees anything


def test_inversion_tasks_see_the_true_segment_alone(trained):
    folder, spec, store = trained
    samples, cache = inputs.read(spec.data, store, folder)
    order = schedule(spec, samples)
    assert {sample.task for sample in order} > {"ground"}
    for sample in order:
        frames = visible(sample, cache[sample.video])
        assert len(frames) == (6 if sample.task in INVERSION_TASKS else 16)  # 2.1 to 5.4 s of 8 s at 2 FPS


def test_pixels_lost_on_the_way_are_an_error(tmp_path, monkeypatch):
    packed = SharedPolicy._packed

    def blind(*args):
        inputs, resume = packed(*args)
        return {**inputs, "pixel_values_videos": 0 * inputs["pixel_values_videos"]}, resume

    monkeypatch.setattr(SharedPolicy, "_packed", blind)
    with pytest.raises(TvgError, match="does not see the video"):
        grpo.train(grpo_spec(), make_store(tmp_path), QUICK, "cpu")


# ------------------------------------------------------------ rewards and advantages


def scripted(values):
    """A reward that gives rollout k of every group values[k]."""
    turn = iter(range(10**9))
    return lambda rewards, *_: {name: values[next(turn) % len(values)] for name in rewards}


@pytest.mark.parametrize("case", ["sample_eps1e-4", "constant"])
def test_advantages_of_the_vectors_through_the_trainer(tmp_path, monkeypatch, case):
    vector = VECTORS[case]
    monkeypatch.setattr(grpo, "score", scripted(vector["rewards"]))
    folder = grpo.train(grpo_spec(steps=1, rewards=ONE), make_store(tmp_path), QUICK, "cpu")
    for _, group in completions(folder).groupby("id"):
        assert group["reward"].tolist() == vector["rewards"]
        assert group["advantage"].tolist() == pytest.approx(vector["advantages"], abs=1e-6)
    row = Metrics(folder).rows()[0]
    assert row["train/zero_std_groups"] == (case == "constant")
    assert row["train/reward_std"] == pytest.approx(vector["std_value"])


def test_a_group_without_variance_teaches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "score", scripted([1.0]))
    spec = grpo_spec(steps=2, beta=0.0)
    after = weights_of(grpo.train(spec, make_store(tmp_path), QUICK, "cpu"))
    assert all(torch.equal(weight, after[name]) for name, weight in untrained(spec).items())


@pytest.mark.parametrize("loss_type", ["bnpo", "grpo", "dr_grpo"])
def test_delta_bounds_the_ratio_of_bad_rollouts_as_a_dual_clip_does(tmp_path, monkeypatch, loss_type):
    calls, ratio = spied(monkeypatch), 10.0
    spec = grpo_spec(steps=1, beta=0.0, rewards=ONE, loss_type=loss_type, delta=3.0)
    grpo.train(spec, make_store(tmp_path), QUICK, "cpu")
    trainer, inputs = calls[-1]
    trainer._positions = inputs["position"].tolist()
    ids, mask = inputs["completion_ids"], inputs["completion_mask"]
    contexts = [trainer._contexts[position] for position in trainer._positions]
    with torch.no_grad():
        old = trainer.job.policy.score(contexts, ids, mask, 1.0, model=trainer.model).logps

    def loss(advantage, times):
        changed = {"advantages": torch.full((len(ids),), advantage), "old_per_token_logps": old - math.log(times)}
        with torch.no_grad():
            return trainer._loss(trainer.model, inputs | changed).item()

    bad, one = loss(-1.0, ratio), loss(-1.0, 1.0)
    assert bad == pytest.approx(3.0 * one, rel=1e-4), "verl: min(c, max(ratio, clipped ratio))"
    assert loss(-1.0, 2.0) == pytest.approx(2.0 * one, rel=1e-4) and loss(1.0, ratio) == pytest.approx(
        -1.2 * one, rel=1e-4
    )
    trainer.args.delta = None
    assert loss(-1.0, ratio) == pytest.approx(ratio * one, rel=1e-4)


def test_delta_lies_beyond_epsilon():
    with pytest.raises(ValidationError, match="above 1 \\+ epsilon"):
        grpo_spec(epsilon=0.2, delta=1.2)
    assert grpo_spec().delta is None


def test_a_reward_that_does_not_apply_drops_out_of_the_sum_and_the_logs(tmp_path, monkeypatch):
    def partial(rewards, rollout, *_):
        return {"format": 1.0, "tiou": 0.5 if rollout.sample.task == "ground" else None, "verbs": None}

    monkeypatch.setattr(grpo, "score", partial)
    rewards = {name: RewardSettings(weight=2.0) for name in ("format", "tiou", "verbs")}
    spec = grpo_spec(steps=1, prompts_per_step=6, tasks=MIXED, rewards=rewards)
    folder = grpo.train(spec, make_store(tmp_path), QUICK, "cpu")
    table = completions(folder)
    assert set(table["task"]) == {"ground", *set(table["task"]) & set(INVERSION_TASKS)} != {"ground"}
    assert (table["reward"] == table["task"].map(lambda task: 3.0 if task == "ground" else 2.0)).all()
    assert "train/rewards/verbs" not in Metrics(folder).rows()[0]
    assert Metrics(folder).rows()[0]["train/rewards/tiou"] == 0.5


# ------------------------------------------------------------ batches, reference, precision of the plan


def test_a_pass_holds_whole_groups(tmp_path, monkeypatch):
    calls = spied(monkeypatch)
    spec = grpo_spec(steps=2, prompts_per_step=4, num_generations=4)
    grpo.train(spec, make_store(tmp_path), QUICK.model_copy(update={"rollouts_per_pass": 8}), "cpu")
    passes = [inputs["position"].tolist() for _, inputs in calls]
    assert passes == [[n] * 4 + [n + 1] * 4 for n in (0, 2, 4, 6)]


@pytest.mark.parametrize("loss_type", ["bnpo", "grpo"])
def test_memory_settings_change_no_result(tmp_path, loss_type):
    spec, losses = grpo_spec(steps=3, prompts_per_step=4, loss_type=loss_type), []
    for number, (rows, batch) in enumerate([(4, 64), (16, 6)]):
        runtime = Runtime(gradient_checkpointing=bool(number), rollouts_per_pass=rows, generate_batch=batch)
        folder = grpo.train(spec, make_store(tmp_path / str(number)), runtime, "cpu")
        losses.append([row["train/grad_norm"] for row in Metrics(folder).rows()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_reference_is_the_model_at_the_start_and_shares_what_never_learns(tmp_path, monkeypatch):
    calls, spec = spied(monkeypatch), grpo_spec(steps=2)
    grpo.train(spec, make_store(tmp_path), QUICK, "cpu")
    trainer = calls[-1][0]
    before, learning = untrained(spec), dict(trainer.model.named_parameters())
    for name, weight in trainer.ref_model.named_parameters():
        assert torch.equal(weight, before[name]) and not weight.requires_grad
        assert (weight is learning[name]) == frozen(name), name


def test_without_beta_there_is_no_reference_pass(tmp_path, monkeypatch):
    scored, score = [], SharedPolicy.score
    monkeypatch.setattr(
        SharedPolicy, "score", lambda self, *a, **k: scored.append(k.get("model")) or score(self, *a, **k)
    )
    folder = grpo.train(grpo_spec(steps=2, beta=0.0), make_store(tmp_path), QUICK, "cpu")
    assert len(scored) == 2 + 2, "two to ask whether it sees, one a step, none for old log-probabilities"
    assert "train/kl" not in Metrics(folder).rows()[0]


def test_lora_is_its_own_reference_and_saved_merged(tmp_path):
    spec = grpo_spec(steps=2, lora=Lora(r=4, alpha=8), learning_rate=1e-1)
    folder = grpo.train(spec, make_store(tmp_path), QUICK, "cpu")
    rows, before, after = Metrics(folder).rows(), untrained(spec), weights_of(folder)
    assert rows[0]["train/kl"] == pytest.approx(0, abs=1e-9) and rows[1]["train/kl"] > 0
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "language_model.layers" in name and name.endswith("_proj.weight")}


# ------------------------------------------------------------ stopping and going on


def test_a_signal_saves_waits_and_the_resumed_run_is_the_same_run(tmp_path, trained, monkeypatch):
    straight, spec, _ = trained
    store, append, slept = make_store(tmp_path), Metrics.append, []

    def interrupted(self, step, values):
        append(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setenv("TVG_GRACE_SECONDS", "9")
    monkeypatch.setattr("tvg.train.stage.sleep", slept.append)
    monkeypatch.setattr(Metrics, "append", interrupted)
    with pytest.raises(SystemExit) as stopped:
        grpo.train(spec, store, QUICK, "cpu")
    folder = store.stage(spec)
    assert stopped.value.code == 143 and slept == [9]
    run = json.loads((folder / "run.json").read_text())
    assert run["exit"] == 143 and run["steps"] == 3
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-3"]

    weights = folder / "checkpoints" / "checkpoint-3" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])  # as a full disk leaves it: the one before must do
    monkeypatch.setattr(Metrics, "append", append)
    grpo.train(spec, store, QUICK, "cpu")
    assert same_rows(Metrics(folder).rows()) == same_rows(Metrics(straight).rows())
    for name, weight in weights_of(straight).items():
        assert torch.equal(weight, weights_of(folder)[name]), name


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from tests.training import QUICK, graded, grpo_spec
from tests.unit.test_grpo import MIXED
from tvg.store import Store
from tvg.train import grpo, inputs
from tvg.train.record import Metrics
from tvg.train.schedule import schedule
append = Metrics.append
def killed(self, step, values):
    append(self, step, values)
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Metrics.append, grpo.score = killed, graded
root = Path(sys.argv[1])
grpo.train(grpo_spec(steps=5, tasks=MIXED), Store(root / "results", root / "data"), QUICK, "cpu")
"""


def test_a_killed_run_resumes_to_the_same_curve(tmp_path, trained):
    straight, spec, _ = trained
    store = make_store(tmp_path)
    here = [str(REPO / "src"), str(REPO), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(here)}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(torch.get_num_threads())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = store.stage(spec)
    assert [row["step"] for row in Metrics(folder).rows()] == [1, 2, 3, 4]
    assert (folder / "checkpoints" / "checkpoint-2").exists()
    grpo.train(spec, store, QUICK, "cpu")
    assert same_rows(Metrics(folder).rows()) == same_rows(Metrics(straight).rows())


def test_a_loss_that_is_no_number_stops_and_names_step_and_samples(tmp_path, monkeypatch):
    loss = grpo.GRPOTrainer._compute_loss

    def broken(self, model, inputs):
        return loss(self, model, inputs) * (float("nan") if self.state.global_step == 1 else 1)

    monkeypatch.setattr(grpo.GRPOTrainer, "_compute_loss", broken)
    spec, store = grpo_spec(), make_store(tmp_path)
    with pytest.raises(TvgError, match="on samples toy-") as error:
        grpo.train(spec, store, QUICK, "cpu")
    folder = store.stage(spec)
    assert error.value.where == "step 2"
    assert (folder / "checkpoints" / "checkpoint-1").exists()
    assert len(completions(folder, step=2)), "what it broke down on is kept"
