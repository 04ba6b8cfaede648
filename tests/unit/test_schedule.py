"""The order of training: exact, up front, and the same however often it is computed."""

from collections import Counter
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

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
from tvg.train.schedule import epoch_of, per_step, schedule, seed_of, shares, steps
from tvg.train.stage import Job

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


# ------------------------------------------------------------ shares that move

ENDS = {"tasks": {"ground": 0.5, "describe": 0.5}, "tasks_end": {"ground": 1.0}}


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.lists(st.floats(0.01, 1), min_size=2, max_size=2))
def test_shares_move_linearly_and_always_sum_to_one(first, last):
    def mixture(names, weights):
        return dict(zip(names, (weight / sum(weights) for weight in weights), strict=True))

    spec = grpo(
        tasks=mixture(["ground", "describe", "complete_verb"], first), tasks_end=mixture(["ground", "caption"], last)
    )
    assert shares(spec, 0.0) == spec.tasks and shares(spec, 1.0) == pytest.approx(spec.tasks_end)
    middle = shares(spec, 0.25)
    assert sum(middle.values()) == pytest.approx(1) and list(middle) == spec.every_task
    for task in spec.every_task:
        assert middle[task] == pytest.approx(0.75 * spec.tasks.get(task, 0) + 0.25 * spec.tasks_end.get(task, 0))


@pytest.mark.parametrize("draw", ["prompt", "step"])
def test_the_first_step_draws_from_tasks_and_the_last_from_tasks_end(draw):
    asked = Counter()
    for seed in range(400):
        order = schedule(grpo(steps=5, seed=seed, draw=draw, **ENDS), samples(20))
        asked.update((position // 4, sample.task) for position, sample in enumerate(order))
    ground = [asked[step, "ground"] / 1600 for step in range(5)]
    assert ground == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0], abs=0.08) and ground[4] == 1


def test_shares_that_stay_are_the_draw_without_an_end():
    assert schedule(grpo(steps=9, tasks=MIXTURE), samples(20)) == schedule(
        grpo(steps=9, tasks=MIXTURE, tasks_end=MIXTURE), samples(20)
    )
    assert len(schedule(grpo(steps=1, prompts_per_step=1, **ENDS), samples(3))) == 1


# ------------------------------------------------------------ a mixture baked into the data

rows_of_videos = st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=30)
BAKED = {"draw": "static", "tasks": {"ground": 0.8, "complete_verb": 0.15, "describe": 0.05}}


def of_videos(rows) -> list[Sample]:
    """rows: for each video, whether each of its samples has a verb."""
    return [
        Sample(f"{v}-{n}", f"{v}.mp4", 10.0, "a query", (Segment(1, 2),), verbs=("run",) if verb else ())
        for v, row in enumerate(rows)
        for n, verb in enumerate(row)
    ]


def repeated(order) -> Counter:
    return Counter((sample.id, sample.task) for sample in order if sample.task != "ground")


@given(rows_of_videos, st.integers(0, 3))
def test_static_grounds_every_sample_and_repeats_whole_videos_close_to_the_share(rows, seed):
    given_, spec = of_videos(rows), grpo(seed=seed, **BAKED)
    shown = epoch_of(spec, given_)
    assert sorted(s.id for s in shown if s.task == "ground") == sorted(s.id for s in given_)
    more = [sample for sample in shown if sample.task != "ground"]
    assert all(sample.verbs for sample in more) and len({sample.id for sample in more}) == len(more)
    of_task = {video: {s.task for s in more if s.video == video} for video in {s.video for s in more}}
    able = Counter(sample.video for sample in given_ if sample.verbs)
    assert all(len(tasks) == 1 for tasks in of_task.values()), "a video is repeated under one task"
    assert Counter(sample.video for sample in more) == {video: able[video] for video in of_task}, "whole videos"
    missing = len(given_) * 0.25 - len(more)
    left = [count for video, count in able.items() if video not in of_task]
    assert abs(missing) <= max(map(sum, rows)) / 2 or (missing > 0 and not left)


def test_static_shares_are_those_of_the_released_data():
    spec = grpo(draw="static", tasks={"ground": 0.834, "complete_verb": 0.166})
    order = epoch_of(spec, of_videos([[True] * (1 + v % 4) for v in range(5338)]))
    assert sum(s.task == "complete_verb" for s in order) / len(order) == pytest.approx(0.166, abs=2e-4)


