"""The shipped workflow on a world of a few videos, shrunk until it runs in seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPO
from tests.unit.test_config import edit

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
    """A working folder with the shipped configuration, shrunk."""
    shutil.copytree(REPO / "config", folder / "config")
    return shrink(folder)


def shrink(folder: Path) -> Path:
    """Few videos, few steps, short answers."""
    edit(folder / "config" / "datasets" / "mini.yaml", splits={"train": 20, "val": 2, "test": 4})
    edit(folder / "config" / "experiments" / "mini_base.yaml", stages__sft__steps=4, stages__sft__batch=4)
    edit(
        folder / "config" / "scales" / "mini.yaml",
        set={"grpo": {"steps": 3, "prompts_per_step": 2, "max_completion_tokens": 12},
             "awbc": {"steps": 2, "prompts_per_step": 2, "max_completion_tokens": 80},
             "sft": {"steps": 2, "batch": 4},
             "filter": {"count": 5, "min_count": 5, "max_completion_tokens": 12},
             "collect": {"min_count": 4},
             "evaluation": {"max_completion_tokens": 12}},
        runtime__rollouts_per_pass=16, runtime__save_every=1, runtime__fixed_set_count=1, shards=2,
    )  # fmt: skip
    return folder
