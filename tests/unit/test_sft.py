"""Supervised fine-tuning, the real thing at toy size: a tiny model, tiny videos through the real frame cache."""

import json
import re
import signal
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.training import PROMPT, QUICK, SECONDS, frozen, make_store, same_rows, sft_spec, untrained, weights_of
from tests.unit import test_awbc
from tvg.errors import TvgError
from tvg.model import question
from tvg.model.question import visible
from tvg.model.shared import SharedPolicy
from tvg.parse import FORMATS, PARSERS, anchors, strict_answer
from tvg.prompts import target
from tvg.sample import Sample, read_samples
from tvg.segment import Segment, tiou
from tvg.settings import AnswerContract, Lora, Prompt, Runtime
from tvg.train import inputs, sft
from tvg.train.record import Metrics
from tvg.video.cache import FrameCache

MIXED = {"ground": 0.5, "describe": 0.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store, spec = make_store(tmp_path_factory.mktemp("sft")), sft_spec(steps=4, tasks=MIXED)
    return sft.train(spec, store, QUICK, "cpu"), spec, store


def test_weights_change_but_the_frozen_vision_tower_does_not(trained):
    folder, spec, _ = trained
    before, after = untrained(spec), weights_of(folder)
    assert any(frozen(name) for name in after)
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == frozen(name), name


def test_what_a_finished_stage_leaves(trained):
    folder, spec, store = trained
    assert folder == store.stage(spec)
    assert (folder / "model.done").exists() and not (folder / "checkpoints").exists()
    rows = Metrics(folder).rows()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"time", "train/loss", "train/grad_norm", "train/learning_rate", "train/length"} <= set(rows[0])
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    run = json.loads((folder / "run.json").read_text())
    assert run["exit"] == 0 and run["steps"] == 4 and run["precision"] == "float32"
    assert (folder / "skipped.jsonl").read_text() == ""


def test_a_finished_stage_is_not_trained_again(trained, monkeypatch):
    folder, spec, store = trained
    (folder / "model.done").unlink()
    monkeypatch.setattr("tvg.train.stage.load", None)
    sft.train(spec, store, QUICK, "cpu")
    assert (folder / "model.done").exists()


def test_loss_is_of_the_response_alone_end_token_included_and_sees_pixels(tmp_path, monkeypatch):
    spec, store, seen = sft_spec(steps=1, batch=2), make_store(tmp_path), []

    def spy(self, contexts, ids, mask, *args, **kwargs):
        seen.append((self, contexts, ids, mask))
        return score(self, contexts, ids, mask, *args, **kwargs)

    score = SharedPolicy.score
    monkeypatch.setattr(SharedPolicy, "score", spy)
    folder = sft.train(spec, store, QUICK, "cpu")
    policy, contexts, ids, mask = seen[-1]
    sample = next(read_samples(store.samples(spec.data.samples)))
    assert policy.decode(ids[0][mask[0] == 1].tolist()) == target(sample)
    assert ids[0][mask[0] == 1][-1] == policy.tokenizer.eos_token_id
    assert all(context.pixels is not None for context in contexts)

    first = sft.train(sft_spec(steps=1, batch=2, seed=0, learning_rate=2e-3), store, QUICK, "cpu")
    assert Metrics(first).rows()[0]["train/loss"] == Metrics(folder).rows()[0]["train/loss"]
    monkeypatch.setattr(question, "visible", lambda *a: replace_pixels(visible(*a)))
    other = sft.train(sft_spec(steps=1, batch=2, learning_rate=3e-3), store, QUICK, "cpu")
    assert Metrics(other).rows()[0]["train/loss"] != Metrics(folder).rows()[0]["train/loss"]


def replace_pixels(frames):
    from dataclasses import replace

    return replace(frames, pixels=255 - frames.pixels)


def test_an_inversion_task_sees_the_true_segment_alone(trained):
    _, spec, store = trained
    cache = FrameCache(store.frames(spec.data.frames))
    sample = next(read_samples(store.samples(spec.data.samples)))
    whole, clip = (visible(sample.with_task(task), cache[sample.video]) for task in ("ground", "describe"))
    assert len(whole) == SECONDS * 2
    first, last = 5, 11  # on screen from 2.5 s on, inside 2.1 to 5.4 s at 2 FPS
    assert (clip.pixels == whole.pixels[first:last]).all() and len(clip) == last - first


