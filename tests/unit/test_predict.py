"""Prediction files: a row for every query whatever happens, the same rows after a kill, floors without a model."""

import json
from types import SimpleNamespace

import pytest
import torch

from tests.training import COMMON, DATA, PROMPT, VIDEOS, make_store
from tvg.evaluate import predict as predicting
from tvg.evaluate.predict import ground, predict
from tvg.evaluate.predictions import FIELDS, complete, read_predictions
from tvg.model.load import load
from tvg.model.question import context
from tvg.model.shared import SharedPolicy
from tvg.parse import ans_last, strict_answer
from tvg.sample import read_samples
from tvg.settings import AnswerContract, EvaluateSettings, FramesSettings, Prompt, Runtime
from tvg.spec import EvaluationSpec, Floor

RUNTIME = Runtime(evaluate_batch=4)
TASKS = ("ground", "complete_verb", "recognise_action", "describe")


def evaluation(**changes) -> EvaluationSpec:
    settings = {
        "version": 1,
        "benchmark": "toy",
        "model": COMMON["init"],
        "data": DATA,
        "prompt": PROMPT,
        "settings": EvaluateSettings(max_completion_tokens=6),
        "versions": {},
    }
    return EvaluationSpec(**{**settings, **changes})


def test_every_query_and_task_gets_a_row(tmp_path):
    store, spec = make_store(tmp_path, without_frames=1, verbless=2), evaluation()
    path = predict(spec, store, RUNTIME, "cpu")
    rows = read_predictions(path)
    assert complete(rows, spec, store) == rows, "as many as metrics count"
    samples = list(read_samples(store.samples(DATA.samples)))
    expected = [(s.id, task) for s in samples for task in TASKS if task == "ground" or s.verbs]
    assert [(row["id"], row["task"]) for row in rows] == expected and len(rows) == VIDEOS + 3 * (VIDEOS - 2)
    assert set(rows[0]) == {*FIELDS, "missing", "tokens"}
    lost = [row for row in rows if row["missing"]]
    assert {row["video"] for row in lost} == {f"absent-{VIDEOS - 1}.mp4"} and len(lost) == 4
    for row in rows:
        assert (row["completion"] is None) == (row["tokens"] == 0) == bool(row["missing"])
        assert row["predicted"] is None or row["task"] == "ground"
    assert rows[0]["verbs"] == [] and rows[-1]["verbs"] == ["run"]
    assert {p.name for p in path.parent.iterdir()} == {"predictions.jsonl", "run.json"}


def test_answers_are_the_greedy_ones_of_each_sample_alone(tmp_path):
    store, spec = make_store(tmp_path), evaluation()
    rows = {(row["id"], row["task"]): row for row in read_predictions(predict(spec, store, RUNTIME, "cpu"))}
    policy = load(spec.model, store, device="cpu", dtype=torch.float32)
    cache = predicting.FrameCache(store.frames(DATA.frames))
    for sample in list(read_samples(store.samples(DATA.samples)))[:2]:
        for task in ("ground", "describe"):
            asked = sample.with_task(task)
            made = context(policy, PROMPT, asked, cache[sample.video])
            assert made.grid[0] == (8 if task == "ground" else 3), "an inversion task sees the true segment only"
            ids = policy.generate([made], predicting.Sampling(6, temperature=0.0), [0])[0]
            assert rows[sample.id, task]["completion"] == policy.decode(ids)
            assert rows[sample.id, task]["tokens"] == len(ids)


