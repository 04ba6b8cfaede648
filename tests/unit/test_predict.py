"""Prediction files: a row for every query whatever happens, the same rows after a kill, floors without a model."""

import json

import pytest
import torch

from tests.training import COMMON, DATA, PROMPT, VIDEOS, make_store
from tvg.evaluate import predict as predicting
from tvg.evaluate.predict import ground, predict
from tvg.evaluate.predictions import FIELDS, complete, read_predictions
from tvg.model.load import load
from tvg.model.question import context
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
    assert [p.name for p in path.parent.iterdir()] == ["predictions.jsonl"]


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
    monkeypatch.setattr(predicting, "_answers", lambda p, s, batch, c: asked.extend(batch) or answers(p, s, batch, c))
    resumed = read_predictions(predict(spec, store, RUNTIME, "cpu"))
    assert {sample.id for sample in asked} == {row["id"] for row in whole[2:]}
    assert resumed == [first, *whole[1:]]
    before = path.stat().st_mtime_ns
    predict(spec, store, RUNTIME, "cpu")
    assert path.stat().st_mtime_ns == before and len(asked) == len(whole) - 2, "what is there is not made again"


def test_completions_are_read_by_the_prompt_contract(tmp_path, monkeypatch):
    text = "<think>from 1.0 to 2.0</think> <answer>3.00 to 4.50 seconds</answer>"
    monkeypatch.setattr(predicting.PlainPolicy, "decode", lambda self, ids: text)
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
