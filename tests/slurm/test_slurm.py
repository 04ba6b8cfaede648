"""The shipped SLURM profile on a real SLURM: the demo goes through it, and a job that is preempted resumes."""

import json
import subprocess

import pytest

from tests.conftest import REPO
from tests.unit.test_config import edit
from tests.workflow.test_workflow import BIN, ENVIRONMENT, small

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


def test_a_table_comes_out_of_slurm_jobs(submit):
    folder, run = submit
    done = run("results/mini/tables/demo.md")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted with SLURM jobid" in (done.stdout + done.stderr)
    assert "Invert4TVG" in (folder / "results/mini/tables/demo.md").read_text()
    devices = [json.loads(path.read_text())["device"] for path in folder.glob("results/mini/stages/*/run.json")]
    assert devices
