"""The fixed set: which samples, what they score, and that the training does not notice."""

import signal

import pytest
import torch

from tests.training import DATA, PROMPT, QUICK, graded, grpo_spec, make_store, same_rows, sft_spec, weights_of
from tvg.evaluate.predict import predict
from tvg.evaluate.predictions import read_predictions
from tvg.model.shared import SharedPolicy
from tvg.sample import read_samples
from tvg.settings import EvaluateSettings, Prompt, Runtime
from tvg.spec import EvaluationSpec
from tvg.train import fixed_set, grpo, sft
from tvg.train.fixed_set import SECONDS, FixedSet, asked
from tvg.train.record import Metrics

MIXED = {"ground": 0.5, "complete_verb": 0.25, "describe": 0.25}
ASKING = QUICK.model_copy(update={"fixed_set_every": 2, "fixed_set_count": 3, "evaluate_batch": 4})
NAMES = {f"fixed_set/{name}" for name in ("r1_at_0.5", "miou", "format_rate", "complete_verb", "describe", "seconds")}


@pytest.fixture(autouse=True)
def variance(monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)


def only_training(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in NAMES} for row in same_rows(rows)]


def samples_of(store) -> list:
    return list(read_samples(store.samples(DATA.samples)))


# ------------------------------------------------------------ which samples


def test_the_same_samples_whatever_the_seed_and_their_order(tmp_path):
    samples = samples_of(make_store(tmp_path))
    chosen = [
        [s.id for s, _ in asked(grpo_spec(seed=seed), order, 3)] for seed, order in ((0, samples), (1, samples[::-1]))
    ]
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == 3
    assert [s.id for s, _ in asked(grpo_spec(), samples, 2)] == chosen[0][:2], "a smaller set is part of it"
    assert len(asked(grpo_spec(), samples * 2, 32)) == len(samples), "each once"


def test_each_task_that_is_trained_is_asked_and_no_other(tmp_path):
    samples = samples_of(make_store(tmp_path, verbless=6))
    assert {s.task for s, _ in asked(grpo_spec(tasks=MIXED), samples, 6)} == {"ground"}, "none of them has a verb"
    samples = samples_of(make_store(tmp_path / "verbs"))
    tasks = [s.task for s, _ in asked(grpo_spec(tasks=MIXED), samples, 2)]
    assert tasks == ["ground", "ground", "complete_verb", "complete_verb", "describe", "describe"]
    assert {s.task for s, _ in asked(grpo_spec(tasks=MIXED), samples, 2, inversion=False)} == {"ground"}
    assert asked(sft_spec(tasks={"caption": 1.0}), samples, 2) == []


def test_a_task_is_asked_by_the_first_prompt_that_has_it(tmp_path):
    more = Prompt(texts={"describe": "Say what happens."})
    first = PROMPT.model_copy(update={"texts": {"ground": "Find {query}"}})
    spec = sft_spec(prompt=first, more_prompts=(more,), tasks={"ground": 0.5, "describe": 0.5})
    found = asked(spec, samples_of(make_store(tmp_path)), 1)
    assert [(s.task, prompt) for s, prompt in found] == [("ground", first), ("describe", more)]


@pytest.mark.parametrize(("every", "steps"), [(50, [1, 50, 100, 120]), (1000, [1, 120]), (0, [])])
def test_it_is_asked_first_last_and_between(tmp_path, every, steps):
    runtime = Runtime(fixed_set_every=every)
    held = FixedSet(grpo_spec(), runtime, None, samples_of(make_store(tmp_path)), {}, "cpu", None)
    assert [step for step in range(1, 121) if held.due(step, 120)] == steps


# ------------------------------------------------------------ what it says


def test_its_values_stand_in_the_row_of_the_step_and_the_training_does_not_notice(tmp_path):
    spec = grpo_spec(steps=5, tasks=MIXED)
    with_it = grpo.train(spec, make_store(tmp_path / "with"), ASKING, "cpu")
    without = grpo.train(spec, make_store(tmp_path / "without"), QUICK, "cpu")
    rows = Metrics(with_it).rows()
    assert [row["step"] for row in rows if row.keys() & NAMES] == [1, 2, 4, 5]
    assert all(row.keys() >= NAMES for row in rows if SECONDS in row)
    assert only_training(rows) == same_rows(Metrics(without).rows())
    for name, weight in weights_of(without).items():
        assert torch.equal(weight, weights_of(with_it)[name]), name


