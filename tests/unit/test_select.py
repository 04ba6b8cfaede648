"""Stages that make data: what is kept is what the thresholds say, nothing goes in silence, and a kill loses little."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import training
from tests.conftest import REPO
from tvg.errors import TvgError
from tvg.sample import Sample, read_samples
from tvg.segment import Segment
from tvg.select import collect, difficulty
from tvg.select.collect import Candidate
from tvg.settings import CollectSettings, FilterSettings, Gaussian, Prompt
from tvg.spec import CollectSpec, FilterSpec, HubModel
from tvg.train import grpo, inputs, sft

WEIGHTS = json.loads((REPO / "tests" / "vectors" / "difficulty_weights.json").read_text())
THIRD = Gaussian(centre=0.3, width=0.2)


def samples(count=6):
    return [Sample(f"s{k}", f"v{k}.mp4", 10.0, "opens", (Segment(2.0, 6.0),)) for k in range(count)]


def kept(settings, overlaps):
    chosen, rejected = difficulty.choose(FilterSettings(seed=0, **settings), samples(len(overlaps)), overlaps)
    assert len(chosen) + len(rejected) == len(overlaps) and all(row["reason"] for row in rejected)
    return [sample.id for sample in chosen]


OVERLAPS = {"s0": [0.0, 0.0], "s1": [0.1, 0.1], "s2": [0.0, 0.4], "s3": [0.7, 0.7], "s4": [0.7, 0.8], "s5": [1.0, 1.0]}


def test_thresholds_of_time_r1_and_tvg_r1():
    assert kept({"above": 0.0, "at_most": 0.7}, OVERLAPS) == ["s1", "s2", "s3"], "0 < d <= 0.7"
    assert kept({"at_least": 0.1, "at_most": 0.7, "spread_above": 0.05}, OVERLAPS) == ["s2"]
    assert kept({}, OVERLAPS) == list(OVERLAPS)


def test_kept_samples_carry_their_difficulty():
    chosen, rejected = difficulty.choose(FilterSettings(above=0.5), samples(), OVERLAPS)
    assert [sample.difficulty for sample in chosen] == [0.7, 0.75, 1.0]
    assert rejected[0] == {"id": "s0", "difficulty": 0.0, "reason": "mean tIoU 0.000, not above 0.5"}


@pytest.mark.parametrize("case", WEIGHTS["gaussian_03"]["cases"], ids=lambda case: str(case["d"]))
def test_gaussian_weights_equal_the_vectors(case):
    assert difficulty.weight(case["d"], THIRD) == pytest.approx(case["weight"], abs=WEIGHTS["tolerance"])


@given(st.permutations(range(40)), st.integers(0, 40), st.integers(0, 3))
def test_a_draw_does_not_depend_on_the_order_and_takes_no_zero(order, count, seed):
    overlaps = {f"s{k}": [k / 40] for k in range(40)}
    settings = FilterSettings(gaussian=THIRD, count=max(1, count), seed=seed)
    drawn = [
        {sample.id for sample in difficulty.choose(settings, rows, overlaps)[0]}
        for rows in (samples(40), [samples(40)[k] for k in order])
    ]
    assert drawn[0] == drawn[1] and len(drawn[0]) == min(39, max(1, count)) and "s0" not in drawn[0]


def test_the_draw_prefers_what_the_gaussian_prefers():
    overlaps = {f"s{k}": [0.3 if k % 2 else 0.9] for k in range(400)}
    chosen, _ = difficulty.choose(FilterSettings(gaussian=THIRD, count=100, seed=0), samples(400), overlaps)
    assert sum(sample.difficulty == 0.3 for sample in chosen) > 90


def test_too_few_samples_are_filled_up_with_drawn_ones(caplog):
    found = kept({"above": 0.7, "min_count": 4}, OVERLAPS)
    assert len(found) == 4 and {"s4", "s5"} <= set(found) and "only 2 samples pass" in caplog.text
    assert kept({"above": 0.7, "min_count": 2}, OVERLAPS) == ["s4", "s5"]
    assert len(kept({"above": 0.7, "min_count": 40}, OVERLAPS)) == len(OVERLAPS)


def test_evenly_takes_both_ends():
    overlaps = {f"s{k}": [k / 10] for k in range(11)}
    assert kept({"count": 3, "pick": "evenly"}, overlaps) == ["s0", "s5", "s10"]


# ---------------------------------------------------------------- collect


def trace(*anchors, answer=None):
    inside = " ".join(f"<timestamp>{a:.2f} to {b:.2f}</timestamp>" for a, b in anchors)
    last = answer or (anchors[-1] if anchors else (0, 1))
    return f"<think>{inside}</think><answer>{last[0]:.2f} to {last[1]:.2f}</answer>"


def reasons(settings, *candidates):
    chosen, rejected = collect.choose(CollectSettings(**settings), "ans_last", list(candidates))
    return [sample.id for sample in chosen], [row["reason"] for row in rejected]


def test_the_published_filter_of_tar_tvg():
    """Reward above 6.4, two anchors, soft IoU above 0.5 and 0.7 (systems.md 2.6); every threshold is strict."""
    sample = samples(1)[0]
    good, loose = trace((2, 7), (2, 6)), trace((2, 10), (2, 6))
    settings = {"min_reward": 6.4, "min_anchors": 2, "min_soft_iou": [0.5, 0.7]}
    ids, why = reasons(
        settings, Candidate(sample, good, 7.9), Candidate(sample, good, 6.4), Candidate(sample, loose, 7.0),
        Candidate(sample, trace((2, 6)), 7.0), Candidate(sample, good, 8.0),
    )  # fmt: skip
    assert ids == ["s0", "s0.2"], "two rollouts of one sample are two targets"
    assert why == ["reward 6.4, not above 6.4", "soft IoU 0.500 of anchor 1, not above 0.5", "1 anchors"]


def test_cold_start_traces_are_kept_by_the_overlap_of_their_answer():
    sample = samples(1)[0]
    ids, why = reasons(
        {"min_tiou": 0.5}, Candidate(sample, trace(answer=(2, 4))), Candidate(sample, trace(answer=(2, 3))),
        Candidate(sample, "no answer"),
    )  # fmt: skip
    assert ids == ["s0"] and why == ["tIoU 0.250, below 0.5", "no readable answer"]


def test_at_most_so_many_are_the_best():
    rows = [Candidate(sample, "x", reward) for sample, reward in zip(samples(4), (1.0, 3.0, 2.0, 3.0), strict=True)]
    chosen, rejected = collect.choose(CollectSettings(count=2), "ans_last", rows)
    assert [sample.id for sample in chosen] == ["s1", "s3"] and len(rejected) == 2
    assert all(sample.completion == "x" for sample in chosen)


def test_too_few_good_ones_are_filled_up_with_the_best_others(caplog):
    rows = [Candidate(sample, "x", reward) for sample, reward in zip(samples(4), (1.0, 3.0, 2.0, 0.5), strict=True)]
    settings = CollectSettings(min_reward=2.5, min_count=3)
    chosen, rejected = collect.choose(settings, "ans_last", rows)
    assert [sample.id for sample in chosen] == ["s0", "s1", "s2"] and [row["id"] for row in rejected] == ["s3"]
    assert "only 1 of 4 pass" in caplog.text
    assert len(collect.choose(settings, "ans_last", rows[:2])[0]) == 2, "never more than there are"
    assert len(collect.choose(settings.model_copy(update={"count": 2}), "ans_last", rows)[0]) == 2


# ---------------------------------------------------------------- the jobs, on a tiny model


def filter_spec(**settings):
    common = {"version": 1, "model": training.COMMON["init"], "data": training.DATA, "prompt": training.PROMPT}
    return FilterSpec(
        **{**common, "versions": {}, "num_generations": 2, "max_completion_tokens": 6, "seed": 0, **settings}
    )


def test_a_filter_answers_everything_once_and_a_stage_trains_on_what_it_kept(tmp_path):
    store = training.make_store(tmp_path)
    spec = filter_spec(above=-1.0, count=3)
    path = difficulty.run(spec, store, training.QUICK, device="cpu")
    chosen = list(read_samples(path))
    assert len(chosen) == 3 and all(sample.difficulty is not None for sample in chosen)
    folder = store.stage(spec)
    answers = (folder / "answers.jsonl").read_text().splitlines()
    (folder / "answers.jsonl").write_text("\n".join(answers[:2]) + '\n{"id": "cut')
    path.unlink()
    again = list(read_samples(difficulty.run(spec, store, training.QUICK, device="cpu")))
    assert again == chosen and sorted((folder / "answers.jsonl").read_text().splitlines()) == sorted(answers)
    report = json.loads((folder / "report.json").read_text())
    assert report["kept"] == 3 and report["read"] == report["passed"] == len(answers)
    data = training.DATA.model_copy(update={"made_by": spec})
    read, _ = inputs.read(data, store, tmp_path)
    assert read == chosen


def test_a_mere_draw_asks_no_model(tmp_path):
    spec = filter_spec(count=2, model=HubModel(hub="nobody/nothing", revision="x"))
    chosen = list(read_samples(difficulty.run(spec, training.make_store(tmp_path), training.QUICK, device="cpu")))
    assert len(chosen) == 2 and chosen[0].difficulty is None


def test_a_filter_that_keeps_nothing_is_an_error_with_the_histogram(tmp_path):
    store = training.make_store(tmp_path)
    with pytest.raises(TvgError, match="keeps nothing") as error:
        difficulty.run(filter_spec(above=1.0), store, training.QUICK, device="cpu")
    assert "mean tIoU" in error.value.got and not (store.stage(filter_spec(above=1.0)) / "samples.jsonl").exists()


def test_rollouts_of_a_training_become_targets_of_another(tmp_path):
    store = training.make_store(tmp_path)
    explore = training.grpo_spec(tasks={"ground": 1.0}, steps=2)
    grpo.train(explore, store, training.QUICK, device="cpu")
    spec = CollectSpec(version=1, source=explore, data=explore.data, prompt=explore.prompt, versions={})
    path = collect.run(spec, store)
    chosen = list(read_samples(path))
    assert len(chosen) == 2 * 2 * 4 and len({sample.id for sample in chosen}) == len(chosen), (
        "every rollout of each step"
    )
    target = training.sft_spec(data=explore.data.model_copy(update={"made_by": spec}), steps=1)
    assert (sft.train(target, store, training.QUICK, device="cpu") / "model.done").exists()
    with pytest.raises(TvgError, match="keeps nothing"):
        collect.run(spec.model_copy(update={"min_reward": math.inf}), store)


def test_an_answer_that_cannot_be_read_scores_zero_or_by_the_fallback():
    spec, sample = filter_spec(prompt=Prompt(texts={"ground": "{query}"})), replace(samples(1)[0])
    assert difficulty.overlap(spec, "from 2 to 6 or so", sample) == 0.0
    assert difficulty.overlap(spec.model_copy(update={"fallback": "force2"}), "from 2 to 6", sample) == 1.0
