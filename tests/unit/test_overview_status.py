"""`tvg status`: how far everything is, told from files alone."""

import json
import os
import platform
import re
import subprocess
import sys
import time

import pytest

from tests.results_folder import World
from tests.unit.test_overview_forecast import base, chain, choose, grpo, make  # noqa: F401 - fixtures
from tvg import cli
from tvg.overview import states
from tvg.overview.cost.counts import Counts
from tvg.overview.forecast import forecast
from tvg.overview.status import as_json, as_text, status
from tvg.sample import Sample, write_lines, write_samples
from tvg.segment import Segment
from tvg.store import identify


@pytest.fixture
def plan(make):  # noqa: F811
    return make(experiments=["time_r1"])


def stage_of(plan, spec):
    return {one.id: one for one in status(plan).stages}[identify(spec)]


def evaluation_of(plan, spec):
    return {one.id: one for one in status(plan).evaluations}[identify(spec)]


def rewrite(folder, **facts):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def evaluated(plan):
    (spec,) = plan.runs["time_r1", "main", 0].evaluations.values()
    return spec


# ---------------------------------------------------------------- trainings


def test_nothing_has_begun(plan):
    found = status(plan)
    assert {one.state for one in (*found.stages, *found.evaluations)} == {"waiting"}
    main = stage_of(plan, grpo(plan, "time_r1"))
    assert main.steps == 60 and main.step == 0 and main.left is None
    assert main.remark == (
        f"waits for {identify(base(plan))}, the samples mini.train and the frames of mini (0 shards there)"
    )


def test_a_stage_whose_inputs_are_there_can_start(plan):
    for path in map(plan.folder.parent.joinpath, plan.inputs(identify(base(plan)))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert stage_of(plan, base(plan)).remark == "can start"


def test_a_running_training(plan):
    folder = World(plan.store.root).train(grpo(plan, "time_r1"), steps=31, code=None)
    rewrite(folder, slurm_job="4711", host="node17", pid=1)
    found = stage_of(plan, grpo(plan, "time_r1"))
    assert (found.state, found.step, found.steps, found.slurm_job) == ("running", 31, 60, "4711")
    assert found.step_seconds == pytest.approx(3.0) and found.left == pytest.approx(29 * 3.0)
    assert found.reward == pytest.approx(1.746, abs=1e-3) and found.remark == "SLURM job 4711 on node17"
    assert "running" in as_text(status(plan)) and "31/60" in as_text(status(plan))


def test_a_pace_as_logged_wins_over_times_between_rows(plan):
    folder = World(plan.store.root).train(grpo(plan, "time_r1"), steps=5, code=None)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"train/step_seconds": 1.5}) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 6, "ti']))  # cut by a kill
    found = stage_of(plan, grpo(plan, "time_r1"))
    assert found.step_seconds == 1.5 and found.step == 5


def test_what_a_training_is_warned_of_is_shown_beside_its_remark(plan):
    folder = World(plan.store.root).train(grpo(plan, "time_r1"), steps=31, code=None)
    rewrite(folder, host="node17", pid=1)
    write_lines(folder / "warnings.jsonl", [json.dumps({"step": 12, "name": "format_collapse", "text": "it fell"})])
    found = stage_of(plan, grpo(plan, "time_r1"))
    assert found.warnings == ("format_collapse at step 12: it fell",) and found.remark == "on node17"
    text = " ".join(as_text(status(plan)).split())
    assert f"{found.id}: on node17" in text and f"{found.id}: format_collapse at step 12: it fell" in text


def test_a_silent_training_is_remarked_on(plan):
    folder = World(plan.store.root).train(grpo(plan, "time_r1"), steps=5, code=None)
    past = time.time() - 14 * 60
    for path in folder.iterdir():
        os.utime(path, (past, past))
    assert "no sign for 14 min" in stage_of(plan, grpo(plan, "time_r1")).remark
    log = plan.store.root / "logs" / "train" / f"{identify(grpo(plan, 'time_r1'))}.log"
    write_lines(log, ["12:00:00 grpo: loading"])
    assert "no sign" not in stage_of(plan, grpo(plan, "time_r1")).remark, "its log is a sign of life too"


