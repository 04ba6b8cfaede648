"""MLflow against the results folder: filled, filled once, live, after every kind of interruption."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.results_folder import World
from tvg import track
from tvg.errors import TvgError
from tvg.spec import TrainedModel
from tvg.store import identify
from tvg.track.read import Reader


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "results" / "mini", steps=6)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty database: making one takes seconds."""
    from tvg.track.write import _create

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    _create(file, file.parent / "mlartifacts")
    return file


@pytest.fixture
def ready(world, empty):
    """The world, with an empty database in it."""
    world.root.mkdir(parents=True)
    shutil.copy(empty, database(world))
    return world


def database(world: World) -> Path:
    return world.root.parent / "mlflow.db"


def ask(world: World, question: str, *values) -> list[tuple]:
    with sqlite3.connect(database(world)) as connection:
        return connection.execute(question, values).fetchall()


def active(world: World) -> dict[str, tuple[str, str]]:
    """Name -> (run id, status) of the runs that are not deleted."""
    rows = ask(world, "select name, run_uuid, status from runs where lifecycle_stage = 'active'")
    assert len({name for name, *_ in rows}) == len(rows), rows
    return {name: (ident, status) for name, ident, status in rows}


def tags(world: World, name: str) -> dict[str, str]:
    return dict(ask(world, "select key, value from tags where run_uuid = ?", active(world)[name][0]))


def latest(world: World, name: str) -> dict[str, float]:
    return dict(ask(world, "select key, value from latest_metrics where run_uuid = ?", active(world)[name][0]))


def points(world: World, name: str) -> Counter:
    """(key, step, value) of a run's training metrics, each with how often it is there."""
    question = "select key, step, value from metrics where run_uuid = ? and key like 'train/%'"
    return Counter(ask(world, question, active(world)[name][0]))


