"""TaRO's warm start at toy size: constructed rollouts, what is imitated of them, and that a stopped run goes on."""

import json
import signal
from collections import Counter
from dataclasses import replace

import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.training import COMMON, DATA, QUICK, frozen, graded, make_store, same_rows, untrained, weights_of
from tvg.errors import TvgError
from tvg.model.shared import SharedPolicy
from tvg.sample import read_samples, write_samples
from tvg.settings import RewardSettings, Runtime
from tvg.spec import AwbcSpec
from tvg.train import awbc, construct, grpo
from tvg.train.record import Metrics

VECTOR = json.loads((REPO / "tests/vectors/awbc.json").read_text())["cases"][0]
CAPTIONS = ((0.0, 2.1, "a man sits"), (2.1, 5.4, "a person runs"), (5.4, 7.0, "it stops"), (6.0, 8.0, "a man waves"))
PROMPT = COMMON["prompt"].model_copy(update={"prefix": "<think>I look for {query}\n{captions}\n"})
ROOM = 120  # tokens: all four captions, and some of the model's own


def spec_of(**settings) -> AwbcSpec:
    defaults = {
        "prompts_per_step": 2,
        "num_generations": 4,
        "max_completion_tokens": ROOM,
        "steps": 2,
        "learning_rate": 1e-3,
        "prompt": PROMPT,
        "rewards": {"format": RewardSettings(weight=1.0), "tiou": RewardSettings(weight=1.0)},
        "versions": {},
    }
    return AwbcSpec(**{**COMMON, **defaults, **settings})


def store_of(root, captions=(CAPTIONS,)):
    """A store whose samples have captions, those of `captions` in turn."""
    store = make_store(root)
    path = store.samples(DATA.samples)
    samples = [replace(s, captions=captions[n % len(captions)]) for n, s in enumerate(read_samples(path))]
    write_samples(path, samples)
    return store