def test_a_process_that_is_gone_has_stopped(plan):
    folder = World(plan.store.root).train(grpo(plan, "time_r1"), steps=7, code=None)
    (folder / "checkpoints" / "checkpoint-6").mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rewrite(folder, host=platform.node(), pid=ended.pid)
    found = stage_of(plan, grpo(plan, "time_r1"))
    assert found.state == "stopped" and found.step == 6
    assert f"its process {ended.pid} is gone" in found.remark
    assert "it had reached step 7; the next start goes on after step 6" in found.remark
    rewrite(folder, host=platform.node(), pid=os.getpid())
    assert stage_of(plan, grpo(plan, "time_r1")).state == "running"
    rewrite(folder, host="another-machine", pid=ended.pid)
    assert stage_of(plan, grpo(plan, "time_r1")).state == "running", "nothing is known of another machine's processes"


@pytest.mark.parametrize("code", [130, 143])
def test_a_training_that_was_asked_to_stop(plan, code):
    folder = World(plan.store.root).train(grpo(plan, "time_r1"), steps=30, code=code)
    (folder / "checkpoints" / "checkpoint-30").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-9").mkdir()
    found = stage_of(plan, grpo(plan, "time_r1"))
    assert found.state == "stopped" and found.step == 30
    assert found.remark == "asked to stop; the next start goes on after step 30"


def test_a_failed_training_says_why_and_where_to_look(plan):
    World(plan.store.root).train(grpo(plan, "time_r1"), steps=12, code=1)
    log = plan.store.root / "logs" / "train" / f"{identify(grpo(plan, 'time_r1'))}.log"
    error = "12:00:01 grpo-1: step 13: the training broke down\n  got:      nan\n  expected: x\n  hint:     lower it"
    write_lines(log, ["12:00:00 grpo-1: resuming", error])
    found = stage_of(plan, grpo(plan, "time_r1"))
    assert found.state == "failed" and found.steps == 60
    assert found.remark == f"exit code 1, step 13: the training broke down; see {log}"


def test_a_training_that_failed_before_its_first_word(plan):
    log = plan.store.root / "logs" / "train" / f"{identify(base(plan))}.log"
    write_lines(log, ["12:00:01 sft-1: unexpected error", "Traceback (most recent call last):", "MemoryError"])
    found = stage_of(plan, base(plan))
    assert found.state == "failed" and found.remark == f"MemoryError; see {log}"
    with log.open("a") as out:
        out.write("12:30:00 sft-1: step 1/300\n")
    assert stage_of(plan, base(plan)).state == "waiting", "an error that something follows is of an older attempt"


def test_a_done_training_has_no_time_left(plan):
    World(plan.store.root).train(base(plan), steps=300)
    found = stage_of(plan, base(plan))
    assert (found.state, found.step, found.left, found.remark) == ("done", 300, None, None)


def test_loss_stands_where_there_is_no_reward(plan):
    folder = World(plan.store.root).train(base(plan), steps=4, code=None)
    rows = [{"step": 1, "time": 0.0, "train/loss": 2.5}, {"step": 2, "time": 1.0, "train/loss": 1.25}]
    write_lines(folder / "metrics.jsonl", map(json.dumps, rows))
    assert stage_of(plan, base(plan)).loss == 1.25
    assert "loss 1.250" in as_text(status(plan))


def test_only_the_end_of_a_long_history_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, (json.dumps({"step": k, "filling": "x" * 100}) for k in range(1, 5001)))
    rows = states.tail(path)
    assert rows[-1]["step"] == 5000 and 100 < len(rows) < 1000
    assert [row["step"] for row in rows] == list(range(rows[0]["step"], 5001))


# ---------------------------------------------------------------- evaluations


def test_evaluations_count_their_answers(plan):
    spec = evaluated(plan)
    samples = [Sample(str(k), "a.mp4", 20.0, "sits", (Segment(1, 2),), verbs=("sit",) if k else ()) for k in range(5)]
    write_samples(plan.store.samples(spec.data.samples), samples)
    folder = plan.store.evaluation(spec)
    write_lines(folder / "predictions.partial.jsonl", ["{}"] * 6)
    found = evaluation_of(plan, spec)
    assert (found.state, found.predictions, found.questions) == ("begun", 6, 5 + 3 * 4)
    assert re.fullmatch(r"last sign \d s ago", found.remark)
    (folder / "predictions.partial.jsonl").rename(folder / "predictions.jsonl")
    assert evaluation_of(plan, spec).state == "predicted"
    write_lines(folder / "metrics.json", ["{}"])
    found = evaluation_of(plan, spec)
    assert found.state == "done" and found.remark is None


