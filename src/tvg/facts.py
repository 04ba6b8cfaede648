"""Who runs a job, where, with what: the facts that the run.json of a training and of an evaluation have in common."""

import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy", "spacy")


def here(device: str) -> dict:
    """This process: host, pid, slurm_job, device, how many processes there are, versions, commit, dirty."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "device": _device(device),
        "processes": processes(),
        "versions": _versions(),
        **_source(),
    }


def processes() -> int:
    """How many processes a launcher has started for this job, one a GPU."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the one of them that tells people how it goes."""
    return os.environ.get("RANK", "0") == "0"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device(device: str) -> str:
    import torch  # only a job on a device has loaded it

    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"
    return name if processes() == 1 else f"{processes()} x {name}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def _source() -> dict[str, str | bool | None]:
    """The commit of this code and whether it was edited since; None where it is no git checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=20
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
