"""What an annotator says of the mini videos: dense captions and cold-start traces, with the faults that they have."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tvg import datasets
from tvg.config import Scale, read, read_dataset
from tvg.datasets import mini
from tvg.datasets.mini_annotator import FAULTS, SENTENCES, Annotator, dense_captions, trace
from tvg.errors import TvgError
from tvg.parse import fmt_tvg, strict_answer, time_json
from tvg.segment import Segment, tiou
from tvg.spec import DatasetIdentity

FOLDER = REPO / "config" / "datasets"
WORDINGS = tuple(mini.WORDINGS.values())
RATES = Annotator(traces=("cold",), missed=0.2, wrong_verb=0.1, off_by=1.0, corrupted=0.4)


def identity(name: str = "mini", **changes) -> DatasetIdentity:
    shipped = read_dataset(FOLDER, name)
    return shipped.model_copy(update={"settings": {**shipped.settings, **changes}})


def load(split: str, **which) -> list:
    return datasets.load(identity(**which), split, Path("absent")).samples


def events(video: str, split: str, index: int) -> list[tuple[Segment, str]]:
    settings = mini.Settings.model_validate(identity(video).settings)
    return [mini.caption(action) for action in mini.script(settings, split, index).actions]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@st.composite
def videos(draw):
    """(events, duration): one to five, at least 0.3 s long and 0.8 s apart, as the mini data set draws them."""
    events, now = [], 0.0
    for wording in draw(st.lists(st.sampled_from(WORDINGS), min_size=1, max_size=5, unique=True)):
        start = round(now + draw(st.floats(0.8, 9)), 1)
        now = round(start + draw(st.floats(0.3, 9)), 1)
        events.append((Segment(start, now), wording))
    return events, round(now + draw(st.floats(0.8, 9)), 1)


# ---------------------------------------------------------------- dense captions


def test_the_train_split_is_captioned_and_no_other():
    assert all(sample.captions is not None for sample in load("train"))
    assert all(sample.captions is None for split in ("val", "test") for sample in load(split))
    assert all(sample.completion is None for split in ("train", "val", "test") for sample in load(split))


def test_captions_stay_what_they_are():
    """Should this fail, a seed gives other captions: raise `version` in config/datasets/mini.yaml."""
    lines = "\n".join(sample.to_json() for sample in load("train"))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "d740bd207583c639"


def test_an_annotator_changes_nothing_else():
    silent = load("train", annotator=None)
    assert [replace(sample, captions=None) for sample in load("train")] == silent
    more = load("train", splits={"train": 200})
    assert more[: len(silent)] == load("train")


def test_faults_are_as_frequent_as_the_settings_say():
    events_of = {k: events("mini", "train", k) for k in range(160)}
    captions = {int(sample.video[6:11]): sample.captions for sample in load("train")}
    total = sum(map(len, events_of.values()))
    told = [
        (next(event for event in events_of[k] if abs(event[0].start - start) <= 1.01), (start, end, text))
        for k, captions in captions.items()
        for start, end, text in captions
    ]
    assert 0.15 < 1 - len(told) / total < 0.25
    assert 0.06 < np.mean([text != event[1] for event, (_, _, text) in told]) < 0.14
    off = np.array([(start - event[0].start, end - event[0].end) for event, (start, end, _) in told])
    assert np.abs(off).max() <= 1.0 + 1e-6 and np.abs(off).max() > 0.9
    assert abs(off.mean()) < 0.1 and 0.5 < off.std() < 0.65, "uniform, either way"


def test_samples_of_one_video_share_its_captions():
    first = {}
    for sample in load("train"):
        assert first.setdefault(sample.video, sample.captions) is sample.captions


def test_without_faults_captions_are_the_truth():
    honest = {"captions": ["train"], "missed": 0, "wrong_verb": 0, "off_by": 0}
    for sample in load("train", annotator=honest, splits={"train": 20}):
        truth = events("mini", "train", int(sample.video[6:11]))
        assert sample.captions == tuple((*segment, text) for segment, text in truth)


@given(videos(), st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 5))
def test_any_captions_are_sound(video, seed, missed, wrong_verb, off_by):
    what, duration = video
    annotator = Annotator(missed=missed, wrong_verb=wrong_verb, off_by=off_by)
    captions = dense_captions(annotator, what, WORDINGS, duration, rng(seed))
    assert list(captions) == sorted(captions) and len(captions) <= len(what)
    for start, end, text in captions:
        assert 0 <= start <= end <= duration and text in WORDINGS
        assert (start, end) == (round(start, 1), round(end, 1))


@given(videos(), st.integers(0, 10_000))
def test_a_higher_rate_adds_faults_and_moves_none(video, seed):
    what, duration = video
    few, many = (
        dense_captions(RATES.model_copy(update={"missed": rate}), what, WORDINGS, duration, rng(seed))
        for rate in (0.2, 0.7)
    )
    assert set(many) <= set(few)


# ---------------------------------------------------------------- traces


def cold() -> list:
    return load("cold", name="mini_cold")


def sound(sample) -> bool:
    """What the published filter asks: systems.md 8, row 25."""
    predicted = time_json(sample.completion)
    return predicted is not None and tiou(predicted, sample.segments[0]) >= 0.5


def test_three_of_five_traces_are_sound():
    samples = cold()
    assert len({sample.video for sample in samples}) == 48 and all(
        sample.video.startswith("cold-") for sample in samples
    )
    assert 0.5 < np.mean(list(map(sound, samples))) < 0.7
    for sample in filter(sound, samples):
        assert fmt_tvg(sample.completion) and strict_answer(sample.completion) == time_json(sample.completion)
        assert tiou(time_json(sample.completion), sample.segments[0]) > 0.55


def test_traces_stay_what_they_are():
    """Should this fail, a seed gives other traces: raise `version` in config/datasets/mini_cold.yaml."""
    lines = "\n".join(sample.to_json() for sample in cold())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "0ccd1e05da17ea18"


def test_a_trace_walks_through_captions_and_ends_in_the_answer():
    samples = [sample for sample in cold() if sound(sample)]
    for sample in samples:
        reasoning = sample.completion.partition("</think>")[0]
        start, end = time_json(sample.completion)
        assert f"From {start:.2f} to {end:.2f} a person " in reasoning
        assert f"<time>[{start:.2f}, {end:.2f}]</time>" in sample.completion
    assert sum("First a person" in sample.completion for sample in samples) > len(samples) / 2
    assert any("Then a person" in sample.completion for sample in samples)
    assert any(", then a person" in sample.completion for sample in samples), "of a query about two events"


def test_a_trace_fits_into_the_mini_scales_completions():
    from tvg.model.tokenizer import build

    tokenizer = build()
    most = read(Scale, REPO / "config" / "scales", "mini").set["grpo"]["max_completion_tokens"]
    assert max(len(tokenizer(sample.completion)["input_ids"]) + 1 for sample in cold()) <= most


@given(videos(), st.data(), st.integers(0, 10_000), st.floats(0, 3))
def test_any_trace_is_sound_or_is_seen_to_be_corrupted(video, data, seed, off_by):
    what, duration = video
    first = data.draw(st.integers(0, len(what) - 1))
    last = data.draw(st.integers(first, min(first + 1, len(what) - 1)))
    asked = Segment(what[first][0].start, what[last][0].end)
    annotator = RATES.model_copy(update={"off_by": off_by})
    captions = dense_captions(annotator, what, WORDINGS, duration, rng(seed))
    text, fault = trace(annotator, asked, what, captions, duration, rng(seed))
    predicted = time_json(text)
    if fault is None:
        assert fmt_tvg(text) and tiou(predicted, asked) > 0.55
        assert text.count("a person") <= SENTENCES
        assert 0 <= predicted.start < predicted.end <= duration
    elif fault == "elsewhere":
        assert fmt_tvg(text) and tiou(predicted, asked) < 0.35
    else:
        assert text and predicted is None
        assert fmt_tvg(text) == (fault == "unreadable")


def test_every_kind_of_fault_occurs():
    settings = mini.Settings.model_validate(identity("mini_cold").settings)
    found = Counter()
    for k in range(48):
        what = events("mini_cold", "cold", k)
        for q, (asked, _) in enumerate(mini.script(settings, "cold", k).queries):
            one = trace(settings.annotator, asked, what, (), 40.0, mini.generator(settings, "cold", k, f"trace {q}"))
            found[one.fault] += 1
    assert set(found) == {None, *FAULTS} and min(found.values()) >= 5


def test_all_or_none_corrupted():
    rates = {"traces": ["cold"], "missed": 0.2, "wrong_verb": 0.1, "off_by": 1.0}
    assert all(map(sound, load("cold", name="mini_cold", annotator={**rates, "corrupted": 0.0})))
    assert not any(map(sound, load("cold", name="mini_cold", annotator={**rates, "corrupted": 1.0})))


# ---------------------------------------------------------------- the files


def test_the_pool_and_the_cold_start_are_drawn_as_mini_is():
    shipped = identity().settings
    for name, split in (("mini_cold", "cold"), ("mini_pool", "pool")):
        other = identity(name).settings
        assert {**other, "splits": 0, "annotator": 0} == {**shipped, "splits": 0, "annotator": 0}
        assert list(other["splits"]) == [split] and split not in shipped["splits"]
    rates = {**identity("mini_cold").settings["annotator"], "captions": ["train"]}
    assert {**shipped["annotator"], "traces": ["cold"], "corrupted": 0.4} == rates
    assert identity("rehearsal").settings["annotator"] == rates


def test_no_video_of_one_is_in_another():
    splits = [("mini", split) for split in ("train", "val", "test")] + [("mini_cold", "cold"), ("mini_pool", "pool")]
    names = [{sample.video for sample in load(split, name=name)} for name, split in splits]
    assert len(set.union(*names)) == sum(map(len, names)) == 160 + 16 + 48 + 48 + 96


@pytest.mark.parametrize(
    ("annotator", "complaint"),
    [
        ({"captions": ["trian"], "missed": 0, "wrong_verb": 0, "off_by": 0}, "trian is none of the splits"),
        ({"traces": ["train"], "missed": 0, "wrong_verb": 0, "off_by": 0}, "both or neither"),
        ({"captions": ["train"], "missed": 0, "wrong_verb": 0, "off_by": 0, "corrupted": 0.4}, "both or neither"),
        ({"captions": ["train"], "missed": 1.2, "wrong_verb": 0, "off_by": 0}, "less than or equal to 1"),
        ({"captions": ["train"], "missed": 0, "wrong_verb": 0, "off_by": -1}, "greater than or equal to 0"),
        ({"captions": ["train"], "mised": 0, "wrong_verb": 0, "off_by": 0}, "did you mean 'missed'"),
    ],
)
def test_an_annotator_that_cannot_be(annotator, complaint):
    with pytest.raises(TvgError, match=complaint):
        load("train", annotator=annotator)