def test_a_failed_evaluation(plan):
    spec = evaluated(plan)
    log = plan.store.root / "logs" / "evaluate" / f"{identify(spec)}.log"
    write_lines(log, ["12:00:01 charades_test-1: the model: cannot load", "  got:      x", "  hint:     y"])
    found = evaluation_of(plan, spec)
    assert found.state == "failed" and found.remark == f"the model: cannot load; see {log}"


# ---------------------------------------------------------------- choices of data


def choice_of(plan, spec):
    return {one.id: one for one in status(plan).choices}[identify(spec)]


def test_a_choice_waits_begins_and_is_done(chain):  # noqa: F811
    plan, stages = chain()
    traces, hard = stages["traces"], stages["hard"]
    asked = 8 * Counts(plan.store).samples(hard.data).value
    assert (choice_of(plan, hard).state, choice_of(plan, hard).answers, choice_of(plan, hard).asked) == (
        "waiting", 0, asked)  # fmt: skip
    assert choice_of(plan, hard).remark.startswith(f"waits for {identify(stages['sft'])}, the samples mini.train")
    assert choice_of(plan, traces).remark == f"waits for {identify(stages['explore'])} and the samples mini.train"
    assert (
        f"waits for {identify(hard.model.stage.init.stage)}, {identify(traces)}" in stage_of(plan, stages["sft"]).remark
    )
    write_lines(plan.store.stage(hard) / "answers.jsonl", ["{}"] * 5)
    found = choice_of(plan, hard)
    assert (found.state, found.answers, found.remark) == ("begun", 40, "last sign 0 s ago")
    choose(plan, hard, kept=30, read=400, answers=400)
    choose(plan, traces, kept=12, read=1920)
    found = choice_of(plan, hard)
    assert (found.state, found.answers, found.asked, found.kept, found.read) == ("done", 3200, 3200, 30, 400)
    text = " ".join(as_text(status(plan)).split())
    assert f"{identify(traces)} done 12/1,920" in text and f"{identify(hard)} done 3,200/3,200 30/400" in text
    assert "5 choices of data (2 done, 3 waiting)" in text
    assert len(json.loads(json.dumps(as_json(status(plan))))["choices"]) == 5


def test_a_choice_that_keeps_nothing_has_failed(chain):  # noqa: F811
    plan, stages = chain()
    log = plan.store.root / "logs" / "select" / f"{identify(stages['traces'])}.log"
    error = (
        "12:00:01 collect-1: stages/collect-1: the collect stage keeps nothing\n  got:      x\n  hint:     loosen it"
    )
    write_lines(log, ["12:00:00 collect-1: reading", error])
    found = choice_of(plan, stages["traces"])
    assert found.state == "failed" and found.remark == f"stages/collect-1: the collect stage keeps nothing; see {log}"
    assert {one.id: one.state for one in forecast(plan).choices}[identify(stages["traces"])] == "failed"


# ---------------------------------------------------------------- on a terminal


def test_it_fits_a_terminal_and_json_holds_the_same(make, capsys):  # noqa: F811
    plan = make("3b")
    World(plan.store.root).train(grpo(plan), steps=1234, code=None)
    text = as_text(status(plan))
    assert max(map(len, text.splitlines())) <= 100 and "1,234/6,204" in text
    content = json.loads(json.dumps(as_json(status(plan))))
    assert content["scale"] == "3b" and len(content["stages"]) == len(status(plan).stages)


def test_the_verb(plan, capsys):
    World(plan.store.root).train(base(plan), steps=300)
    assert cli.main(["status", "time_r1-finetune", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in content["stages"]] == ["done", "waiting"] and len(content["evaluations"]) == 1
    assert cli.main(["status"]) == 0
    assert "evaluations" in capsys.readouterr().out