@pytest.fixture(autouse=True)
def variance(monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of five steps, with a probe, that nothing has stopped."""
    spec = spec_of(steps=5, rewards={"format": RewardSettings(weight=1.0), "temporal": RewardSettings(weight=0.3)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "score", graded)
        return awbc.train(spec, store_of(tmp_path_factory.mktemp("awbc")), QUICK, "cpu"), spec


def completions(folder, step=1) -> pandas.DataFrame:
    return pandas.read_parquet(folder / "completions" / f"step-{step:06d}.parquet")


def caught(monkeypatch) -> list:
    """Each pass of VideoAwbc._loss: (trainer, its inputs, its loss)."""
    calls, loss = [], awbc.VideoAwbc._loss

    def spy(self, model, inputs):
        found = loss(self, model, inputs)
        self._positions = inputs["position"].tolist()
        calls.append((self, inputs, found))
        return found

    monkeypatch.setattr(awbc.VideoAwbc, "_loss", spy)
    return calls


# ------------------------------------------------------------ prefixes

captions_ = st.lists(st.tuples(st.floats(0, 99), st.floats(0, 99), st.text()), min_size=1, max_size=6)


@given(captions_, st.integers(0, 2**63 - 1))
def test_a_prefix_holds_some_captions_each_once_and_in_order_of_time(captions, seed):
    chosen = construct.drawn(captions, seed)
    assert 1 <= len(chosen) <= len(captions) and not Counter(chosen) - Counter(captions)
    assert chosen == construct.drawn(captions, seed)
    numbered = [(start, end, str(k)) for k, (start, end, _) in enumerate(captions)]
    lines = construct.prefix("{captions}", "", construct.drawn(numbered, seed)).split("\n")
    starts = [numbered[int(line.rsplit(", ", 1)[1])][0] for line in lines]
    assert starts == sorted(starts) and len(lines) == len(chosen)


def test_every_number_of_captions_is_as_likely_and_so_is_every_caption():
    draws = [construct.drawn(CAPTIONS, seed) for seed in range(4000)]
    assert all(abs(n - 1000) < 120 for n in Counter(map(len, draws)).values())
    assert all(abs(n - 2500) < 160 for n in Counter(caption for draw in draws for caption in draw).values())


def test_the_text_of_a_prefix_is_literal():
    text = construct.prefix(PROMPT.prefix, "a {captions} runs. ", [(9.96, 12.0, "{query} \\1 "), (0.0, 9.96, "sits")])
    assert text == "<think>I look for a {captions} runs.\nFrom 0.0s to 10.0s, sits\nFrom 10.0s to 12.0s, {query} \\1\n"


# ------------------------------------------------------------ two steps


def test_rollouts_begin_with_their_own_prefix_and_the_weights_learn(trained):
    folder, spec = trained
    table = completions(folder)
    for text in table["completion"]:
        head, *lines = text.split("\n")
        assert head == "<think>I look for a person runs."
        shown = [line for line in lines if line.startswith("From ")]
        known = construct.prefix("{captions}", "", CAPTIONS).split("\n")
        assert shown and shown == [line for line in known if line in shown]
    assert (table["prefix"] > 0).all() and (table.groupby("id")["prefix"].nunique() > 1).all()
    row = Metrics(folder).rows()[0]
    assert row["train/prefix_length"] == pytest.approx(table["prefix"].mean()) and row["train/captions_cut"] == 0
    assert {"train/loss", "train/entropy", "train/reward_std", "train/probe_seconds", "train/logprob_drop"} <= set(row)
    assert "train/kl" not in row and table["logprob_drop"].notna().all()
    before, after = untrained(spec), weights_of(folder)
    assert all(torch.equal(after[name], before[name]) == frozen(name) for name in after)


def test_the_loss_is_the_vectors_weights_times_the_log_probabilities(tmp_path, monkeypatch):
    turn = iter(VECTOR["rewards"])
    monkeypatch.setattr(grpo, "score", lambda *_: {"format": next(turn)})
    calls = caught(monkeypatch)
    spec = spec_of(steps=1, prompts_per_step=1, num_generations=8, rewards={"format": RewardSettings(weight=1.0)})
    folder = awbc.train(spec, store_of(tmp_path), QUICK, "cpu")
    assert (completions(folder)["prefix"] > 0).all()
    assert completions(folder)["advantage"].tolist() == pytest.approx(VECTOR["advantages"], abs=2e-6)
    (trainer, inputs, loss), weights = calls[0], untrained(spec)
    assert inputs["advantages"].clamp(min=0).tolist() == pytest.approx(sorted_as(inputs, VECTOR["weights"]), abs=2e-6)
    with torch.no_grad():  # as it was when the loss was taken
        for name, weight in trainer.model.named_parameters():
            weight.copy_(weights[name])
        contexts = [trainer._contexts[position] for position in inputs["position"].tolist()]
        mask = inputs["completion_mask"]
        logps = trainer.job.policy.score(contexts, inputs["completion_ids"], mask).logps
    expected = -(torch.tensor(sorted_as(inputs, VECTOR["weights"]))[:, None] * logps).sum() / mask.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert Metrics(folder).rows()[0]["train/loss"] == pytest.approx(expected.item(), rel=1e-3)


def sorted_as(inputs, values: list[float]) -> list[float]:
    """The vector's values in the order into which the trainer has put its rows."""
    by_advantage = dict(zip([round(a, 4) for a in VECTOR["advantages"]], values, strict=False))
    return [by_advantage[round(a, 4)] for a in inputs["advantages"].tolist()]


def test_the_prefix_counts_in_the_loss_and_bad_rollouts_teach_nothing(tmp_path, monkeypatch):
    calls, gradients = caught(monkeypatch), []
    awbc.train(spec_of(steps=1), store_of(tmp_path), QUICK, "cpu")
    trainer, inputs, _ = calls[0]
    model, best = trainer.model, int(inputs["advantages"].argmax())

    def loss_of(**changed):
        trainer._positions = inputs["position"].tolist()
        model.zero_grad()
        loss = awbc.VideoAwbc._loss(trainer, model, inputs | changed)
        loss.backward()
        gradients.append(sum(w.grad.abs().sum().item() for w in model.parameters() if w.grad is not None))
        return loss.item()

    def others(row):
        """The same rollouts but for the first ten tokens of one, all of them of its prefix."""
        ids = inputs["completion_ids"].clone()
        ids[row, :10] += 1
        return ids

    true = loss_of()
    assert gradients[-1] > 0 and abs(loss_of(completion_ids=others(best)) - true) > 1e-4
    worst = int(inputs["advantages"].argmin())
    assert inputs["advantages"][worst] < 0 and loss_of(completion_ids=others(worst)) == true
    assert loss_of(advantages=-inputs["advantages"].abs()) == 0 and gradients[-1] == 0


def test_a_group_without_variance_teaches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "score", lambda rewards, *_: dict.fromkeys(rewards, 0.7))
    spec = spec_of()
    folder = awbc.train(spec, store_of(tmp_path), QUICK, "cpu")
    assert (completions(folder)["advantage"] == 0).all()
    after = weights_of(folder)
    assert all(torch.equal(weight, after[name]) for name, weight in untrained(spec).items())


def test_memory_settings_change_no_result(tmp_path):
    found = []
    for number, (rows, batch) in enumerate([(4, 64), (16, 6)]):
        runtime = Runtime(gradient_checkpointing=bool(number), rollouts_per_pass=rows, generate_batch=batch)
        folder = awbc.train(spec_of(prompts_per_step=4), store_of(tmp_path / str(number)), runtime, "cpu")
        found += [[row[f"train/{name}"] for row in Metrics(folder).rows()] for name in ("loss", "grad_norm")]
    assert found[0] == pytest.approx(found[2], rel=1e-4) and found[1] == pytest.approx(found[3], rel=1e-4)