@given(rows_of_videos, st.integers(0, 3))
def test_static_choice_is_nested_and_depends_on_the_seed_alone(rows, seed):
    few, many = (
        repeated(epoch_of(grpo(seed=seed, draw="static", tasks={"ground": 1 - p, "describe": p}), of_videos(rows)))
        for p in (0.1, 0.4)
    )
    assert few <= many
    again = epoch_of(grpo(seed=seed, **BAKED), of_videos(rows)[::-1])
    assert repeated(again) == repeated(epoch_of(grpo(seed=seed, **BAKED), of_videos(rows)))


def test_static_epochs_are_whole_and_repeat_the_same(caplog):
    rows, spec = of_videos([[True, True]] * 20), grpo(epochs=3, **BAKED)
    with caplog.at_level("INFO"):
        order, size = schedule(spec, rows), len(epoch_of(spec, rows))
    assert size == 50 and len(order) == steps(spec, size) * 4 == 152
    assert "8 as complete_verb, 2 as describe; of 5 videos" in caplog.text
    epochs = [order[start : start + size] for start in (0, 50, 100)]
    assert all(Counter(map(repr, epoch)) == Counter(map(repr, epochs[0])) for epoch in epochs)
    assert epochs[0] != epochs[1] and repeated(epochs[0]) != repeated(schedule(grpo(seed=1, **BAKED), rows))
    assert schedule(grpo(epochs=9, **BAKED), rows)[: len(order)] == order == schedule(spec, rows)


@pytest.mark.parametrize("mixture", [BAKED, {"tasks": MIXTURE}])
def test_every_rollout_of_a_training_has_its_own_seed(mixture):
    rows, spec = of_videos([[True, True]] * 10), grpo(epochs=3, **mixture)
    order, count = schedule(spec, rows), len(epoch_of(spec, rows))
    job = Job(**{f.name: None for f in fields(Job)} | {"spec": spec, "order": order, "count": count})
    seeds = [job.seed_at(position, rollout) for position in range(len(order)) for rollout in range(8)]
    assert len(set(seeds)) == len(seeds)
    if spec.draw == "prompt":
        assert job.seed_at(count, 2) == seed_of(0, 1, order[count].id, 2), "as it has always been"


def test_a_completion_is_not_repeated_under_a_task_that_it_does_not_answer():
    traced = replace(of_videos([[True]])[0], task="caption", completion="text")
    assert epoch_of(grpo(**BAKED), [traced] * 4) == [traced] * 4


@pytest.mark.parametrize(
    "settings",
    [
        {"draw": "static", "tasks": {"describe": 1.0}},
        {"draw": "static", "tasks": {"ground": 0.4, "describe": 0.6}},
        {"draw": "static", **ENDS},
        {"tasks_end": {"ground": 0.5}},
        {"tasks_end": {}},
    ],
)
def test_mixtures_that_cannot_be(settings):
    with pytest.raises(ValidationError, match=r"draw: static|sum to 1"):
        grpo(**settings)


# ------------------------------------------------------------ by difficulty


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30), st.sampled_from([1, -1]))
def test_each_epoch_goes_by_difficulty_and_equals_stand_as_shuffled(difficulties, way):
    graded = [replace(s, difficulty=d) for s, d in zip(samples(len(difficulties)), difficulties, strict=True)]
    spec = grpo(epochs=2, prompts_per_step=1, order="hard_to_easy" if way == 1 else "easy_to_hard")
    count = len(graded)
    order, shuffled = schedule(spec, graded), schedule(grpo(epochs=2, prompts_per_step=1), graded)
    for start in (0, count):
        epoch, before = order[start : start + count], shuffled[start : start + count]
        found = [way * sample.difficulty for sample in epoch]
        assert found == sorted(found), "the mean overlap rises from hard to easy"
        for value in set(difficulties):
            assert [s for s in epoch if s.difficulty == value] == [s for s in before if s.difficulty == value]


def test_an_order_by_an_unknown_difficulty_is_an_error():
    graded = [replace(sample, difficulty=0.5) for sample in samples(3)]
    with pytest.raises(TvgError, match="order by difficulty") as error:
        schedule(grpo(order="easy_to_hard"), [*graded, *samples(2)])
    assert error.value.got == "2 of 5 samples without one" and "kind filter as `data:`" in error.value.hint
