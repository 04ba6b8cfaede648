"""The real workflow under the real Snakemake, on a world of a few videos."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.unit.test_config import edit
from tests.workflow.small import BIN, ENVIRONMENT, small, snakemake
from tvg.plan import Plan
from tvg.store import identify

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's results, run once for the tests below."""
    folder = small(tmp_path_factory.mktemp("demo"))
    snakemake(folder, "demo")
    return folder


def test_snakefile_is_clean():
    for command in (["snakemake", "--lint"], ["snakefmt", "--check", "Snakefile", "rules"]):
        done = subprocess.run(
            [BIN / command[0], *command[1:]], cwd=REPO, capture_output=True, text=True, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_python_is_clean():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [BIN / "ruff", *command, "src", "tests", "benchmarks"], cwd=REPO, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_every_target_says_what_it_is():
    done = subprocess.run(
        [BIN / "snakemake", "--list-target-rules"], cwd=REPO, capture_output=True, text=True, env=ENVIRONMENT
    )
    for target in ("all", "demo", "tables", "ablations", "report", "track"):
        assert any(line.startswith(f"{target} (") for line in done.stdout.splitlines()), done.stdout


@pytest.mark.parametrize("scale", sorted(path.stem for path in (REPO / "config" / "scales").glob("*.yaml")))
def test_every_arm_is_planned_without_data_and_nothing_is_written(tmp_path, scale):
    shutil.copytree(REPO / "config", tmp_path / "config")
    done = snakemake(tmp_path, "-n", "all", "--config", f"scale={scale}", "seeds=[0,1]")
    plan = Plan.load({"scale": scale, "seeds": [0, 1]}, tmp_path / "config")
    needed = {
        identify(spec) for run in plan.runs.values() for spec in (*run.stages.values(), *run.evaluations.values())
    }
    assert plan.runs and not [ident for ident in needed if ident not in done.stdout]
    assert plan.notice in done.stderr + done.stdout and "This was a dry-run" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"config", ".snakemake"}


def test_without_a_target_everything_is_planned(tmp_path):
    shutil.copytree(REPO / "config", tmp_path / "config")
    counts = [snakemake(tmp_path, "-n", *target).stdout.split("Job stats:")[1] for target in ([], ["all"])]
    assert counts[0].split("total")[0] == counts[1].split("total")[0] and "\ntrain " in counts[0]


def test_demo_writes_its_table_plots_report_and_mlflow(demo):
    root = demo / "results" / "mini"
    table = (root / "tables" / "demo.md").read_text()
    assert "Invert4TVG" in table and "Time-R1" in table
    assert list((root / "plots" / "demo").glob("*.png")) and (root / "report" / "demo.html").stat().st_size > 10_000
    runs = sqlite3.connect(demo / "results" / "mlflow.db").execute("select count(*) from runs").fetchone()[0]
    assert runs > 6
    for log in root.glob("benchmarks/*/*.tsv"):
        assert log.stat().st_size > 0


def test_a_second_demo_has_nothing_to_do(demo):
    assert "Nothing to be done" in (done := snakemake(demo, "demo")).stderr + done.stdout


def test_every_training_saw_the_video_and_moved_what_may_move(demo):
    from safetensors.numpy import load_file

    stages = demo / "results" / "mini" / "stages"
    assert {path.name.split("-")[0] for path in stages.iterdir()} == {"sft", "grpo"}
    weights = {path.name: load_file(path / "model" / "model.safetensors") for path in stages.iterdir()}
    base = next(tensors for name, tensors in weights.items() if name.startswith("sft"))
    for name, tensors in weights.items():
        run = json.loads((stages / name / "run.json").read_text())
        assert run["exit"] == 0 and run["sees_video"] > 0
        if name.startswith("grpo"):
            rows = [json.loads(line) for line in (stages / name / "metrics.jsonl").open()]
            learnt = any((tensors[key] != base[key]).any() for key in base)
            assert learnt == any(row["train/grad_norm"] > 0 for row in rows), "weights move when there is a gradient"
            towers = [key for key in base if ".visual." in key or key.startswith("visual.")]
            frozen = [key for key in towers if "merger" not in key]
            assert frozen and all((tensors[key] == base[key]).all() for key in frozen)


