"""Parsers and format checks: the vectors, the released evaluators' own answers, and texts that models really write."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.unit.golden import check_golden
from tvg import parse
from tvg.parse import FORMATS, PARSERS, strict_answer
from tvg.segment import Segment

VECTORS = json.loads((REPO / "tests/vectors/parsers.json").read_text())
TVG_R1 = json.loads((REPO / "tests/vectors/tvg_r1.json").read_text())
RELEASED = {
    "time-r1/evaluate.extract_answer(tg)": "whole_last",
    "www-ye/evaluate.parse_timestamp_output": "whole_last",
    "videochat-r1/evaluate_grounding.parse_timestamp_output": "whole_last",
    "time-r1/main.parse_timestamp_output(reward)": "ans_last",
    "time-r1/calc_difficulty.extract_answer_force": "force2",
    "taro/evaluate_vtg.extract_time": "last2",
    "taro/rewards.parse_timestamp_output(reward)": "ans_taro",
}
# As released (systems.md 1.4); ours is written differently, to be fast
RELEASED_PAIR = re.compile(r"(\d+\.?\d*) (?:to|and) (\d+\.?\d*)")
MODEL_TEXT = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<answer>", "</answer>", "<time>", "</time>", " to ", " and ", "s", "-", "[", "]", ", ",
         "1", "23", "4.5", ".", "0", " ", "\n", ":", "٣", "at", "TO"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


def as_list(segment):
    return None if segment is None else list(segment)


def answered(body):
    return strict_answer(f"<think>from 1 to 2</think> <answer>{body}</answer>")


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_vectors(case):
    for name in VECTORS["fields"]:
        if name in FORMATS:
            assert FORMATS[name](case["text"]) == bool(case[name]), name
        else:
            assert as_list(PARSERS[name](case["text"])) == case[name], name


@pytest.mark.parametrize("case", TVG_R1["cases"], ids=lambda case: case["id"])
def test_tvg_r1_vectors(case):
    assert FORMATS["fmt_tvg"](case["text"]) == bool(case["fmt"])
    assert as_list(PARSERS["time_json"](case["text"])) == case["time"]


@pytest.mark.parametrize("row", TVG_R1["parser_cases"]["rows"], ids=lambda row: row["text"])
def test_tvg_r1_consequences(row):
    assert FORMATS["fmt_tvg"](row["text"]) == bool(row["fmt_tvg"])
    assert as_list(PARSERS["time_first2"](row["text"])) == row["time_first2"]
    if row["time_json"] != "unspecified":
        assert as_list(PARSERS["time_json"](row["text"])) == row["time_json"]


@pytest.mark.parametrize(("released", "ours"), RELEASED.items())
def test_agrees_with_the_released_code(released, ours, real_data):
    items = json.loads(real_data("oracles/text_parsing_dev.json").read_text())["items"]
    for item in items:
        expected = item["parsers"][released]
        expected = None if expected in ([], [None, None]) else expected
        assert as_list(PARSERS[ours](item["text"])) == expected, item["text"]


def test_formats_agree_with_the_released_code(real_data):
    for item in json.loads(real_data("oracles/text_parsing_dev.json").read_text())["items"]:
        assert FORMATS["fmt_ta"](item["text"]) == item["rewards"]["time-r1/main.format_reward"], item["text"]
        assert FORMATS["fmt_taro"](item["text"]) == item["rewards"]["taro/rewards.format_reward"], item["text"]


@given(MODEL_TEXT)
def test_the_fast_number_is_the_released_number(text):
    assert parse.PAIR.findall(text) == RELEASED_PAIR.findall(text)


@pytest.mark.parametrize("body", ["3.5 to 9", "3.5 TO 9", "3.5 and 9", "between 3.5 and 9", "3.5-9", "3.5 - 9",
                                  "3.5–9.0", "3.5 — 9", "3.5, 9", "[3.5, 9.0]", "3.5s to 9s", "3.5 s - 9 s",
                                  "3.5 seconds to 9 secs.", "from 3.5 to 9 seconds.",
                                  "\n3.5 to\n9\n", "3.50 to 9.00."])  # fmt: skip
def test_strict_answer_reads(body):
    assert answered(body) == Segment(3.5, 9.0)


@pytest.mark.parametrize("body", ["", "unsure", "3.5", "3.5 9", "3.5 until 9", "00:03 to 00:09", "3 to 0:09",
                                  "-3.5 to 9", "3.5 to -9", "1 to 2 and 3", "1 to 2, 3 to 4", "3 to 9 (2)",
                                  "3.5.1 to 9", ".5 to 9", "3x to 9", "1e5 to 9", "٣ to ٩", "3m to 9m",
                                  "inf to nan"])  # fmt: skip
def test_strict_answer_refuses(body):
    assert answered(body) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 to 9", None),  # no element
        ("<think>3 to 9</think>", None),  # reasoning is never the answer
        ("<think>3 to 9</think><answer></answer>", None),
        ("<answer>1 to 2</answer><answer>unsure</answer>", None),  # the last element counts, readable or not
        ("<answer>1 to 2</answer><answer>3 to 9</answer>", Segment(3, 9)),
        ("<answer>1 to 2</answer><time>3 to 9</time>", Segment(3, 9)),
        ("<think>1 to 2</think> <time>[3, 9.0]</time>", Segment(3, 9)),  # TVG-R1's form
        ("<answer>3 to 9</answer> or rather 4 to 10", Segment(3, 9)),
        ("<answer>1 to 2<answer>3 to 9</answer>", Segment(3, 9)),
        ("<answer>3 to 9", None),
        ("<answer>9 to 3</answer>", Segment(9, 3)),  # read as written: the score is 0
    ],
)
def test_strict_answer_looks_in_the_last_element_only(text, expected):
    assert strict_answer(text) == expected


@pytest.mark.parametrize("body", ['{"1": 2, "3": 4}', '"12"', "12", "null", "[[1], [2]]", "[1, null]", "[" * 3000,
                                  "[1, " + "9" * 400 + "]", "[1]", "[1, 2, 3]", ""])  # fmt: skip
def test_time_json_takes_a_list_of_two_numbers_only(body):
    assert PARSERS["time_json"](f"<think>x</think><time>{body}</time>") is None


@given(MODEL_TEXT)
def test_any_text_is_read_or_refused(text):
    for parser in PARSERS.values():
        segment = parser(text)
        assert segment is None or (isinstance(segment, Segment) and all(isinstance(t, float) for t in segment))
    assert all(check(text) in (True, False) for check in FORMATS.values())


@given(MODEL_TEXT)
def test_order_of_reading(text):
    """`last2` alone repairs a reversed pair; strict_answer never reads what no number follows."""
    swapped = PARSERS["last2"](text)
    assert swapped is None or swapped.start <= swapped.end


@pytest.mark.parametrize("text", ["<answer>1." + "3" * 4000 + "</answer>", "<answer>" + "1 to " * 1000 + "</answer>",
                                  "<answer>1" + " " * 4000 + "</answer>", "<answer>" * 500])  # fmt: skip
def test_a_runaway_completion_takes_no_time(text):
    start = time.perf_counter()
    for read in (*PARSERS.values(), *FORMATS.values()):
        read(text)
    assert time.perf_counter() - start < 1.0


def test_version():
    texts = [case["text"] for case in VECTORS["cases"]] + [row["text"] for row in TVG_R1["parser_cases"]["rows"]]
    texts += [f"<answer>{body}</answer>" for body in ("3.5-9", "3s, 9s", "-3 to 9", "0:03 to 0:09", "1 to 2 and 3")]
    readings = {
        name: [as_list(read(text)) if name in PARSERS else read(text) for text in texts]
        for name, read in {**PARSERS, **FORMATS}.items()
        if name not in ("fmt_tar", "fmt_tar_free")  # added since: stored as parse.tar, by test_rewards_tar.py
    }
    check_golden("parse", parse.VERSION, readings)
