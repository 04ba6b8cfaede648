"""Protocols against what the released evaluators' own functions gave, and against what each must never do."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvg.evaluate.metrics import THRESHOLDS
from tvg.evaluate.protocols import PROTOCOLS, Answer, score
from tvg.parse import PARSERS
from tvg.segment import Segment

ORACLES = {
    "time_r1": "time-r1 (evaluate.py+eval_all.py)",
    "timezero": "www-ye (evaluate.py loop)",
    "videochat_r1": "videochat-r1 (evaluate_grounding.py loop)",
    "taro": "taro (evaluate_vtg.py)",
}
SETS = ("edges", "invalid", "charades_test_a", "qvhighlights_val")
SCORES = [f"r1_{kind}_{m}" for kind in ("at", "ge") for m in THRESHOLDS] + ["miou"]


def oracle(real_data, name):
    """(answers, truths, file) of one of the sets of oracles."""
    rows = [json.loads(line) for line in real_data(f"oracles/inputs/{name}.jsonl").read_text().splitlines()]
    answers = {row["qid"]: Answer(row["output_text"]) for row in rows}
    truths = {row["qid"]: [Segment(*s) for s in row["gt"]] for row in rows}
    return answers, truths, json.loads(real_data(f"oracles/{name}.json").read_text())


def scored(protocol, answers, truths):
    return score(PROTOCOLS[protocol], dict(enumerate(answers)), dict(enumerate(truths)))


def said(text, *truths):
    """Protocol -> miou of one completion against these true segments."""
    truths = [Segment(*truth) for truth in truths]
    return {name: scored(name, [Answer(text)], [truths])["miou"] for name in PROTOCOLS}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("protocol", ORACLES)
def test_scores_equal_the_released_evaluators(real_data, protocol, name):
    answers, truths, file = oracle(real_data, name)
    expected, got = file["metrics"][ORACLES[protocol]], score(PROTOCOLS[protocol], answers, truths)
    percent = 100 if protocol == "time_r1" else 1
    for m in THRESHOLDS:
        theirs = next(expected[key] for key in (str(m), f"R@{m}", f"Recall@{m}") if key in expected)
        kind = "at" if PROTOCOLS[protocol].threshold == ">" else "ge"
        assert got[f"r1_{kind}_{m}"] * percent == pytest.approx(theirs, abs=1e-12)
    if expected["mIoU"] == "NaN":
        assert got["miou"] is None and "2 overlaps are 0/0" in got["note"]
    else:
        assert got["miou"] * percent == pytest.approx(expected["mIoU"], abs=1e-12)
    assert got["n_scored"] == expected.get("n_scored", expected.get("total_samples", len(truths)))
    assert got["n"] == len(truths)


@pytest.mark.parametrize("name", ["edges", "invalid"])
@pytest.mark.parametrize("protocol", ORACLES)
def test_every_item_scores_as_in_the_released_evaluators(real_data, protocol, name):
    answers, truths, file = oracle(real_data, name)
    for key, text in answers.items():
        theirs = file["per_item_mIoU"][key][ORACLES[protocol]]
        got = score(PROTOCOLS[protocol], {key: text}, {key: truths[key]})
        if isinstance(theirs, str):  # NaN, or the exception that takes the item out
            assert got["miou"] is None and got["n_scored"] == (1 if theirs == "NaN" else 0), key
        else:
            percent = 100 if protocol == "time_r1" else 1
            assert got["miou"] * percent == pytest.approx(theirs, abs=1e-12), key


def test_each_reads_as_its_authors():
    got = said("<think>from 1 to 2, then 12.5 to 20</think><answer>5s - 9s</answer>", (5, 9))
    assert got["strict"] == got["taro"] == 1.0
    assert got["timezero"] == got["time_r1"] == got["videochat_r1"] == got["invert4tvg"] == 0.0
    assert said("<think>8 or 9</think><time>[5.0, 9.0]</time>", (5, 9)) == {
        **dict.fromkeys(PROTOCOLS, 0.0), "strict": 1.0, "tvg_r1": 1.0, "taro": 1.0,
    }  # fmt: skip
    assert {protocol.parser for protocol in PROTOCOLS.values()} <= set(PARSERS)


def test_only_taro_turns_a_reversed_answer_round():
    assert said("<answer>9 to 5</answer>", (5, 9)) == {**dict.fromkeys(PROTOCOLS, 0.0), "taro": 1.0}
    for name in PROTOCOLS:
        got = scored(name, [Answer(predicted=Segment(9, 5))], [[Segment(5, 9)]])
        assert (got["miou"], got["parse_failures"]) == (float(name == "taro"), 0)


def test_several_true_segments():
    text = "<answer>20 to 30</answer>"
    assert said(text, (0, 10), (20, 30)) == {
        "strict": 1.0, "tvg_r1": 1.0, "taro": 1.0,  # the best
        "timezero": 0.0, "time_r1": 0.0, "videochat_r1": 0.0,  # the first
        "invert4tvg": 0.5,  # each a query of its own
    }  # fmt: skip
    got = scored("invert4tvg", [Answer(text), Answer("unsure")], [[Segment(0, 10), Segment(20, 30)]] * 2)
    assert (got["n"], got["n_scored"], got["miou"], got["parse_failures"]) == (2, 4, 0.25, 1)
    assert "each of 4 true segments" in got["note"]


def test_two_equal_points():
    point = "<answer>5 to 5</answer>"
    assert said(point, (5, 5)) == {
        "strict": 0.0, "tvg_r1": 0.0, "taro": 0.0, "invert4tvg": 0.0,
        "timezero": None, "videochat_r1": None, "time_r1": None,
    }  # fmt: skip
    pair = [Answer(point), Answer("<answer>0 to 10</answer>")], [[Segment(5, 5)], [Segment(0, 10)]]
    dropped, nan = scored("timezero", *pair), scored("time_r1", *pair)
    assert (dropped["n_scored"], dropped["r1_at_0.7"], dropped["miou"]) == (1, 1.0, 1.0)
    assert (nan["n_scored"], nan["r1_at_0.7"], nan["r1_ge_0.3"], nan["miou"]) == (2, 0.5, 0.5, None)
    assert "1 of 2 queries" in dropped["note"] and "1 overlaps are 0/0" in nan["note"]


def test_a_reversed_truth():
    """What is negative over what is negative is a hit for those who divide without looking."""
    got = said("<answer>38 to 13</answer>", (38, 13))
    assert got["timezero"] == got["videochat_r1"] == 1.0 and got["time_r1"] is None
    assert got["strict"] == got["taro"] == got["invert4tvg"] == got["tvg_r1"] == 0.0
    assert said("<answer>40 to 10</answer>", (38, 13))["timezero"] == 1.0  # theirs is 1.2, which is no fraction


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_query_without_a_prediction(name):
    truths = {"a": [Segment(0, 10)], "b": [Segment(0, 10)]}
    got = score(PROTOCOLS[name], {"a": Answer("<answer>0 to 10</answer>")}, truths)
    zero = name == "strict"
    assert (got["n"], got["n_scored"], got["missing"], got["parse_failures"]) == (2, 2 if zero else 1, 1, 0)
    assert got["r1_at_0.5"] == (0.5 if zero else 1.0)
    none = score(PROTOCOLS[name], {}, truths)
    assert none["miou"] == (0.0 if zero else None) and none["n_scored"] == (2 if zero else 0)


def test_nothing_read_is_a_zero_not_a_missing_prediction():
    for name in PROTOCOLS:
        got = scored(name, [Answer("unsure"), Answer()], [[Segment(0, 10)]] * 2)
        assert (got["n_scored"], got["parse_failures"], got["missing"], got["miou"]) == (2, 2, 0, 0.0), name


def test_no_truth_or_answer_is_clipped():
    assert said("<answer>20.0 to 45.0</answer>", (20, 30))["strict"] == pytest.approx(0.4)
    assert said("<answer>20.0 to 30.0</answer>", (20, 45))["time_r1"] == pytest.approx(0.4)


def test_an_endless_number_is_a_miss():
    for text in (f"<answer>1 to {'9' * 400}</answer>", f"<answer>{'9' * 400} to {'9' * 400}</answer>"):
        assert set(said(text, (1, 9)).values()) == {0.0}


points = st.sampled_from([0.0, 1.0, 2.5, 5.0, 5.5, 9.0]) | st.floats(-5, 40)
segments = st.builds(Segment, points, points)
texts = st.sampled_from(["", "unsure", "<answer>5 to 9</answer>", "<answer>9 to 5</answer>", "<time>[5, 5]</time>",
                         "between 1 and 5", "<answer>5.5 to 5.5</answer>", "2.5 to 9"])  # fmt: skip
answers_ = st.dictionaries(
    st.integers(0, 6), st.builds(Answer, st.none() | texts, st.none() | segments.map(lambda s: Segment(*sorted(s))))
)
truths_ = st.dictionaries(
    st.integers(0, 6), st.lists(segments.map(lambda s: Segment(*sorted(s))), min_size=1, max_size=3), min_size=1
)


@pytest.mark.parametrize("name", PROTOCOLS)
@given(answers_, truths_)
def test_metrics_are_fractions_of_the_denominator(name, answers, truths):
    got = score(PROTOCOLS[name], answers, truths)
    json.dumps(got, allow_nan=False)
    for metric in SCORES:
        value = got[metric]
        assert value is None or 0 <= value <= 1
        assert (
            value is None or metric == "miou" or math.isclose(value * got["n_scored"], round(value * got["n_scored"]))
        )
    if got["n_scored"]:
        assert all(got[f"r1_at_{m}"] <= got[f"r1_ge_{m}"] for m in THRESHOLDS)
    assert got["parse_failures"] + got["missing"] <= got["n"] == len(truths)


@given(answers_, truths_, st.integers(0, 6))
def test_strict_keeps_every_query_and_no_answer_is_never_better(answers, truths, gone):
    got = score(PROTOCOLS["strict"], answers, truths)
    less = score(PROTOCOLS["strict"], {key: answer for key, answer in answers.items() if key != gone}, truths)
    assert got["n"] == got["n_scored"] == less["n_scored"] == len(truths)
    assert all(less[metric] <= got[metric] for metric in SCORES)


@given(answers_, truths_, st.randoms())
def test_the_order_of_rows_is_irrelevant(answers, truths, rng):
    shuffled = dict(rng.sample(list(truths.items()), len(truths)))
    for protocol in PROTOCOLS.values():
        assert score(protocol, answers, shuffled) == score(protocol, answers, truths)