def test_predictions_cover_every_query(demo):
    (path,) = (p for p in demo.glob("results/mini/samples/mini.test-*.jsonl") if p.name.count(".") == 2)
    samples = [json.loads(line) for line in path.open()]
    for path in (demo / "results/mini/evaluations").glob("*/predictions.jsonl"):
        rows = [json.loads(line) for line in path.open()]
        assert {row["id"] for row in rows if row["task"] == "ground"} == {sample["id"] for sample in samples}


def test_a_new_seed_trains_only_its_own_arms(demo):
    done = snakemake(demo, "-n", "demo", "--config", "seeds=[0,1]")
    planned = done.stdout.split("Job stats:")[1]
    assert "\ntrain " in planned and planned.split("\ntrain")[1].split()[0] == "2"


def test_a_failed_edit_shows_no_old_number_and_going_back_trains_nothing(demo, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(demo, folder)
    path, root = folder / "config" / "experiments" / "invert4tvg.yaml", folder / "results" / "mini"
    written, table = path.read_text(), (root / "tables" / "demo.md").read_text()
    path.write_text(written.replace("beta: 0.04", "beta: 0.02"))
    shutil.rmtree(next(root.glob("stages/sft-*")) / "model")  # the edited training finds no base to start from
    assert snakemake(folder, "demo", check=False).returncode != 0
    for stale in ("tables/demo.md", "tables/demo.csv", "report/demo.html", "plots/demo/rewards.png"):
        assert not (root / stale).exists(), stale
    shown = tvg(folder, "show", "demo", "--results", "results/mini").stdout
    assert next(line for line in shown.splitlines() if line.startswith("Invert4TVG")).count("not run") >= 7
    path.write_text(written)
    again = snakemake(folder, "-n", "demo").stdout
    assert "\ntable " in again and "\ntrain " not in again and "\nevaluate " not in again
    snakemake(folder, "demo")
    assert (root / "tables" / "demo.md").read_text() == table


def test_the_systems_of_several_stages_run_whole(demo, tmp_path):
    """TAR-TVG, TVG-R1 and TaRO from their own files, each stage on what the one before has made."""
    folder, names = tmp_path / "chains", ("tar_tvg", "tvg_r1", "taro")
    shutil.copytree(demo, folder)
    mains = f"experiments=[{','.join(f'{name}-main' for name in names)}]"
    snakemake(folder, "tables", "--config", mains)
    plan = Plan.load({"experiments": [f"{name}-main" for name in names]}, folder / "config")
    stages = {
        f"{name}.{stage}": folder / plan.store.stage(spec)
        for name in names for stage, spec in plan.runs[name, "main", 0].stages.items()
    }  # fmt: skip
    chosen = {
        name: _lines(stages[name] / "samples.jsonl") for name in ("tar_tvg.traces", "tvg_r1.traces", "tvg_r1.chosen")
    }
    explored = _rollouts(stages["tar_tvg.explore"])
    assert {row["completion"] for row in chosen["tar_tvg.traces"]} <= set(explored.completion)
    assert chosen["tvg_r1.traces"] and all("<time>" in row["completion"] for row in chosen["tvg_r1.traces"])
    assert all("difficulty" in row for row in chosen["tvg_r1.chosen"])
    assert set(_rollouts(stages["tvg_r1.grpo"]).id) <= {row["id"] for row in chosen["tvg_r1.chosen"]}
    warm = _rollouts(stages["taro.warm"])
    assert (warm.prefix > 0).any() and warm[warm.prefix > 0].completion.str.startswith("<think>I look for").all()
    assert _rollouts(stages["taro.grpo"]).logprob_drop.notna().any()
    for verb in (["explain", "tvg_r1"], ["plan", "tvg_r1"], ["status", "tvg_r1"]):
        said = tvg(folder, *verb).stdout
        assert "filter" in said and "collect" in said, said


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _rollouts(stage: Path):
    """Every rollout of a stage."""
    import pandas

    return pandas.concat([pandas.read_parquet(path) for path in sorted(stage.glob("completions/*.parquet"))])


def test_an_interrupted_run_continues(tmp_path):
    """Ctrl-C in the middle of a training: the checkpoint stays, and the next call finishes it."""
    folder = small(tmp_path)
    edit(folder / "config" / "scales" / "mini.yaml", set__grpo__steps=12)
    plan = Plan.load({"experiments": ["time_r1"]}, folder / "config")
    stage = folder / plan.store.stage(plan.runs["time_r1", "main", 0].stages["grpo"])
    target = str((stage / "model.done").relative_to(folder))
    command = [BIN / "snakemake", "--snakefile", REPO / "Snakefile", "--directory", folder, "--cores", "1", target]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        _wait_for(stage, "checkpoints/checkpoint-*")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0 and not (stage / "model.done").exists()
    snakemake(folder, target, "--rerun-incomplete")
    steps = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").open()]
    assert (stage / "model.done").exists() and steps == sorted(set(steps)) and steps[-1] == 12


def _wait_for(folder: Path, pattern: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(folder.glob(pattern)):
            return
        time.sleep(0.2)
    raise AssertionError(f"no {pattern} within {seconds} s")


def test_a_broken_video_is_listed_and_counted_as_zero(demo, tmp_path):
    """One test video is cut short on disk: its queries stay in the denominator, and the reason is in a file."""
    folder = tmp_path / "broken"
    shutil.copytree(demo, folder, ignore=shutil.ignore_patterns("evaluations", "frames", ".snakemake"))
    (video,) = folder.glob("data/mini-*/videos/test-00000.mp4")
    video.write_bytes(video.read_bytes()[:3000])
    plan = Plan.load({"experiments": ["zero_shot"]}, folder / "config")
    spec = plan.runs["zero_shot", "main", 0].evaluations["charades_test"]
    frames, evaluation = (plan.store.spec(identify(one)) for one in (spec.data.frames, spec))
    for shard in ("0", "1"):
        tvg(folder, "cache", frames, "--shard", shard, "--of", "2")
    tvg(folder, "evaluate", evaluation)
    metrics = json.loads((folder / plan.store.evaluation(spec) / "metrics.json").read_text())
    (lost,) = {
        row["video"]: row for row in map(json.loads, (folder / plan.store.evaluation(spec) / "missing.jsonl").open())
    }
    assert (
        lost == "test-00000.mp4" and 0 < metrics["missing"] < metrics["n"] == metrics["n_scored"] + metrics["missing"]
    )
    reasons = "".join(
        path.read_text() for path in (folder / plan.store.frames(spec.data.frames)).glob("*.failures.jsonl")
    )
    assert "test-00000.mp4" in reasons


def tvg(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    done = subprocess.run([BIN / "tvg", *arguments], cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done


def test_one_query_on_one_video(demo):
    """`tvg ground`, `tvg frames`, `tvg verbs` and `tvg parse`, as README shows them."""
    video = next(demo.glob("data/mini-*/videos/test-*.mp4"))
    model = next(demo.glob("results/mini/stages/sft-*/model"))
    answer = json.loads(tvg(demo, "ground", video, 'a "person" sits; $(down)', "--model", model, "--json").stdout)
    assert answer["duration"] > 10 and answer["frames"] >= 20 and isinstance(answer["completion"], str)
    described = json.loads(tvg(demo, "frames", video, "--fps", "2", "--json").stdout)
    assert described["timestamps"][:2] == pytest.approx([0, 0.5]) and described["height"] == 112
    for command, row, key, value in (
        (["verbs"], {"text": "she begins to sit down", "n": 1}, "verbs", ["begin", "sit"]),
        (["parse", "--format", "strict_answer"], {"text": "<answer>1.5 to 4</answer>"}, "segment", [1.5, 4.0]),
    ):
        done = subprocess.run(
            [BIN / "tvg", *command], input=json.dumps(row) + "\n{broken\n", cwd=demo, capture_output=True, text=True,
            env=ENVIRONMENT,
        )  # fmt: skip
        good, broken = map(json.loads, done.stdout.splitlines())
        assert good[key] == value and row.items() <= good.items()
        assert broken["line"] == 2 and done.returncode == 1
