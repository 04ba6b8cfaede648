"""What reasoning holds: TaRO's times by each clause of systems.md 4 and its negation, TAR-TVG's anchors; end to end."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import vectors
from tests.training import COMMON, DATA, PROMPT, VIDEOS, make_store
from tests.unit.test_metrics import absent, row
from tvg.evaluate import metrics, predict
from tvg.evaluate.reasoning import anchored, columns, names_time
from tvg.model.shared import SharedPolicy
from tvg.parse import fmt_tar
from tvg.settings import AnswerContract, EvaluateSettings, Runtime
from tvg.spec import EvaluationSpec, Floor

TAR = AnswerContract(format="fmt_tar")
FREE = AnswerContract(format="fmt_tar_free")
SHARES = ("timestamp_rate", "anchored_rate", "answer_is_last_anchor", "refinement_rate")
# As systems.md 4 writes them; ours is written differently, to be fast
DEFINED = (
    r"\d+(\.\d+)?\s*(s|sec|seconds)?\s*(to|and|-|–)\s*\d+(\.\d+)?",
    r"\d+(\.\d+)?\s*(s|sec|seconds)\b",
    r"<timestep>\s*[^\s<][^<]*</timestep>",
    r"<timestamp>\s*[^\s<][^<]*</timestamp>",
)
TEXT = st.lists(
    st.sampled_from(
        ["<timestep>", "</timestep>", "<timestamp>", "</timestamp>", "<b>", " to ", "to", "and", "s", " sec", "seconds",
         "-", " – ", "1", "23", "4.5", ".", "0", " ", "\n", ":", "at", "S", ","]
    ),
    max_size=12,
).map("".join)  # fmt: skip


def thought(body, answer="<answer>1.00 to 2.00</answer>"):
    return f"<think>{body}</think> {answer}"


def tar(*anchors, answer=None):
    """A response with these anchors that answers with the last one, or with `answer`."""
    found = [f"<timestamp>{start} to {end}</timestamp>" for start, end in anchors]
    start, end = answer or anchors[-1]
    return thought(f"It is {', then '.join(found)}.", f"<answer>{start} to {end}</answer>")


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    "body",
    [
        "from 2.5 to 4.75", "from 2 to 4", "2.5s to 4s", "2.5 sec - 4.0 sec", "2 seconds and 4 seconds", "2–4", "2 -4",
        "between 1\nand 2", "it takes 1 and 2",  # prose too: the definition does not look at what is counted
        "at 5s", "at 5 s.", "at 5.25 sec,", "after 12 seconds", "12seconds",
        "<timestep>5</timestep>", "<timestep> 5 to 6 </timestep>", "at <timestamp>early</timestamp>",
    ],
)  # fmt: skip
def test_a_time_in_the_reasoning(body):
    assert names_time(thought(body)) and names_time(f"so <think>\n{body}\n</think>")
    assert not names_time(thought("a dog runs", f"<answer>{body}</answer>")), "the answer is no reasoning"
    assert not names_time(body) and not names_time(f"<think>{body}"), "only a whole think block is"


@pytest.mark.parametrize(
    "body",
    [
        "", "a dog runs", "2 dogs, 3 cats", "frame 12", "at 5", "at 5.25", "to 7", "12.5", "2 or 4", "2, 4",
        "2 until 4", "5 shots", "5 secs", "1 second", "at 5S", "3 to four", "1:30", "<timestep>",
        "<timestep></timestep>", "<timestamp> \n</timestamp>", "<timestep>5</timestamp>", "<time>5</time>",
    ],
)  # fmt: skip
def test_no_time_in_the_reasoning(body):
    assert not names_time(thought(body))


@given(TEXT)
def test_the_detector_is_the_one_of_the_definition(body):
    assert names_time(thought(body)) == any(re.search(clause, body) for clause in DEFINED)


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.sampled_from(["s", "sec", "seconds"]), st.sampled_from(["to", "and"]))
def test_any_range_and_any_seconds_are_times(start, end, unit, word):
    assert names_time(thought(f"from {start:.2f} {word} {end:.2f}")) and names_time(thought(f"at {start:.2f} {unit}"))
    assert not names_time(thought(f"at {start:.2f}, {end:.2f}"))


def test_each_think_block_is_read_and_nothing_between_them():
    assert names_time("<think>a dog</think> 1 to 2 <think>at 5 s</think>")
    assert not names_time("<think>a dog</think> <answer>1 to 2</answer> <think>runs</think>")


@pytest.mark.parametrize(
    "text",
    ["1" * 50_000, "1 " * 50_000, "1" + " " * 50_000 + "x", "1.1" * 50_000, "1 s " * 50_000, "<timestep> " * 20_000,
     "<timestep>" + " " * 50_000, "</think><think>" * 20_000],
    ids=["digits", "numbers", "blanks", "dots", "units", "tags", "open tag", "thoughts"],
)  # fmt: skip
def test_long_texts_take_no_long_time(text):
    began = time.perf_counter()
    names_time(thought(text)), names_time(f"<think>{text}")
    assert time.perf_counter() - began < 2


# ---------------------------------------------------------------- anchors


def values(rows, contract=TAR):
    """Metric -> the bare values."""
    return {name: [value for _, value in found] for name, found in anchored(rows, contract).items()}


def test_rates_count_every_query():
    rows = [
        row(0, completion=tar((1, 20), (1, 12))),
        row(1, completion=tar((1, 12))),
        row(2, completion=thought("a dog runs")),
        absent(row(3)),
        row(4, completion=tar((1, 20), (1, 12)), missing="broken"),
    ]
    assert columns(rows, TAR) == {"timestamp_rate": [1, 1, 0, 0, 0], "anchored_rate": [1, 0, 0, 0, 0]}
    assert columns(rows, AnswerContract()) == {"timestamp_rate": [1, 1, 0, 0, 0]}
    got = metrics.score(rows, FREE)
    assert (got["timestamp_rate"], got["anchored_rate"], got["mean_anchors"]) == (2 / 5, 1 / 5, 1)
    assert got["available_only"]["timestamp_rate"] == 2 / 3
    assert {*SHARES, "mean_anchors"} <= got["intervals"].keys()


def test_anchor_metrics_are_means_over_what_they_are_about():
    rows = [
        row(0, completion=tar((0, 20), (0, 12), (0, 16))),  # truth 0 to 10: nearer, then farther
        row(1, completion=tar((0, 8), answer=(0, 9))),
        row(2, completion=tar((0, 8), answer=(0.01, 8))),
        row(3, completion=tar((0, 8), (2, 10))),  # equally near: no refinement
        row(4, completion=tar((0, 9), (22, 28)), segments=[(0, 10), (22, 28)]),
        row(5, completion=thought("nothing")),
        row(6, completion=""),
        absent(row(7)),
    ]
    assert values(rows) == {
        "mean_anchors": [3, 1, 1, 2, 2, 0, 0],
        "answer_is_last_anchor": [1, 0, 1, 1, 1],
        "refinement_rate": [1, 0, 0, 1],
    }
    got = metrics.score(rows, TAR)
    assert (got["mean_anchors"], got["answer_is_last_anchor"], got["refinement_rate"]) == (9 / 7, 4 / 5, 2 / 4)
    assert all(low <= got[name] <= high for name in SHARES for low, high in [got["intervals"][name]])


def test_without_anchors_there_is_no_share_of_them():
    got = metrics.score([row(0), row(1, completion=tar((1, 2)))], TAR)
    assert got["refinement_rate"] is None and "refinement_rate" not in got["intervals"]
    assert got["answer_is_last_anchor"] == 1.0
    got = metrics.score([absent(row(0)), row(1, completion="")], TAR)
    assert got["mean_anchors"] == got["anchored_rate"] == 0 and got["answer_is_last_anchor"] is None
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("contract", [AnswerContract(), AnswerContract(format="fmt_taro"), None])
def test_anchor_metrics_only_where_anchors_are_asked_for(contract):
    got = metrics.score([row(0, completion=tar((1, 3), (1, 2)))], contract)
    assert got["timestamp_rate"] == 1.0 and not {"anchored_rate", "mean_anchors", "refinement_rate"} & got.keys()


def test_floors_reason_nothing():
    got = metrics.score([row(0, completion=None, format=False)], TAR)
    assert not {*SHARES, "mean_anchors"} & {*got, *got["intervals"]}


@pytest.mark.parametrize("case", [c for c in vectors("tar")["cases"] if c["anchors"]], ids=lambda case: case["id"])
def test_refinement_is_what_tar3_pays(case):
    found = values([row(completion=tar(*case["anchors"], answer=case["answer"]), segments=[case["g"]])])
    assert sum(1 if nearer else -1 for nearer in found["refinement_rate"]) == case["tar3"]
    assert found["mean_anchors"] == [len(case["anchors"])]


pairs_ = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: tuple(number / 2 for number in pair))
texts_ = st.builds(
    lambda found, answer: tar(*found, answer=answer), st.lists(pairs_, min_size=1, max_size=5), st.none() | pairs_
)


@given(
    st.lists(
        st.builds(row, st.integers(0, 9), completion=texts_ | st.just(""), missing=st.sampled_from([None, "lost"])),
        min_size=1,
    )
)
def test_shares_lie_in_the_unit_interval(rows):
    got = metrics.score(rows, TAR)
    assert all(0 <= got[name] <= 1 for name in SHARES if got[name] is not None)
    assert got["anchored_rate"] <= got["timestamp_rate"], "an anchor is a time"
    assert got["mean_anchors"] is None or 0 <= got["mean_anchors"] <= 5


@given(texts_)
def test_a_valid_format_ends_on_its_last_anchor(text):
    assert values([row(completion=text)])["answer_is_last_anchor"] == [1.0] or not fmt_tar(text)


# ---------------------------------------------------------------- end to end


def test_evaluations_hold_the_reasoning_metrics(tmp_path, monkeypatch):
    """The truth is from 2.1 to 5.4 s; one of six videos is missing."""
    monkeypatch.setattr(SharedPolicy, "decode", lambda self, ids: tar((1.0, 8.0), (2.0, 6.0)))
    store = make_store(tmp_path, without_frames=1)
    spec = EvaluationSpec(
        version=1, benchmark="toy", model=COMMON["init"], data=DATA, settings=EvaluateSettings(max_completion_tokens=3),
        prompt=PROMPT.model_copy(update={"answer": TAR}), versions={},
    )  # fmt: skip
    predict.predict(spec, store, Runtime(), "cpu")
    got = metrics.evaluate(spec, store)
    share = (VIDEOS - 1) / VIDEOS
    assert got["format_rate"] == got["timestamp_rate"] == got["anchored_rate"] == share
    assert (got["mean_anchors"], got["refinement_rate"], got["answer_is_last_anchor"]) == (2, 1, 1)
    assert json.loads((store.evaluation(spec) / "metrics.json").read_text()) == got

    floor = spec.model_copy(update={"model": Floor(floor="whole_video")})
    predict.predict(floor, store, Runtime())
    assert not {*SHARES, "mean_anchors"} & metrics.evaluate(floor, store).keys()