def test_a_killed_run_answers_only_what_is_left(tmp_path, monkeypatch):
    store, spec = (
        make_store(tmp_path),
        evaluation(settings=EvaluateSettings(max_completion_tokens=6, tasks=("ground",))),
    )
    whole = read_predictions(predict(spec, store, RUNTIME, "cpu"))
    path = store.evaluation(spec) / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()
    first = json.loads(lines[0]) | {"completion": "kept from before"}
    path.with_name("predictions.partial.jsonl").write_text(json.dumps(first) + "\n" + lines[1] + lines[2][:40])
    asked = []
    answers = predicting._answers
    monkeypatch.setattr(
        predicting, "_answers", lambda p, s, batch, *more: asked.extend(batch) or answers(p, s, batch, *more)
    )
    resumed = read_predictions(predict(spec, store, RUNTIME, "cpu"))
    assert {sample.id for sample in asked} == {row["id"] for row in whole[2:]}
    assert resumed == [first, *whole[1:]]
    before = path.stat().st_mtime_ns
    predict(spec, store, RUNTIME, "cpu")
    assert path.stat().st_mtime_ns == before and len(asked) == len(whole) - 2, "what is there is not made again"


# ---------------------------------------------------------------- run.json

GROUND = EvaluateSettings(max_completion_tokens=6, tasks=("ground",))


def facts_of(spec, store):
    return json.loads((store.evaluation(spec) / "run.json").read_text())


def clocked(monkeypatch, **seconds):
    """A clock that only what is named here moves on."""
    passed = []

    def taking(name, call):
        def run(*arguments, **options):
            passed.append(seconds[name])
            return call(*arguments, **options)

        return run

    monkeypatch.setattr(predicting, "time", SimpleNamespace(monotonic=lambda: sum(passed)))
    monkeypatch.setattr(predicting, "load", taking("load", predicting.load))
    monkeypatch.setattr(predicting, "context", taking("context", predicting.context))
    monkeypatch.setattr(SharedPolicy, "generate", taking("generate", SharedPolicy.generate))


def test_run_json_tells_the_cost_of_an_answer_and_where_it_was_made(tmp_path, monkeypatch):
    clocked(monkeypatch, load=30, context=7, generate=0.5)
    store, spec = make_store(tmp_path, without_frames=1), evaluation(settings=GROUND)
    rows = read_predictions(predict(spec, store, RUNTIME, "cpu"))
    run = facts_of(spec, store)
    assert run["queries"] == VIDEOS - 1 and run["tokens"] == sum(row["tokens"] for row in rows) > 0
    assert (run["seconds"], run["load_seconds"]) == (1.0, 30), "two batches, without their frames and prompts"
    assert run["batch"] == 4
    assert (run["exit"], run["precision"], run["policy"]) == (0, "float32", "shared")
    assert run["device"].startswith("cpu") and run["started"] <= run["ended"] and "torch" in run["versions"]
    assert {"host", "commit", "dirty"} <= run.keys()


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (OSError, 1)])
def test_an_interrupted_evaluation_goes_on_counting(tmp_path, monkeypatch, error, code):
    store, spec = make_store(tmp_path), evaluation(settings=GROUND)
    generate, calls = SharedPolicy.generate, []

    def interrupted(self, contexts, *arguments, **options):
        calls.append(len(contexts))
        if len(calls) == 2:
            raise error
        return generate(self, contexts, *arguments, **options)

    monkeypatch.setattr(SharedPolicy, "generate", interrupted)
    with pytest.raises(error):
        predict(spec, store, RUNTIME, "cpu")
    first = facts_of(spec, store)
    partial = store.evaluation(spec) / "predictions.partial.jsonl"
    on_disk = [json.loads(line)["tokens"] for line in partial.read_text().splitlines()]
    assert (first["queries"], first["tokens"], first["exit"]) == (4, sum(on_disk), code) and len(on_disk) == 4
    path = store.evaluation(spec) / "run.json"
    path.write_text(json.dumps(first | {"seconds": 100.0, "load_seconds": 50.0}))
    rows = read_predictions(predict(spec, store, RUNTIME, "cpu"))
    run = facts_of(spec, store)
    assert (run["queries"], run["tokens"], run["exit"]) == (VIDEOS, sum(row["tokens"] for row in rows), 0)
    assert run["seconds"] > 100 and run["load_seconds"] > 50 and run["started"] == first["started"]


