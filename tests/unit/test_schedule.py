"""The order of training: exact, up front, and the same however often it is computed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import FramesSettings, Prompt
from tvg.spec import (
    DatasetIdentity,
    DataSpec,
    FramesSpec,
    GrpoSpec,
    SamplesSpec,
    ScratchModel,
)
from tvg.train.schedule import per_step, schedule, seed_of, steps

MIXTURE = {"ground": 0.8, "complete_verb": 0.2 / 3, "recognise_action": 0.2 / 3, "describe": 0.2 / 3}


def grpo(**settings) -> GrpoSpec:
    identity = DatasetIdentity(name="toy", kind="mini", version=1)
    return GrpoSpec(
        version=1,
        init=ScratchModel(text={}, vision={}),
        data=DataSpec(
            samples=SamplesSpec(dataset=identity, split="train"),
            frames=FramesSpec(dataset=identity, frames=FramesSettings(), version=1),
        ),
        prompt=Prompt(texts={"ground": "{query}"}),
        rewards={},
        versions={},
        **{"seed": 0, "prompts_per_step": 4, **settings},
    )


def samples(count: int, verbless: int = 0) -> list[Sample]:
    return [
        Sample(str(n), f"{n}.mp4", 10.0, "a query", (Segment(1, 2),), verbs=() if n < verbless else ("run",))
        for n in range(count)
    ]


def test_seed_of_is_pinned():
    assert seed_of(0, "order", 1) == 3560704936019802908, "a change here changes every training"
    assert len({seed_of("a", "b"), seed_of("ab"), seed_of("b", "a")}) == 3


@given(count=st.integers(1, 40), epochs=st.floats(0.1, 4), size=st.integers(1, 9))
def test_epochs_are_rounded_up_to_whole_steps_and_each_shows_every_sample_once(count, epochs, size):
    spec = grpo(epochs=epochs, prompts_per_step=size)
    order = schedule(spec, samples(count))
    assert len(order) == steps(spec, count) * size
    assert 0 <= len(order) - epochs * count < size + 1e-6
    for start in range(0, len(order) - count + 1, count):
        assert len({sample.id for sample in order[start : start + count]}) == count


def test_steps_win_over_epochs():
    assert len(schedule(grpo(steps=3, epochs=100), samples(5))) == 12


def test_same_seed_same_order_other_seed_other_order():
    first = schedule(grpo(epochs=2, tasks=MIXTURE), samples(50))
    assert first == schedule(grpo(epochs=2, tasks=MIXTURE), samples(50))
    assert first != schedule(grpo(epochs=2, tasks=MIXTURE, seed=1), samples(50))
    assert [s.id for s in first[:50]] != [s.id for s in first[50:]], "each epoch has its own shuffle"


def test_longer_training_begins_like_the_shorter():
    short, long = (schedule(grpo(steps=n, tasks=MIXTURE), samples(30)) for n in (5, 20))
    assert long[: len(short)] == short


def test_draw_by_prompt_follows_the_mixture():
    order = schedule(grpo(epochs=1, tasks=MIXTURE, prompts_per_step=1), samples(4000))
    shares = Counter(sample.task for sample in order)
    for task, share in MIXTURE.items():
        assert shares[task] / 4000 == pytest.approx(share, abs=0.02)


def test_draw_by_step_gives_a_step_one_task():
    spec = grpo(steps=60, tasks=MIXTURE, draw="step")
    order, size = schedule(spec, samples(17)), per_step(spec)
    drawn = [{sample.task for sample in order[n : n + size]} for n in range(0, len(order), size)]
    assert all(len(tasks) == 1 for tasks in drawn)
    assert len(set.union(*drawn)) > 1


def test_verbless_samples_are_only_ever_grounded_and_counted(caplog):
    with caplog.at_level("INFO"):
        order = schedule(grpo(epochs=20, tasks=MIXTURE), samples(20, verbless=5))
    assert {sample.task for sample in order if not sample.verbs} == {"ground"}
    assert {sample.task for sample in order if sample.verbs} == set(MIXTURE)
    assert "5 of 20 samples have no verb" in caplog.text


def test_no_verbs_at_all_is_an_error_and_not_plain_grounding():
    with pytest.raises(TvgError, match="no sample has verbs"):
        schedule(grpo(tasks=MIXTURE), samples(4, verbless=4))


def test_nothing_left_is_an_error():
    with pytest.raises(TvgError, match="no sample is left"):
        schedule(grpo(), [])


def test_a_sample_with_its_completion_keeps_its_task():
    traced = [Sample("t", "t.mp4", 9.0, "q", (Segment(0, 1),), task="caption", completion="text", verbs=("run",))]
    assert {sample.task for sample in schedule(grpo(steps=9, tasks=MIXTURE), traced)} == {"caption"}
