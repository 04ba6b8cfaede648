"""TVG-R1: 0.1 format + 0.9 tIoU on a JSON list in <time>; the vectors, by function and by command, and the prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import answers, vectors, with_experiment
from tests.conftest import REPO
from tvg.config import read_prompt
from tvg.parse import FORMATS, PARSERS, strict_answer
from tvg.prompts import render
from tvg.rewards import Rollout, score, weighted_sum
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import RewardSettings

CASES = vectors("tvg_r1")["cases"]
PROMPT = read_prompt(REPO / "config" / "prompts", "tvg_r1")
WEIGHTS = {"format": RewardSettings(weight=0.1), "tiou": RewardSettings(weight=0.9)}


def sample(*segments):
    return Sample(id="s", video="v", duration=30, query="he {sits}", segments=tuple(Segment(*s) for s in segments))


def reward(text, *truths):
    return score(WEIGHTS, Rollout(text, sample(*(truths or [(6, 12)]))), PROMPT.answer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_vectors(case):
    found = reward(case["text"], case["g"])
    assert found == {"format": case["fmt"], "tiou": pytest.approx(case["iou"], abs=1e-6)}
    assert weighted_sum(found, WEIGHTS) == pytest.approx(case["reward"], abs=1e-6)


OWN = """
paper: ours
prompt: tvg_r1
rewards: {format: {weight: 0.1}, tiou: {weight: 0.9}}
stages: {grpo: {kind: grpo, data: charades_train}}
evaluate: grpo
benchmarks: [charades_test]
arms: {format_only: {rewards.format.weight: 1.0, rewards.tiou: null}}
"""


def test_vectors_on_the_command_line(tmp_path):
    folder = with_experiment(tmp_path, "own", OWN)
    rows = [{"completion": case["text"], "segment": case["g"], "duration": 30} for case in CASES]
    out = answers("reward", "own", rows=rows, config=folder)
    assert [row["reward"] for row in out] == pytest.approx([case["reward"] for case in CASES], abs=1e-6)
    assert [row["rewards"]["format"] for row in out] == [case["fmt"] for case in CASES]
    arm = answers("reward", "own-format_only", rows=rows, config=folder)
    assert [row["reward"] for row in arm] == [case["fmt"] for case in CASES]
    read = answers("parse", "--format", "time_json", rows=[{"text": case["text"]} for case in CASES])
    assert [row["segment"] for row in read] == [case["time"] for case in CASES]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>x</think>\nIt is <time>[6, 12]</time>, I think.", {"format": 1, "tiou": 1}),
        ("<time>[6, 12]</time>", {"format": 0, "tiou": 1}),  # no reasoning
        (" <think>x</think><time>[6, 12]</time>", {"format": 0, "tiou": 1}),  # not stripped
        ("<think>x</think><time>[12, 6]</time>", {"format": 1, "tiou": 0}),
        ("<think>x</think><time>6 to 12</time>", {"format": 1, "tiou": 0}),
        ("<think>x</think><time>[6, 12, 13]</time>", {"format": 1, "tiou": 0}),
        ("<think>x</think><time>[1, 2]</time><time>[6, 12]</time>", {"format": 1, "tiou": 0}),  # the first
        ("<think>[6, 12]</think><answer>6 to 12</answer>", {"format": 0, "tiou": 0}),
        ("", {"format": 0, "tiou": 0}),
    ],
)
def test_what_is_paid(text, expected):
    assert reward(text) == expected


pairs = st.tuples(st.floats(0, 60), st.floats(0, 60))


@given(pairs, pairs)
def test_range_and_agreement_with_our_parser(answer, truth):
    """A well-formed list is read alike in training, by the authors' evaluation and by ours; the reward is in [0, 1]."""
    text = f"<think>x</think> <time>[{answer[0]:.2f}, {answer[1]:.2f}]</time>"
    segment = Segment(round(answer[0], 2), round(answer[1], 2))
    assert PARSERS["time_json"](text) == PARSERS["time_first2"](text) == strict_answer(text) == pytest.approx(segment)
    assert 0.1 <= weighted_sum(reward(text, truth), WEIGHTS) <= 1.0 + 1e-9


def test_the_prompts_example_is_in_the_form_that_is_rewarded():
    system, question = render(PROMPT, sample((6, 12)))
    assert (system["role"], question["role"]) == ("system", "user") and "he {sits}" in question["content"]
    example = "<think>x</think> " + system["content"][system["content"].rindex("<time>") :].rstrip(".")
    assert FORMATS[PROMPT.answer.format](example)
    assert PARSERS[PROMPT.answer.reward](example) == strict_answer(example) == Segment(12.54, 17.83)