# ------------------------------------------------------------ which rollouts are constructed


def test_plain_where_there_are_no_captions_or_another_task(tmp_path):
    spec = spec_of(steps=1, prompts_per_step=6, tasks={"ground": 0.5, "describe": 0.5})
    table = completions(awbc.train(spec, store_of(tmp_path, (CAPTIONS, None, ())), QUICK, "cpu"))
    can = (table["task"] == "ground") & table["id"].isin(["toy-0", "toy-3"])
    assert can.any() and not can.all() and ((table["prefix"] > 0) == can).all()
    assert not table["completion"][~can].str.startswith("<think>I look for").any()


def test_a_share_of_the_prompts_is_constructed_the_same_for_a_whole_group(tmp_path):
    spec = spec_of(steps=3, prompts_per_step=4, constructed=0.5, max_completion_tokens=90)
    folder = awbc.train(spec, store_of(tmp_path), QUICK, "cpu")
    tables = [completions(folder, step).assign(group=lambda t: t.index // 4) for step in (1, 2, 3)]
    shares = [share for table in tables for share in (table["prefix"] > 0).groupby(table["group"]).mean()]
    assert set(shares) == {0.0, 1.0}


def test_the_constructed_share_moves_from_the_first_step_to_the_last(tmp_path):
    spec = spec_of(steps=4, prompts_per_step=6, constructed=1.0, constructed_end=0.0, max_completion_tokens=90)
    folder = awbc.train(spec, store_of(tmp_path), QUICK, "cpu")
    shares = [(completions(folder, step)["prefix"] > 0).mean() for step in (1, 2, 3, 4)]
    assert shares[0] == 1 and shares[3] == 0 and 0 < sum(shares[1:3]) < 2, "1, 2/3, 1/3 and 0 in the mean"


def test_a_share_that_rises_from_nothing_needs_what_it_will_construct_from(tmp_path, monkeypatch):
    monkeypatch.setattr(SharedPolicy, "generate", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(TvgError, match="samples without captions"):
        awbc.train(spec_of(constructed=0.0, constructed_end=1.0), store_of(tmp_path, (None,)), QUICK, "cpu")


def test_captions_without_room_are_left_out_and_counted(tmp_path):
    room = 45
    folder = awbc.train(spec_of(steps=1, max_completion_tokens=room), store_of(tmp_path), QUICK, "cpu")
    table, row = completions(folder), Metrics(folder).rows()[0]
    assert table["prefix"].between(1, room - 1).all() and row["train/captions_cut"] > 0


@pytest.mark.parametrize(
    ("settings", "captions", "said"),
    [
        ({"prompt": COMMON["prompt"]}, CAPTIONS, "without `prefix`"),
        ({}, None, "samples without captions"),
        ({}, ((0.0, 2.0, "a <|video_pad|> runs"),), "special token"),
    ],
)
def test_what_cannot_be_constructed_is_an_error_at_the_start(tmp_path, monkeypatch, settings, captions, said):
    monkeypatch.setattr(SharedPolicy, "generate", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(TvgError, match=said):
        awbc.train(spec_of(**settings), store_of(tmp_path, (captions,)), QUICK, "cpu")


def test_without_construction_it_needs_neither_prefix_nor_captions(tmp_path):
    spec = spec_of(steps=1, constructed=0.0, prompt=COMMON["prompt"], max_completion_tokens=8)
    assert (completions(awbc.train(spec, make_store(tmp_path), QUICK, "cpu"))["prefix"] == 0).all()


# ------------------------------------------------------------ going on


def test_a_resumed_run_is_the_run_that_nothing_has_stopped(tmp_path, trained, monkeypatch):
    straight, spec = trained
    store, append = store_of(tmp_path), Metrics.append

    def interrupted(self, step, values):
        append(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(Metrics, "append", interrupted)
    with pytest.raises(SystemExit):
        awbc.train(spec, store, QUICK, "cpu")
    folder = store.stage(spec)
    weights = folder / "checkpoints" / "checkpoint-3" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])  # so that step 3 is run again
    monkeypatch.setattr(Metrics, "append", append)
    awbc.train(spec, store, QUICK, "cpu")
    assert same_rows(Metrics(folder).rows()) == same_rows(Metrics(straight).rows())
    for step in range(1, 6):
        pandas.testing.assert_frame_equal(completions(folder, step), completions(straight, step))
    assert all(torch.equal(weight, weights_of(folder)[name]) for name, weight in weights_of(straight).items())
