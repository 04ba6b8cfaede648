"""`tvg score`: files in, one object out, and what cannot be scored."""

import json

import pytest

from tests.commands import tvg
from tvg import cli
from tvg.evaluate.protocols import PROTOCOLS


@pytest.fixture
def score(tmp_path):
    """score(predictions, truths, *options) -> exit status and the objects on stdout; rows, or lines as they are."""

    def run(predictions, truths, *options):
        for name, rows in (("p", predictions), ("t", truths)):
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (tmp_path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        return tvg("score", tmp_path / "p.jsonl", "--truth", tmp_path / "t.jsonl", *options)

    return run


def truth(name, *segments):
    segments = segments or ([0, 10],)
    return {"id": name, "video": "v.mp4", "duration": 30, "query": "q", "segments": [list(s) for s in segments]}


def test_score_is_strict_by_default(score):
    predictions = [
        {"id": "a", "completion": "<think>1 to 2</think> <answer>0 - 10</answer>"},
        {"id": "b", "predicted": [0, 5]},
        {"id": "c", "predicted": None},
        {"id": "d", "predicted": [10, 0]},
    ]
    truths = [truth("a", [20, 30], [0, 10]), *(truth(name) for name in "bcde")]
    code, [got] = score(predictions, truths)
    assert code == 0
    assert got == {
        "protocol": "strict", "threshold": ">", "n": 5, "n_scored": 5, "missing": 1, "parse_failures": 1,
        "r1_at_0.3": 0.4, "r1_at_0.5": 0.2, "r1_at_0.7": 0.2, "r1_ge_0.3": 0.4, "r1_ge_0.5": 0.4, "r1_ge_0.7": 0.2,
        "miou": 0.3, "timestamp_rate": 0.2, "broken_predictions": 0, "broken_truths": 0,
    }  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_score_by_every_protocol(score, protocol):
    predictions = [{"id": "a", "completion": "<answer>0 to 5</answer>"}, {"id": "b", "predicted": [10, 0]}]
    code, [got] = score(predictions, [truth("a"), truth("b"), truth("c")], "--protocol", protocol)
    assert code == 0 and got["protocol"] == protocol and got["n"] == 3
    assert got["n_scored"] == (3 if protocol == "strict" else 2)
    assert got["r1_ge_0.5"] * got["n_scored"] == pytest.approx(2 if protocol == "taro" else 1)
    assert got["r1_at_0.5"] * got["n_scored"] == pytest.approx(1 if protocol == "taro" else 0)


def test_the_text_goes_before_a_segment_that_another_parser_found(score):
    row = {"id": "a", "completion": "5s to 9s", "predicted": None}
    assert score([row], [truth("a", [5, 9])], "--protocol", "taro")[1][0]["miou"] == 1.0
    assert score([row | {"completion": None, "predicted": [5, 9]}], [truth("a", [5, 9])])[1][0]["miou"] == 1.0


def test_score_equals_the_released_evaluators(score, real_data):
    """Once through the command; every set and protocol in test_protocols.py."""
    rows = [json.loads(line) for line in real_data("oracles/inputs/invalid.jsonl").read_text().splitlines()]
    predictions = [{"id": row["qid"], "completion": row["output_text"]} for row in rows]
    truths = [truth(row["qid"], *row["gt"]) for row in rows]
    code, [got] = score(predictions, truths, "--protocol", "time_r1")
    assert code == 0 and got["miou"] is None and "NaN" in got["note"] and got["r1_at_0.3"] == pytest.approx(1 / 3)
    _, [got] = score(predictions, truths, "--protocol", "timezero")
    assert (got["n"], got["n_scored"]) == (30, 29) and got["miou"] == pytest.approx(0.32572189514998595)


def test_broken_lines_are_named_and_the_rest_is_scored(score, caplog):
    predictions = [
        {"id": "a", "predicted": [0, 10]},
        "{bad",
        {"id": "b", "predicted": [0, "10"]},  # its query is left without a prediction
        {"id": "c", "predicted": [0, 10]},  # its truth is broken
        {"id": "d", "predicted": [0, 10]},  # so is this one's, and nobody can tell
        {"id": "e"},
    ]
    truths = [truth("a"), truth("b"), truth("c") | {"segments": []}, "{bad", truth("e")]
    code, [got] = score(predictions, truths)
    assert code == 1
    counts = [got[key] for key in ("n", "n_scored", "missing", "broken_predictions", "broken_truths")]
    assert counts == [3, 3, 2, 3, 2] and got["miou"] == pytest.approx(1 / 3)
    for part in ("p.jsonl:2: not JSON", "p.jsonl:3: predicted.1", "p.jsonl:6: neither", "t.jsonl:3: segments",
                 "t.jsonl:4: not JSON", "2 predictions are not scored"):  # fmt: skip
        assert part in caplog.text


A = {"id": "a", "predicted": [0, 1]}


@pytest.mark.parametrize(("predictions", "truths", "what"), [
    ([A, A], [truth("a")], "two rows of one id: 'a'"),
    ([A], [truth("a"), truth("a")], "two rows of one id: 'a'"),
    ([A, {"id": "x", "predicted": None}], [truth("a")], "predictions to queries that"),
    ([A, {"id": "x", "predicted": None}, {"id": "y", "predicted": None}], [truth("a"), "{bad"], "2 ids, such as 'x'"),
    ([A], [], "no query to score"),
    ([{"qid": "a", "predicted": [0, 1]}], ["{bad"], "no query to score"),
])  # fmt: skip
def test_what_cannot_be_scored_is_an_error(score, predictions, truths, what, caplog):
    code, out = score(predictions, truths)
    assert code == 1 and out == [] and what in caplog.text and "hint:" in caplog.text


def test_an_absent_file_is_an_error(tmp_path, caplog):
    assert tvg("score", tmp_path / "p.jsonl", "--truth", tmp_path / "t.jsonl") == (1, [])
    assert "t.jsonl: cannot read this file" in caplog.text


def test_help_says_what_counts(capsys):
    with pytest.raises(SystemExit):
        cli.main(["score", "--help"])
    text = capsys.readouterr().out
    for part in ("n_scored", "parse_failures", "own is NaN", *PROTOCOLS):
        assert part in text