def test_an_evaluation_of_the_same_weights_says_the_same(tmp_path, monkeypatch):
    """Whole answers would take a trained model: compared are the texts, which a random one writes too."""
    written, answered = {}, fixed_set.answered

    def noted(sample, prompt, text):
        written[sample.id, sample.task] = answered(sample, prompt, text)
        return written[sample.id, sample.task]

    monkeypatch.setattr(fixed_set, "answered", noted)
    store, spec = make_store(tmp_path), grpo_spec(steps=1, learning_rate=1e-30, tasks=MIXED)
    folder = grpo.train(spec, store, ASKING, "cpu")
    settings = EvaluateSettings(max_completion_tokens=spec.max_completion_tokens)
    evaluation = EvaluationSpec(
        version=1, benchmark="toy", model=spec.init, data=DATA, prompt=PROMPT, settings=settings, versions={}
    )
    rows = {(r["id"], r["task"]): r for r in read_predictions(predict(evaluation, store, ASKING, "cpu"))}
    assert len(written) == 9
    for key, row in written.items():
        kept = ("completion", "predicted", "format", "missing", "segments", "verbs")
        assert {name: row[name] for name in kept} == {name: rows[key][name] for name in kept}, key
    assert Metrics(folder).rows()[0]["fixed_set/miou"] == 0.0


def test_right_answers_count(tmp_path, monkeypatch):
    said = {"ground": "<think>x</think> <answer>2.1 to 5.4</answer>", "describe": "<answer>he runs</answer>"}
    held = FixedSet(
        grpo_spec(tasks={"ground": 0.5, "describe": 0.5}),
        ASKING,
        None,
        samples_of(make_store(tmp_path)),
        {},
        "cpu",
        None,
    )
    monkeypatch.setattr(held, "_rows", lambda: (fixed_set.answered(s, p, said[s.task]) for s, p in held.asked))
    values = held()
    assert values["fixed_set/r1_at_0.5"] == values["fixed_set/miou"] == values["fixed_set/format_rate"] == 1.0
    assert values["fixed_set/describe"] == 1.0


def test_sft_is_asked_too_with_room_for_twice_what_it_is_taught(tmp_path, monkeypatch):
    room, generate = [], SharedPolicy.generate

    def noted(self, contexts, sampling, seeds):
        room.append(sampling.max_new_tokens)
        return generate(self, contexts, sampling, seeds)

    monkeypatch.setattr(SharedPolicy, "generate", noted)
    rows = Metrics(sft.train(sft_spec(steps=2), make_store(tmp_path), ASKING, "cpu")).rows()
    assert all("fixed_set/miou" in row and "fixed_set/describe" not in row for row in rows)
    assert 20 < room[0] < 120


# ------------------------------------------------------------ stopping and going on


@pytest.mark.parametrize("stopped_in", [2, 5], ids=["between", "after the last step"])
def test_a_run_that_is_stopped_while_it_is_asked_loses_nothing(tmp_path, monkeypatch, stopped_in):
    spec = grpo_spec(steps=5, tasks=MIXED)
    straight = Metrics(grpo.train(spec, make_store(tmp_path / "straight"), ASKING, "cpu")).rows()
    rows, asked_at = FixedSet._rows, []

    def interrupted(self):
        for number, row in enumerate(rows(self)):
            if number == 4 and len(asked_at) == [1, 2, 4, 5].index(stopped_in):
                signal.raise_signal(signal.SIGTERM)
            yield row
        asked_at.append(1)

    store = make_store(tmp_path / "stopped")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(FixedSet, "_rows", interrupted)
        grpo.train(spec, store, ASKING, "cpu")
    last = Metrics(store.stage(spec)).rows()[-1]
    assert last["step"] == stopped_in and not last.keys() & NAMES and "train/loss" in last
    folder = grpo.train(spec, store, ASKING, "cpu")
    assert same_rows(Metrics(folder).rows()) == same_rows(straight)