def written(path: Path) -> Counter:
    """The same of a metrics.jsonl."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return Counter((key, row["step"], value) for row in rows for key, value in row.items() if key.startswith("train/"))


def state(world: World) -> dict[str, str]:
    """A hash of every file that tracking writes."""
    files = [database(world), *(path for path in (world.root.parent / "mlartifacts").rglob("*") if path.is_file())]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def one_arm(world: World, steps: int | None = None, code: int | None = 0, score: bool = True):
    grpo = world.grpo()
    folder = world.train(grpo, steps, code)
    world.arm("time_r1", "main", {"grpo": grpo}, grpo, score=score)
    return grpo, folder


# ---------------------------------------------------------------- what should be there


def test_arms_have_short_names_with_the_varying_part_first(world):
    world.full()
    spec = world.grpo(seed=1)
    world.train(spec)
    world.arm("time_r1", "finetune", {"grpo": spec}, seed=1)
    runs = {run.name: run for run in Reader(world.root).runs()}
    assert {"invert4tvg", "cosine · invert4tvg", "finetune · seed 1 · time_r1", "zero_shot", "report"} <= runs.keys()
    children = [child.name for child in runs["cosine · invert4tvg"].children]
    assert children == ["grpo · cosine · invert4tvg", "charades_test · cosine · invert4tvg"]


def test_a_shared_stage_stands_under_each_arm_and_the_base_once_on_top(world):
    runs = Reader(world.full().root).runs()
    shared = [child.tags["id"] for run in runs for child in run.children if child.tags.get("stage") == "sft"]
    assert len(shared) == 2 and len(set(shared)) == 1
    assert [run.name for run in runs if run.tags["experiment" if "experiment" in run.tags else "kind"] == "base"] == [
        "base · sft"
    ]
    assert not any(identify(world.base) in child.key for run in runs for child in run.children)


@pytest.mark.parametrize(
    ("code", "score", "expected"),
    [
        (None, False, "running"),
        (1, False, "failed"),
        (143, False, "stopped"),
        (0, False, "running"),
        (0, True, "finished"),
    ],
)
def test_states(world, code, score, expected):
    one_arm(world, code=code, score=score)
    (arm,) = (run for run in Reader(world.root).runs() if run.tags["kind"] == "arm")
    assert arm.state == expected


def test_an_evaluation_stands_without_its_weights(world):
    _, folder = one_arm(world)
    shutil.rmtree(folder)
    (arm,) = (run for run in Reader(world.root).runs() if run.tags["kind"] == "arm")
    assert arm.state == "finished" and arm.metrics["test/miou"] > 0


def test_an_arm_appears_when_something_of_it_has_begun(world):
    world.arm("time_r1", "main", {"grpo": world.grpo()}, world.grpo(), score=False)
    assert Reader(world.root).runs() == []
    world.train(world.grpo(), 1, code=None)
    assert [run.name for run in Reader(world.root).runs()] == ["time_r1"]


def test_parameters_hold_the_defaults_and_no_prompt(world):
    one_arm(world)
    (arm,) = (run for run in Reader(world.root).runs() if run.tags["kind"] == "arm")
    stage, evaluation = arm.children
    assert stage.params["beta"] == "0.04" and stage.params["tasks.ground"] == "0.8"
    assert stage.params["init"] == identify(world.base) and stage.params["rewards.tiou.weight"] == "1.0"
    assert evaluation.params["model"] == identify(world.grpo()) and evaluation.params["max_completion_tokens"] == "1024"
    assert arm.params["grpo.learning_rate"] == "0.0002"
    assert not any("texts" in key or len(value) > 500 for key, value in {**stage.params, **evaluation.params}.items())


def test_several_benchmarks_are_never_mixed(tmp_path):
    world = World(tmp_path / "mini", benchmarks=("charades_test", "activitynet_test"))
    one_arm(world)
    (arm,) = (run for run in Reader(world.root).runs() if run.tags["kind"] == "arm")
    first, second = (run.metrics["test/r1_at_0.5"] for run in arm.children[1:])
    assert first != second and arm.metrics["test/r1_at_0.5"] == arm.metrics["charades_test/r1_at_0.5"] == first
    assert arm.metrics["activitynet_test/r1_at_0.5"] == second and arm.tags["benchmark"] == "charades_test"


def test_a_broken_file_is_named_and_the_rest_is_read(world):
    world.full()
    pointer = world.store.pointer("time_r1", "finetune", 0)
    pointer.write_text('{"experiment": "ti')
    reader = Reader(world.root)
    names = [run.name for run in reader.runs()]
    assert "time_r1" in names and "finetune · time_r1" not in names
    assert list(reader.problems) == [str(pointer)] and not reader.complete
    world.arm("time_r1", "finetune", {"grpo": world.grpo()})
    reader.runs()
    assert not reader.problems and reader.complete


def test_only_changed_files_are_read_again(world):
    reader = Reader(world.full().root)
    before = {run.name: run for run in reader.runs()}
    stage = world.store.stage(world.grpo(beta=0.01))
    with (stage / "metrics.jsonl").open("a") as out:
        out.write(world.row(world.grpo(beta=0.01), 7) + "\n")
    after = {run.name: run for run in reader.runs()}
    assert [name for name in after if after[name] != before[name]] == ["cosine · invert4tvg"]


def test_the_sample_of_predictions_is_a_table(world):
    one_arm(world)
    (arm,) = (run for run in Reader(world.root).runs() if run.tags["kind"] == "arm")
    lines = arm.children[1].files["predictions.md"].splitlines()
    assert lines[0].startswith("40 of 120") and len(lines) == 44
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines[2:])
    assert any("<think>a \\| b c</think>" in line for line in lines) and any("| – | – |" in line for line in lines)


# ---------------------------------------------------------------- what is there


def test_everything_is_logged_once(ready):
    ready.full()
    summary = track.sweep(ready.root)
    runs = active(ready)
    assert summary.runs == len(runs) and not summary.problems
    assert {status for _, status in runs.values()} == {"FINISHED"}
    for name in ("cosine · invert4tvg", "charades_test · cosine · invert4tvg"):
        assert {"test/r1_at_0.5", "test/miou", "charades_test/r1_at_0.5"} <= latest(ready, name).keys()
    assert latest(ready, "charades_test · cosine · invert4tvg")["test/intervals/r1_at_0.5/low"] > 0
    stage = tags(ready, "grpo · cosine · invert4tvg")
    assert stage["mlflow.parentRunId"] == runs["cosine · invert4tvg"][0]
    assert (stage["kind"], stage["stage"], stage["arm"], stage["git"]) == ("stage", "grpo", "cosine", "0123456789")
    assert tags(ready, "cosine · invert4tvg")["table"] == "invert4tvg_3"
    folder = ready.store.stage(ready.grpo(beta=0.01))
    assert points(ready, "grpo · cosine · invert4tvg") == written(folder / "metrics.jsonl")
    files = {str(path.relative_to(path.parents[1])) for path in (ready.root.parent / "mlartifacts").rglob("*.*")}
    assert {"artifacts/spec.json", "artifacts/predictions.md", "tables/invert4tvg_3.md", "report/all.html"} <= files
    assert not list(ready.root.parent.glob("mlruns")) and not Path("mlruns").exists()

    before = state(ready)
    assert track.sweep(ready.root).written.total == 0
    assert state(ready) == before


def test_new_rows_are_added_and_half_a_line_waits(ready):
    grpo, folder = one_arm(ready, steps=3, code=None, score=False)
    tracker = track.Tracker(ready.root)
    tracker.sweep()
    with (folder / "metrics.jsonl").open("a") as out:
        out.write(ready.row(grpo, 4) + "\n" + ready.row(grpo, 5)[:20])
    assert tracker.sweep().written.metrics == 5
    assert {step for _, step, _ in points(ready, "grpo · time_r1")} == {1, 2, 3, 4}
    ready.train(grpo, 5)
    track.sweep(ready.root)
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl")
    assert active(ready)["grpo · time_r1"][1] == "FINISHED"


@pytest.mark.parametrize("start", [21, 1], ids=["resumed from a checkpoint", "trained again"])
def test_a_file_that_was_cut_back_leaves_no_step_twice(ready, start):
    grpo, folder = one_arm(ready, steps=30, code=143, score=False)
    tracker = track.Tracker(ready.root)
    tracker.sweep()
    assert active(ready)["grpo · time_r1"][1] == "KILLED"
    rows = [ready.row(grpo, step) for step in range(1, start)]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in rows))
    for step in range(start, 41):
        with (folder / "metrics.jsonl").open("a") as out:
            out.write(ready.row(grpo, step, attempt=1) + "\n")
        if step % 10 == 0:
            tracker.sweep()
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl")


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 8, 13])
def test_an_interrupted_sweep_is_continued_without_duplicates(ready, calls, monkeypatch):
    """The request that fails is carried out first, which is the worse case."""
    from mlflow import MlflowClient

    _, folder = one_arm(ready)
    left = [calls]

    def dying(method):
        def call(*arguments, **keywords):
            done = method(*arguments, **keywords)
            left[0] -= 1
            if left[0] == 0:
                raise OSError("the machine went away")
            return done

        return call

    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "set_tag", "log_artifacts", "set_terminated", "set_experiment_tag"):
            patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
        with pytest.raises(TvgError, match="cannot write to MLflow"):
            track.sweep(ready.root)
    track.sweep(ready.root)
    assert len(active(ready)) == 3
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl")
    assert "test/r1_at_0.5" in latest(ready, "time_r1")
    assert track.sweep(ready.root).written.total == 0


def test_rows_that_were_logged_unnoticed_and_then_cut_back_do_not_stay(ready, monkeypatch):
    """Killed between the points and the note that they are there; meanwhile the training resumes from a checkpoint."""
    from mlflow import MlflowClient

    grpo, folder = one_arm(ready, steps=5, code=None, score=False)
    log_batch = MlflowClient.log_batch

    def half(client, run_id, metrics=(), params=(), tags=()):
        log_batch(client, run_id, metrics=metrics, params=params, tags=[] if metrics else tags)
        if metrics:
            raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", half)
        with pytest.raises(TvgError):
            track.sweep(ready.root)
    rows = [ready.row(grpo, step, attempt=step > 2) for step in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in rows))
    track.sweep(ready.root)
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl")


def test_an_edited_arm_starts_anew_and_its_old_number_is_marked(ready):
    old, new = ready.grpo(), ready.grpo(beta=0.5)
    ready.train(old)
    ready.arm("time_r1", "main", {"grpo": old}, old)
    tracker = track.Tracker(ready.root)
    tracker.sweep()
    first, number = active(ready)["time_r1"][0], latest(ready, "time_r1")["test/miou"]

    ready.train(new, 2, code=None)
    ready.arm("time_r1", "main", {"grpo": new}, new, score=False)
    tracker.sweep()
    states = dict(ask(ready, "select run_uuid, value from tags where key = 'state'"))
    assert states.pop(first) == "superseded" and Counter(states.values()) == {"superseded": 2, "running": 2}
    (second,) = (i for (i,) in ask(ready, "select run_uuid from runs where name = 'time_r1'") if i != first)
    assert not ask(ready, "select * from latest_metrics where run_uuid = ?", second)

    ready.arm("time_r1", "main", {"grpo": old}, old)
    tracker.sweep()
    states = dict(ask(ready, "select run_uuid, value from tags where key = 'state'"))
    assert (states[first], states[second]) == ("finished", "superseded")
    assert ask(ready, "select value from latest_metrics where run_uuid = ? and key = 'test/miou'", first) == [(number,)]
    assert track.sweep(ready.root).written.total == 0


def test_an_arm_that_gains_a_benchmark_stays_itself(ready):
    one_arm(ready)
    track.sweep(ready.root)
    before = active(ready)["time_r1"]
    ready.benchmarks = ("charades_test", "activitynet_test")
    ready.arm("time_r1", "main", {"grpo": ready.grpo()}, ready.grpo())
    track.sweep(ready.root)
    assert active(ready)["time_r1"] == before and "activitynet_test/miou" in latest(ready, "time_r1")


def test_a_resumed_training_runs_again(ready):
    grpo, _ = one_arm(ready, steps=3, code=1, score=False)
    tracker = track.Tracker(ready.root)
    statuses = []
    for code in (1, None, 0):
        ready.train(grpo, 5, code)
        tracker.sweep()
        statuses.append((active(ready)["grpo · time_r1"][1], active(ready)["time_r1"][1]))
    assert statuses == [("FAILED", "FAILED"), ("RUNNING", "RUNNING"), ("FINISHED", "RUNNING")]


def test_odd_metrics_are_kept_as_mlflow_can_and_broken_lines_are_named(ready):
    grpo, folder = one_arm(ready, steps=1, code=None, score=False)
    odd = {"step": 2, "time": 1.5, "train/R@1 (0.5)": float("nan"), "train/inf": float("inf"), "train/text": "x"}
    (folder / "metrics.jsonl").write_text(f"{ready.row(grpo, 1)}\nnot json\n{json.dumps(odd)}\n{{}}\n")
    summary = track.sweep(ready.root)
    assert summary.problems == {str(folder / "metrics.jsonl"): "lines 2, 4 are no metrics"}
    found = ask(ready, "select key, is_nan from metrics where step = 2")
    assert sorted(found) == [("train/R_1 _0.5_", 1), ("train/inf", 0)]
    assert track.sweep(ready.root).written.total == 0


def test_warnings_and_verbs_become_tags_of_the_stage_alone(ready):
    grpo, folder = one_arm(ready, steps=6, code=None, score=False)
    signs = {
        "warnings.jsonl": {"step": 4, "name": "format_collapse", "text": "fell"},
        "verbs.jsonl": {"step": 4, "rollouts": 8, "top": [["open", 0.75], ["sit", 0.125]]},
    }
    tracker = track.Tracker(ready.root)
    tracker.sweep()
    for name, row in signs.items():
        (folder / name).write_text(json.dumps(row) + "\n")
    tracker.sweep()
    found = tags(ready, "grpo · time_r1")
    assert found["warning.format_collapse"] == "step 4: fell" and found["verbs"] == "open 75 %, sit 12 %"
    assert "warning.format_collapse" not in tags(ready, "time_r1")
    assert tracker.sweep().written.total == 0 and track.sweep(ready.root).written.total == 0

    (folder / "metrics.jsonl").write_text(ready.row(grpo, 1) + "\n")  # resumed from before it
    for name in signs:
        (folder / name).write_text("")
    tracker.sweep()
    assert not {"warning.format_collapse", "verbs"} & tags(ready, "grpo · time_r1").keys()


def test_long_histories_go_in_batches(ready):
    _, folder = one_arm(ready, steps=700)
    track.sweep(ready.root)
    assert sum(points(ready, "grpo · time_r1").values()) == 3500
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl")


# ---------------------------------------------------------------- one writer, that stops nothing


def test_a_second_writer_waits(ready):
    one_arm(ready)
    with (ready.root.parent / "track.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=track.sweep, args=(ready.root,))
        second.start()
        second.join(1.5)
        assert second.is_alive() and not active(ready)
        fcntl.flock(lock, fcntl.LOCK_UN)
    second.join(30)
    assert active(ready)


def test_two_writers_in_turn_see_what_the_other_wrote(ready):
    grpo, folder = one_arm(ready, steps=2, code=None, score=False)
    one, two = track.Tracker(ready.root), track.Tracker(ready.root)
    for step in range(3, 8):
        (one if step % 2 else two).sweep()
        with (folder / "metrics.jsonl").open("a") as out:
            out.write(ready.row(grpo, step) + "\n")
    one.sweep()
    assert two.sweep().written.total == 0
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl") and len(active(ready)) == 2


def test_follow_goes_on_until_it_is_told_to_stop(ready):
    grpo, folder = one_arm(ready, steps=1, code=None, score=False)
    seen = []

    def watch():
        try:
            wait_for(lambda: "grpo · time_r1" in active(ready))
            with (folder / "metrics.jsonl").open("a") as out:
                out.write(ready.row(grpo, 2) + "\n")
            wait_for(lambda: points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl"))
            seen.append("live")
            ready.train(grpo)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    watcher = threading.Thread(target=watch)
    watcher.start()
    assert track.follow(ready.root, seconds=0.2).written.total > 0
    watcher.join()
    assert seen and signal.getsignal(signal.SIGTERM) is before
    assert active(ready)["grpo · time_r1"][1] == "FINISHED"
    assert points(ready, "grpo · time_r1") == written(folder / "metrics.jsonl")


def test_follow_ends_with_its_parent_and_survives_a_server_that_is_away(ready, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    one_arm(ready)
    parent = subprocess.Popen(["sleep", "1"])
    threading.Thread(target=parent.wait).start()  # a zombie would count as alive
    assert track.follow(ready.root, "http://127.0.0.1:9", parent=parent.pid, seconds=0.2) is None
    assert "MLflow is behind" in caplog.text and "next try in" in caplog.text


def test_one_sweep_says_what_to_do_when_the_server_is_away(ready, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    one_arm(ready)
    with pytest.raises(TvgError, match="nothing is lost"):
        track.sweep(ready.root, "http://127.0.0.1:9")


def test_a_database_deleted_meanwhile_is_filled_again(ready, empty, monkeypatch):
    one_arm(ready)
    tracker = track.Tracker(ready.root)
    tracker.sweep()
    before = {name: points(ready, name) for name in active(ready)}
    database(ready).unlink()
    monkeypatch.setattr("tvg.track.write._create", lambda file, _: shutil.copy(empty, file))  # seconds
    tracker.sweep()
    assert {name: points(ready, name) for name in active(ready)} == before


def test_nothing_to_log_touches_nothing(tmp_path):
    assert track.sweep(tmp_path / "results" / "mini").runs == 0
    assert not list(tmp_path.iterdir())


def test_a_trained_base_under_another_name_is_still_found(world):
    """An experiment may start from a stage of another one that is not configured here."""
    other = world.grpo(beta=0.9)
    world.train(other)
    spec = world.grpo().model_copy(update={"init": TrainedModel(stage=other)})
    world.train(spec)
    world.arm("time_r1", "main", {"grpo": spec})
    assert [run.name for run in Reader(world.root).runs()] == ["base · grpo", "time_r1"]


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)
