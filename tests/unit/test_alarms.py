"""Named warnings: each is given when its figures say so, and not a step or a hair before."""

import json
import logging
from types import SimpleNamespace

import pytest

from tvg.train import alarms, record
from tvg.train.alarms import FORMAT, REFINED, SPREADLESS, TOP_VERB, TOP_VERB_TRUE, active
from tvg.train.watch import Watch


def history(**columns) -> list[dict]:
    """Metric rows with these values; None: the row lacks the name."""
    names = {"rate": FORMAT, "refined": REFINED, "zero": SPREADLESS, "top": TOP_VERB, "true": TOP_VERB_TRUE}
    length = max(map(len, columns.values()))
    rows = [{"step": step} for step in range(1, length + 1)]
    for key, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row |= {} if value is None else {names[key]: value}
    return rows


def test_nothing_is_said_of_a_training_without_these_figures():
    assert active([]) == {} and active([{"step": k, "train/loss": 1.0} for k in range(200)]) == {}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.95] * 6 + [0.4] * 5, True),
        ([0.95] * 6 + [0.4] * 3, False),  # the mean of five is 0.62
        ([0.95] * 6 + [0.0], False),  # one bad step is none
        ([0.85] * 20 + [0.0] * 20, False),  # it never worked
        ([0.0] * 20, False),
        ([0.95] * 6 + [0.1] * 9 + [0.95] * 5, False),  # recovered
        ([0.95] * 6 + [0.4] * 2 + [None] * 7 + [0.4] * 3, True),
        ([0.2, 0.95, 0.2], False),
    ],
)
def test_format_collapse(rates, expected):
    assert ("format_collapse" in active(history(rate=rates))) is expected


def test_format_collapse_says_its_figures():
    text = active(history(rate=[0.2] * 5 + [0.96] * 7 + [0.3] * 6))["format_collapse"]
    assert "from 96% (step 10) to 30%" in text and "beta" in text


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.3] * 50, True),
        ([0.3] * 49, False),
        ([0.3] * 30 + [0.36] * 20, False),  # it rises
        ([0.4] * 30 + [0.1] * 20, True),
        ([0.6] * 80, False),  # nothing is left to learn
        ([0.7] * 60 + [0.45] * 20, True),
        ([None, 0.3] * 49, False),  # steps without such rollouts do not count
    ],
)
def test_stagnant_refinement(shares, expected):
    assert ("stagnant_refinement" in active(history(refined=shares))) is expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [([1.0] * 10, True), ([1.0] * 9, False), ([0.9] * 20, False), ([1.0] * 9 + [0.5] + [1.0] * 9, False)],
)
def test_vanishing_variance(shares, expected):
    assert ("vanishing_variance" in active(history(zero=shares))) is expected


@pytest.mark.parametrize(
    ("top", "true", "expected"),
    [(0.6, 0.1, True), (0.6, 0.25, False), (0.5, 0.0, False), (1.0, 0.24, True), (0.0, 0.0, False)],
)
def test_generic_verbs(top, true, expected):
    rows = history(top=[top] * 10, true=[true] * 10)
    assert ("generic_verbs" in active(rows)) is expected
    assert "generic_verbs" not in active(rows[:9])


class Trained:
    """A training's steps as the library reports them to the Watch; its format rate is over 0.9 until `falls`."""

    def __init__(self, folder, falls: int):
        self.folder, self.falls = folder, falls
        folder.mkdir(exist_ok=True)

    def run(self, first: int, last: int) -> None:
        quiet = SimpleNamespace(due=lambda *_: False)
        watch, state = (
            Watch(0, self.folder, None, quiet),
            SimpleNamespace(global_step=first, max_steps=99, log_history=[]),
        )
        watch.on_train_begin(None, state, None)
        for step in range(first + 1, last + 1):
            watch.on_step_begin(None, state, None)
            state.global_step = step
            watch.on_log(None, state, None, {"loss": 0.1, "rewards/format/mean": 1.0 if step <= self.falls else 0.1})


def test_each_name_is_given_once_and_a_resumed_run_does_not_double_it(tmp_path, caplog):
    training = Trained(tmp_path / "stage", falls=10)
    with caplog.at_level(logging.WARNING):
        training.run(0, 20)
    rows = alarms.warnings(training.folder).rows()
    assert [(row["step"], row["name"]) for row in rows] == [(13, "format_collapse")]
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"format_collapse at step 13: {rows[0]['text']}"]
    record.cut(training.folder, 15)
    training.run(15, 20)
    assert alarms.warnings(training.folder).rows() == rows, "the one before the checkpoint stands"
    record.cut(training.folder, 12)
    assert alarms.warnings(training.folder).rows() == []
    training.run(12, 20)
    assert alarms.warnings(training.folder).rows() == rows, "the one after it is met again, of the whole history"
    numbers = [json.loads(line)["step"] for line in (training.folder / "metrics.jsonl").read_text().splitlines()]
    assert numbers == list(range(1, 21))
