"""The shipped SLURM profile on a real SLURM, from the videos to a trained stage."""

import json
import subprocess

import pytest

from tests.conftest import REPO
from tests.unit.test_config import edit
from tests.workflow.small import BIN, ENVIRONMENT, small
from tvg.plan import Plan

pytestmark = [pytest.mark.workflow, pytest.mark.slurm]


@pytest.fixture
def submit(slurm, tmp_path):
    """A working folder, and a function that runs targets through the profile in it."""
    folder = small(tmp_path)
    edit(folder / "config" / "profiles" / "slurm" / "config.yaml", **{
        "slurm-init-seconds-before-status-checks": 3, "latency-wait": 5, "slurm-status-command": "squeue",
        "set-resources__train__mem_mb": 2000, "set-resources__evaluate__mem_mb": 2000,
    })  # fmt: skip

    def run(*targets: str) -> subprocess.CompletedProcess:
        command = [BIN / "snakemake", "--snakefile", REPO / "Snakefile", "--directory", folder,
                   "--workflow-profile", folder / "config" / "profiles" / "slurm", *targets]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder)

    return folder, run


def test_a_training_comes_out_of_slurm_jobs(submit):
    folder, run = submit
    plan = Plan.load({"experiments": ["zero_shot"]}, folder / "config")
    stage = plan.store.stage(plan.runs["zero_shot", "main", 0].evaluations["charades_test"].model.stage)
    done = run(str(stage / "model.done"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("submitted with SLURM jobid") >= 5
    run_json = json.loads((folder / stage / "run.json").read_text())
    assert run_json["exit"] == 0 and run_json["slurm_job"].isdigit()