@pytest.mark.parametrize("threads", [0, 3])
def test_contexts_come_in_order_and_once_each_whatever_is_made_ahead(threads):
    made = []
    ahead = inputs.Ahead(lambda position: made.append(position) or position, range(20), depth=4, threads=threads)
    assert [ahead(position) for position in range(8, 20)] == list(range(8, 20))
    assert sorted(made) == list(range(8, 20))


def test_an_error_made_ahead_is_raised_where_its_context_is_needed():
    ahead = inputs.Ahead(lambda position: 1 // (position - 2), range(5), depth=3, threads=2)
    assert [ahead(0), ahead(1)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        ahead(2)


def test_the_split_into_passes_changes_nothing(tmp_path):
    losses = []
    for rows in (1, 4):
        store = make_store(tmp_path / str(rows))
        runtime = Runtime(gradient_checkpointing=rows == 1, rollouts_per_pass=rows)
        folder = sft.train(sft_spec(steps=3), store, runtime, "cpu")
        losses.append([row["train/loss"] for row in Metrics(folder).rows()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_ctrl_c_saves_and_the_resumed_run_is_the_same_run(tmp_path, trained, monkeypatch):
    straight, spec, _ = trained
    store, append = make_store(tmp_path), Metrics.append

    def interrupted(self, step, values):
        append(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Metrics, "append", interrupted)
    with pytest.raises(SystemExit) as stopped:
        sft.train(spec, store, QUICK, "cpu")
    assert stopped.value.code == 130
    folder = store.stage(spec)
    assert json.loads((folder / "run.json").read_text())["exit"] == 130
    assert (folder / "checkpoints" / "checkpoint-3").exists(), "saved where it was stopped, not at the last interval"
    assert not (folder / "model.done").exists()

    monkeypatch.setattr(Metrics, "append", append)
    sft.train(spec, store, QUICK, "cpu")
    assert same_rows(Metrics(folder).rows()) == same_rows(Metrics(straight).rows())
    for name, weight in weights_of(straight).items():
        assert torch.equal(weight, weights_of(folder)[name]), name


def test_lora_trains_its_adapters_and_saves_them_merged(tmp_path):
    spec, store = sft_spec(steps=2, lora=Lora(r=4, alpha=8), learning_rate=1e-2), make_store(tmp_path)
    before, after = untrained(spec), weights_of(sft.train(spec, store, QUICK, "cpu"))
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "language_model.layers" in name and name.endswith("_proj.weight")}


def test_of_several_prompts_each_has_its_share_and_its_contract(tmp_path, monkeypatch):
    """A sample is asked under one that has a question for its task, and learns the answer in that prompt's form."""
    other = Prompt(texts={"ground": "When? {query}"}, answer=AnswerContract(format="fmt_tvg", reward="time_json"))
    seen = []

    class Seen(sft.Collator):
        def response(self, position):
            ids, job = super().response(position), self.job
            seen.append((job.order[position].task, job.prompts[position] == other, job.policy.decode(ids)))
            return ids

    monkeypatch.setattr(sft, "Collator", Seen)
    sft.train(sft_spec(steps=8, batch=6, tasks=MIXED, more_prompts=(other,)), make_store(tmp_path), QUICK, "cpu")
    assert all(("<time>" in text) == under_other for _, under_other, text in seen)
    assert {(task, under_other) for task, under_other, _ in seen} == {
        ("ground", True), ("ground", False), ("describe", False),
    }  # fmt: skip


def test_a_constructed_target_walks_through_the_captions_to_the_answer(tmp_path, monkeypatch):
    taro = PROMPT.model_copy(update={"prefix": "<think>I look for {query}\n{captions}\n",
                                     "answer": AnswerContract(format="fmt_taro", reward="ans_taro")})  # fmt: skip
    seen, response = [], sft.Collator.response
    monkeypatch.setattr(sft.Collator, "response", lambda self, p: seen.append((self, p)) or response(self, p))
    spec = sft_spec(steps=4, batch=6, prompt=taro, constructed=0.5)
    sft.train(spec, test_awbc.store_of(tmp_path), QUICK, "cpu")
    texts = [made.job.policy.decode(response(made, position)) for made, position in seen]
    walks = [text for text in texts if "s, a" in text]
    assert 0 < len(walks) < len(texts) and all(FORMATS["fmt_taro"](text) for text in texts)
    assert re.fullmatch(
        r"<think>I look for .*\n(From .*\n)*From [^\n]*</think> <answer>.*s</answer>", walks[0], re.DOTALL
    )
    with pytest.raises(TvgError, match="no target can be constructed"):
        sft.train(sft_spec(constructed=0.5), test_awbc.store_of(tmp_path / "other"), QUICK, "cpu")


def test_videos_without_frames_are_listed_and_many_are_an_error(tmp_path):
    spec, store = sft_spec(steps=1), make_store(tmp_path, count=6, without_frames=1)
    with pytest.raises(TvgError, match="1 of 6") as error:
        sft.train(spec, store, QUICK, "cpu")
    assert "too many samples have no frames" in str(error.value)
    row = json.loads((store.stage(spec) / "skipped.jsonl").read_text())
    assert row == {"id": "toy-5", "video": "absent-5.mp4", "reason": "not in the frame cache"}


def test_a_few_skipped_samples_are_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_SKIPPED", 0.2)
    store = make_store(tmp_path, without_frames=1)
    samples, _ = inputs.read(sft_spec().data, store, tmp_path)
    assert [sample.id for sample in samples] == [f"toy-{n}" for n in range(5)]


def test_a_limit_takes_the_first_samples(tmp_path):
    data = sft_spec().data.model_copy(update={"limit": 2})
    samples, _ = inputs.read(data, make_store(tmp_path), tmp_path)
    assert [sample.id for sample in samples] == ["toy-0", "toy-1"]


def test_pixels_lost_in_the_prompt_are_an_error(tmp_path, monkeypatch):
    encode = SharedPolicy.encode_group
    monkeypatch.setattr(SharedPolicy, "encode_group", lambda self, messages, frames: encode(self, messages, None))
    with pytest.raises(TvgError, match="encoded without its video"):
        sft.train(sft_spec(), make_store(tmp_path), QUICK, "cpu")


def test_pixels_lost_in_the_forward_pass_are_an_error(tmp_path, monkeypatch):
    packed = SharedPolicy._packed

    def blind(*args):
        inputs, resume = packed(*args)
        return {**inputs, "pixel_values_videos": 0 * inputs["pixel_values_videos"]}, resume

    monkeypatch.setattr(SharedPolicy, "_packed", blind)
    with pytest.raises(TvgError, match="does not see the video"):
        sft.train(sft_spec(), make_store(tmp_path), QUICK, "cpu")


def test_a_loss_that_is_no_number_stops_with_the_step_before_kept(tmp_path, monkeypatch):
    spec, store = sft_spec(steps=5, learning_rate=1e30), make_store(tmp_path)
    with pytest.raises(TvgError, match="the training broke down") as error:
        sft.train(spec, store, QUICK, "cpu")
    folder = store.stage(spec)
    assert error.value.where == "step 2"
    assert (folder / "checkpoints" / "checkpoint-1").exists()
    assert json.loads((folder / "run.json").read_text())["exit"] == 1


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_target_is_in_the_form_that_its_prompt_asks_for(name):
    """And its own reward parser reads the true segment from it."""
    sample = Sample("a", "a.mp4", 30.0, "she opens the door", (Segment(2.0, 6.5),))
    parser = {"fmt_tvg": "time_json", "fmt_taro": "ans_taro"}.get(name, "ans_last")
    text = target(sample, AnswerContract(format=name))
    assert FORMATS[name](text) and PARSERS[parser](text) == strict_answer(text) == Segment(2.0, 6.5)
    assert target(replace(sample, completion="mine"), AnswerContract(format=name)) == "mine"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_taught_answer_narrows_down_over_as_many_anchors_as_its_prompt_wants(count):
    truth = Segment(2.3, 6.6)
    text = target(
        Sample("a", "a.mp4", 30.0, "she opens the door", (truth,)), AnswerContract(format="fmt_tar", anchors=count)
    )
    found = anchors(text)
    assert len(found) == count and found[-1] == truth and FORMATS["fmt_tar"](text)
    assert all(tiou(a, truth) < tiou(b, truth) for a, b in pairwise(found))
