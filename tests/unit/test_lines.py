"""`tvg parse`, `tvg verbs`, and what every command does with a broken line."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands import answers, completion, rollout, tvg, vectors, with_experiment
from tests.conftest import REPO
from tvg.errors import TvgError
from tvg.inversion.verbs import extractor
from tvg.parse import FORMATS, PARSERS


@pytest.mark.parametrize("name", [name for name in vectors("parsers")["fields"] if name not in FORMATS])
def test_parse_on_the_vectors(name):
    cases = vectors("parsers")["cases"]
    out = answers("parse", "--format", name, rows=[{"text": case["text"], "id": case["id"]} for case in cases])
    assert [(row["id"], row["segment"]) for row in out] == [(case["id"], case[name]) for case in cases]


def test_parse_knows_every_parser():
    for name in PARSERS:
        [row] = answers("parse", "--format", name, rows=[{"text": "nothing"}])
        assert row == {"text": "nothing", "segment": None}


@pytest.mark.parametrize("name", ["time_json", "time_first2", "whole_last"])
def test_a_number_that_json_cannot_hold_is_no_segment(name):
    texts = ["<time>[NaN, Infinity]</time>", f"<time>[1, {'9' * 400}]</time>", f"1 to {'9' * 400}"]
    out = answers("parse", "--format", name, rows=[{"text": text} for text in texts])
    assert [row["segment"] for row in out] == [None, None, None]


def test_verbs_keep_catenatives_and_name_the_back_end():
    out = answers("verbs", rows=[{"text": "person begins to eat food.", "id": 7}, {"text": "a red chair"}])
    assert out[0] == {"text": "person begins to eat food.", "id": 7, "verbs": ["begin", "eat"], "backend": "standin"}
    assert out[1]["verbs"] == []


def test_verbs_agree_with_the_labelled_queries(real_data):
    rows = [json.loads(line) for line in real_data("verbs/tvg_queries_gold_dev.jsonl").read_text().splitlines()]
    out = answers("verbs", rows=[{"text": row["text"], "gold": row["verbs"], "free": row["optional"]} for row in rows])
    exact = [set(row["gold"]) - set(row["free"]) <= set(row["verbs"]) <= {*row["gold"], *row["free"]} for row in out]
    assert sum(exact) >= 0.93 * len(exact)


def test_verbs_reads_the_scale_and_no_experiment(tmp_path):
    folder = with_experiment(tmp_path, "broken", "paper: [")
    (folder / "scales" / "own.yaml").write_text(
        (folder / "scales" / "mini.yaml").read_text().replace("standin", "spacy_sm")
    )
    assert answers("verbs", rows=[{"text": "she sits"}], config=folder)[0]["verbs"] == ["sit"]
    try:
        extractor("spacy_sm")
        installed = 0
    except TvgError:
        installed = 1
    code, _ = tvg("verbs", "--config", "scale=own", rows=[{"text": "she sits"}], config=folder)
    assert code == installed
    [row] = answers(
        "verbs", "--backend", "standin", "--config", "scale=own", rows=[{"text": "she sits"}], config=folder
    )
    assert row["backend"] == "standin"


# ---------------------------------------------------------------- broken rows

BROKEN = {
    "{bad": "not JSON",
    "": "an empty line",
    "[1, 2]": "expected an object",
    '"text"': "expected an object",
    '{"completion": NaN}': "NaN is no number",
    '{"completion": "x", "segment": [1, 1e999], "duration": 3}': "1e999 is no number",
    "[" * 100_000: "nested too deep",
}
WRONG = {
    "completion": [None, 3, ["x"]],
    "segment": [None, [1], [1, 2, 3], ["1", 2], [1, None], [True, 2], "1 to 2", {"start": 1}, [1, 10**400]],
    "segments": [[], [1, 2], [[1]]],
    "duration": [None, "30", True, [30]],
    "task": ["grond", None, 3, ["ground"]],
    "query": [3],
    "verbs": ["open", [1]],
    "group": [[1], {"a": 1}, True],
}


@pytest.mark.parametrize(("line", "error"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_line_is_named_and_the_rest_is_done(line, error, caplog):
    good = json.dumps(rollout())
    code, out = tvg("reward", "time_r1", text=f"{good}\n{line}\n{good}\n")
    assert code == 1 and [row.get("reward") for row in out] == [2.0, None, 2.0]
    assert set(out[1]) == {"line", "error"} and out[1]["line"] == 2 and error in out[1]["error"]
    assert "line 2: " in caplog.text


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=str)
def test_a_row_with_a_wrong_value_keeps_its_keys(key, value):
    bad = {k: v for k, v in rollout().items() if (k, key) != ("segment", "segments")} | {key: value, "id": "é"}
    code, out = tvg("reward", "time_r1", rows=[bad, rollout()])
    assert code == 1 and out[1]["reward"] == 2.0
    assert out[0] == bad | {"line": 1, "error": out[0]["error"]} and key in out[0]["error"]


@pytest.mark.parametrize("key", ["completion", "segment", "duration"])
def test_a_missing_key_is_named(key):
    code, [row] = tvg("reward", "time_r1", rows=[{k: v for k, v in rollout().items() if k != key}])
    assert code == 1 and row["error"] == f"key '{key}' is missing"


def test_an_inversion_task_needs_a_query_or_its_verbs():
    row = {"completion": completion("open"), "task": "recognise_action"}
    assert answers("reward", "invert4tvg", rows=[row | {"verbs": ["open"]}])[0]["reward"] == 2.0
    code, [out] = tvg("reward", "invert4tvg", rows=[row])
    assert code == 1 and "'query' is missing" in out["error"]


def test_a_broken_row_leaves_its_group(caplog):
    rows = [
        rollout("3 to 9", group="g"),
        rollout("3 to 6", group="g"),
        rollout(group="g", duration="x"),
        rollout(group="h"),
    ]
    code, out = tvg("reward", "time_r1-finetune", rows=rows)
    assert code == 1 and "advantage" not in out[2]
    assert [row["advantage"] for row in out if "advantage" in row] == pytest.approx([0.7069, -0.7069, 0], abs=1e-4)
    assert "line 3 is broken: the advantages of group 'g' are without it" in caplog.text


@pytest.mark.parametrize("argv", [("parse", "--format", "last2"), ("verbs",)])
def test_parse_and_verbs_survive_broken_lines_too(argv):
    code, out = tvg(
        *argv, text=b'{"text": "1 to 2"}\n{"txt": 1}\n{"text": 5}\n\xff\n{"text": "she sits", "text2": "\\ud800"}'
    )
    assert code == 1 and ["error" in row for row in out] == [False, True, True, True, False]
    assert "'text' is missing" in out[1]["error"] and out[1]["txt"] == 1
    assert "must be a valid string, got 5" in out[2]["error"] and "utf-8" in out[3]["error"]
    assert out[4]["text2"] == "\ud800"


def test_a_byte_order_mark_is_no_fault():
    code, [row] = tvg("parse", "--format", "last2", text=b'\xef\xbb\xbf{"text": "1 to 2"}\r\n')
    assert code == 0 and row["segment"] == [1.0, 2.0]


def test_through_a_real_pipe():
    text = '{"text": "<answer>1 to 2</answer>", "é": "ü"}\n{bad\n{"text": "unsure"}\n'
    done = subprocess.run(
        [sys.executable, "-m", "tvg.cli", "parse", "--format", "strict_answer"],
        input=text.encode(), capture_output=True, cwd=REPO,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert done.returncode == 1 and b"line 2: not JSON" in done.stderr
    assert [line.get("segment") for line in lines] == [[1.0, 2.0], None, None] and lines[0]["é"] == "ü"
    assert "ü" in done.stdout.decode()


good_lines = st.fixed_dictionaries(
    {"completion": st.sampled_from([completion("3 to 9"), completion("4 to 6"), "x"]), "segment": st.just([3, 9]),
     "duration": st.just(30)},
    optional={
        "group": st.integers(0, 2), "id": st.text("aé\u2028\ud800"), "task": st.sampled_from(["ground", "caption"]),
    },
).map(json.dumps)  # fmt: skip
any_lines = st.lists(good_lines | st.sampled_from([*BROKEN][:6]) | st.text('{}[]":,.\\ ab1-é🏃\u2028\x85'), max_size=8)


@settings(max_examples=25)  # each reads the configuration anew
@given(any_lines)
def test_one_line_out_for_one_line_in_and_in_order(lines):
    code, out = tvg("reward", "time_r1", text="".join(line + "\n" for line in lines))
    assert len(out) == len(lines)
    broken = [row for row in out if "error" in row]
    assert code == (1 if broken else 0)
    for number, (line, row) in enumerate(zip(lines, out, strict=True), 1):
        if "error" in row:
            assert row["line"] == number
        else:
            assert json.loads(line).items() <= row.items()
    groups = {}
    for row in out:
        if "advantage" in row:
            groups.setdefault(row["group"], []).append(row["advantage"])
    assert all(abs(sum(group)) < 1e-9 for group in groups.values())
