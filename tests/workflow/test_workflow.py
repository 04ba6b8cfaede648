"""The real workflow under the real Snakemake, on a world of a few videos."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.unit.test_config import edit

pytestmark = pytest.mark.workflow
BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


def snakemake(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [BIN / "snakemake", "--snakefile", REPO / "Snakefile", "--directory", folder, "--cores", "2", *arguments],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=folder,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def small(folder: Path) -> Path:
    """A working folder with the shipped configuration, shrunk until it runs in seconds."""
    shutil.copytree(REPO / "config", folder / "config")
    edit(folder / "config" / "datasets" / "mini.yaml", splits={"train": 8, "val": 2, "test": 4})
    edit(folder / "config" / "experiments" / "mini_base.yaml", stages__sft__steps=4, stages__sft__batch=4)
    edit(
        folder / "config" / "scales" / "mini.yaml",
        set={"grpo": {"steps": 3, "prompts_per_step": 2, "max_completion_tokens": 12},
             "evaluation": {"max_completion_tokens": 12}},
        runtime__rollouts_per_pass=16, runtime__save_every=1, shards=2,
    )  # fmt: skip
    return folder


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
        assert any(line.strip() == target for line in done.stdout.splitlines()), done.stdout


@pytest.mark.parametrize("scale", ["mini", "3b"])
def test_a_scale_plans_without_data_and_writes_nothing(tmp_path, scale):
    shutil.copytree(REPO / "config", tmp_path / "config")
    done = snakemake(tmp_path, "-n", "all", "--config", f"scale={scale}")
    assert "grpo" in done.stdout and "This was a dry-run" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"config", ".snakemake"}


def test_demo_writes_its_table_plots_report_and_mlflow(demo):
    root = demo / "results" / "mini"
    table = (root / "tables" / "demo.md").read_text()
    assert "Invert4TVG" in table and "Time-R1" in table
    assert list((root / "plots").glob("*.png")) and (root / "report" / "demo.html").stat().st_size > 10_000
    runs = sqlite3.connect(demo / "results" / "mlflow.db").execute("select count(*) from runs").fetchone()[0]
    assert runs > 6
    for log in root.glob("benchmarks/*/*.tsv"):
        assert log.stat().st_size > 0


def test_a_second_demo_has_nothing_to_do(demo):
    assert "Nothing to be done" in (done := snakemake(demo, "demo")).stderr + done.stdout


def test_every_training_changed_its_weights_and_saw_the_video(demo):
    from safetensors.numpy import load_file

    stages = demo / "results" / "mini" / "stages"
    assert {path.name.split("-")[0] for path in stages.iterdir()} == {"sft", "grpo"}
    weights = {path.name: load_file(path / "model" / "model.safetensors") for path in stages.iterdir()}
    base = next(tensors for name, tensors in weights.items() if name.startswith("sft"))
    for name, tensors in weights.items():
        run = json.loads((stages / name / "run.json").read_text())
        assert run["exit"] == 0 and run["sees_video"] > 0
        if name.startswith("grpo"):
            assert any((tensors[key] != base[key]).any() for key in base)
            towers = [key for key in base if ".visual." in key or key.startswith("visual.")]
            frozen = [key for key in towers if "merger" not in key]
            assert frozen and all((tensors[key] == base[key]).all() for key in frozen)


def test_predictions_cover_every_query(demo):
    samples = [json.loads(line) for line in next((demo / "results/mini/samples").glob("mini.test-*.jsonl")).open()]
    for path in (demo / "results/mini/evaluations").glob("*/predictions.jsonl"):
        rows = [json.loads(line) for line in path.open()]
        assert {row["id"] for row in rows if row["task"] == "ground"} == {sample["id"] for sample in samples}


def test_a_new_seed_trains_only_its_own_arms(demo):
    done = snakemake(demo, "-n", "demo", "--config", "seeds=[0,1]")
    planned = done.stdout.split("Job stats:")[1]
    assert "\ntrain " in planned and planned.split("\ntrain")[1].split()[0] == "2"


def test_an_interrupted_run_continues(tmp_path):
    """Ctrl-C in the middle of a training: the checkpoint stays, and the next call finishes it."""
    folder = small(tmp_path)
    edit(folder / "config" / "scales" / "mini.yaml", set__grpo__steps=30)
    command = [BIN / "snakemake", "--snakefile", REPO / "Snakefile", "--directory", folder, "--cores", "1", "demo"]
    process = subprocess.Popen(
        [*command, "--until", "train"], env=ENVIRONMENT, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        stage = _wait_for(folder, "results/mini/stages/grpo-*/checkpoints/checkpoint-*")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0 and not (stage / "model.done").exists()
    snakemake(folder, str((stage / "model.done").relative_to(folder)), "--rerun-incomplete")
    steps = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").open()]
    assert (stage / "model.done").exists() and steps == sorted(set(steps)) and steps[-1] == 30


def _wait_for(folder: Path, pattern: str, seconds: float = 240) -> Path:
    """The stage folder of the first checkpoint that appears."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in folder.glob(pattern):
            return path.parents[1]
        time.sleep(0.2)
    raise AssertionError(f"no {pattern} within {seconds} s")