def test_nothing_answered_leaves_no_run_json(tmp_path, monkeypatch):
    store, spec = make_store(tmp_path), evaluation(settings=GROUND)
    monkeypatch.setattr(SharedPolicy, "generate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(spec, store, RUNTIME, "cpu")
    assert not (store.evaluation(spec) / "run.json").exists()


def test_predictions_made_anew_are_counted_anew(tmp_path):
    store, spec = make_store(tmp_path), evaluation(settings=GROUND)
    path = predict(spec, store, RUNTIME, "cpu")
    made = facts_of(spec, store)
    predict(spec, store, RUNTIME, "cpu")
    assert facts_of(spec, store) == made, "what is there costs nothing"
    path.unlink()
    predict(spec, store, RUNTIME, "cpu")
    assert facts_of(spec, store)["queries"] == VIDEOS


# ---------------------------------------------------------------- what a completion is read as


def test_completions_are_read_by_the_prompt_contract(tmp_path, monkeypatch):
    text = "<think>from 1.0 to 2.0</think> <answer>3.00 to 4.50 seconds</answer>"
    monkeypatch.setattr(SharedPolicy, "decode", lambda self, ids: text)
    prompt = PROMPT.model_copy(
        update={"answer": AnswerContract(format="fmt_ta", reward="ans_last", legacy="whole_last")}
    )
    store, spec = make_store(tmp_path), evaluation(prompt=prompt)
    rows = read_predictions(predict(spec, store, RUNTIME, "cpu"))
    grounded = [row for row in rows if row["task"] == "ground"]
    assert all(row["format"] and row["completion"] == text for row in rows)
    assert all(row["predicted"] == list(strict_answer(text)) == [3.0, 4.5] for row in grounded)
    assert all(row["legacy"] == list(ans_last(text)) for row in grounded)
    assert not any(row["predicted"] or row["legacy"] for row in rows if row["task"] != "ground")


@pytest.mark.parametrize(
    ("floor", "expected"),
    [(Floor(floor="whole_video"), [0.0, 8.0]), (Floor(floor="constant_window", fit=DATA.samples), [2.0, 5.6])],
)
def test_floors_need_neither_model_nor_frames(tmp_path, floor, expected):
    store, spec = make_store(tmp_path, without_frames=VIDEOS), evaluation(model=floor)
    rows = read_predictions(predict(spec, store, RUNTIME))
    assert [row["task"] for row in rows] == ["ground"] * VIDEOS
    assert all(row["predicted"] == pytest.approx(expected) for row in rows)
    assert all(row["completion"] is None and row["missing"] is None and row["tokens"] == 0 for row in rows)
    assert not (store.evaluation(spec) / "run.json").exists()


def test_limit_takes_the_first_samples(tmp_path):
    store, spec = make_store(tmp_path), evaluation(data=DATA.model_copy(update={"limit": 2}))
    assert {row["id"] for row in read_predictions(predict(spec, store, RUNTIME, "cpu"))} == {"toy-0", "toy-1"}


def test_one_query_on_any_video(tmp_path, real_data):
    video = real_data("videos/OHOFG.mp4")
    policy = load(COMMON["init"], make_store(tmp_path), device="cpu", dtype=torch.float32)
    prompt = Prompt(texts={"ground": "Find the moment: {query}"})
    settings = FramesSettings(total_pixels=56 * 56 * 64, min_pixels=56 * 56, max_pixels=56 * 56)
    answer = ground(policy, prompt, video, "a person sits down", settings, 5)
    assert set(answer) == {"segment", "completion", "duration", "frames", "fps", "tokens"}
    assert answer["segment"] is None and 0 < answer["tokens"] <= 5
    assert answer["frames"] == pytest.approx(answer["duration"] * 2, abs=1)
    assert json.loads(json.dumps(answer)) == answer
