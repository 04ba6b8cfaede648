"""What a step's rollouts are said to be like: anchors, verbs, unread answers; each figure worked out by hand."""

import math

import pytest

from tests.training import grpo_spec
from tvg.inversion.verbs import extractor
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import RewardSettings
from tvg.train.measures import Measures, most_frequent, spread, verbs

GROUND = Sample("a", "a.mp4", 20.0, "a person runs", (Segment(4, 8),))
RUN = Sample("b", "b.mp4", 20.0, "a person runs", (Segment(4, 8),), task="recognise_action", verbs=("run",))
SIT = Sample("c", "c.mp4", 20.0, "a person sits", (Segment(4, 8),), task="recognise_action", verbs=("sit",))
ANCHORED = {"format": RewardSettings(weight=1.0), "anchors": RewardSettings(weight=1.0)}


def row(text: str, reward: float | None = 0.0, parsed: bool | None = True) -> dict:
    return {"completion": text, "reward": reward, "parsed": parsed}


def anchors(*segments: tuple[float, float]) -> str:
    said = " ".join(f"<timestamp>{start} to {end}</timestamp>" for start, end in segments)
    return f"<think>{said}</think> <answer>4 to 8</answer>"


def measures(tmp_path, names=None, **settings) -> Measures:
    return Measures(grpo_spec(num_generations=2, **settings), tmp_path, extractor(names) if names else None)


def test_the_spread_is_the_mean_over_groups():
    assert spread([1, 3, 5, 5], 2) == pytest.approx(math.sqrt(2) / 2)
    assert spread([1, 3, None, None], 2) == pytest.approx(math.sqrt(2))
    assert math.isnan(spread([None, None], 2))


def test_unread_answers_are_a_share_of_the_grounding_rollouts(tmp_path):
    rows = [row("x"), row("y", parsed=False), row("z", parsed=None), row("z", parsed=None)]
    found = measures(tmp_path)(1, rows, [GROUND, GROUND, RUN, RUN])
    assert found["train/unparsed"] == 0.5 and set(found) == {"train/unparsed", "train/reward_std"}
    assert "train/unparsed" not in measures(tmp_path)(1, rows[2:], [RUN, RUN])


def test_anchors(tmp_path):
    texts = [
        anchors((0, 9), (4, 8)),  # refines
        anchors((4, 8), (4, 8)),  # a tie does not
        anchors((4, 8)),  # nor does one alone
        anchors(*[(0, 9)] * 4, (4, 8)),  # five: over the cap of four
    ]
    rows, samples = [row(text) for text in texts], [GROUND] * 4
    found = measures(tmp_path, rewards=ANCHORED)(1, rows, samples)
    assert found["train/mean_anchors"] == 10 / 4
    assert found["train/anchors_over_cap"] == 1 / 4 and found["train/refined"] == 2 / 4
    capped = {"anchors": RewardSettings(weight=1.0, at_most=1)}
    assert measures(tmp_path, rewards=capped)(1, rows, samples)["train/anchors_over_cap"] == 3 / 4
    alone = {"anchors": RewardSettings(weight=1.0, target=1)}
    assert "train/refined" not in measures(tmp_path, rewards=alone)(1, rows, samples)
    assert "train/mean_anchors" not in measures(tmp_path)(1, rows, samples)


def test_verbs_are_counted_once_a_rollout_over_twenty_steps(tmp_path):
    measured = measures(tmp_path, "standin")
    said = [
        row("<answer>runs</answer>"),
        row("<answer>runs and running</answer>"),
        row("no answer"),
        row("<answer>sit</answer>"),
    ]
    found = measured(1, said, [RUN, RUN, SIT, SIT])
    assert found["train/top_verb_share"] == 2 / 4 and found["train/top_verb_true"] == 2 / 4
    assert verbs(tmp_path).rows() == [
        {
            "step": 1,
            "rollouts": 4,
            "predicted": [["run", 2], ["sit", 1]],
            "true": [["run", 2], ["sit", 2]],
            "top": [["run", 0.5], ["sit", 0.25]],
        }
    ]
    found = measured(20, [row("<answer>sits</answer>")] * 4, [RUN] * 4)
    assert found["train/top_verb_share"] == 5 / 8 and found["train/top_verb_true"] == 2 / 8
    ground = [row("x")] * 2, [GROUND] * 2
    assert measured(21, *ground)["train/top_verb_share"] == 1.0, "step 1 is 20 steps ago"
    assert "train/top_verb_share" not in measured(40, *ground)
    assert verbs(tmp_path).rows()[-1]["top"] == [["sit", 5 / 8], ["run", 2 / 8]]
    assert [one["step"] for one in verbs(tmp_path).rows()] == [1, 20], "no row without an inversion rollout"


def test_a_resumed_run_counts_on(tmp_path):
    first, answers = measures(tmp_path, "standin"), [row("<answer>runs</answer>")] * 2
    for step in (1, 2, 3):
        first(step, answers, [RUN, RUN])
    again = measures(tmp_path, "standin")  # made before the file is cut
    verbs(tmp_path).cut(2)
    found = again(3, [row("<answer>sits</answer>")] * 2, [SIT, SIT])
    assert found["train/top_verb_share"] == 4 / 6 and [one["step"] for one in verbs(tmp_path).rows()] == [1, 2, 3]


def test_the_most_frequent_verbs_of_several_rows():
    rows = [{"predicted": [["sit", 2], ["run", 1]]}, {"predicted": [["run", 1], ["open", 3]]}]
    assert most_frequent(rows) == [("open", 3), ("run", 2), ("sit", 2)]
