"""What a run leaves behind: metrics.jsonl, completions/*.parquet, run.json."""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pandas
import torch

from tvg.sample import write_lines

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy", "spacy")


class Metrics:
    """metrics.jsonl: one row a step, on disk at once, so that a killed run has told all it knew."""

    def __init__(self, folder: Path):
        self.path = folder / "metrics.jsonl"

    def rows(self) -> list[dict]:
        if not self.path.exists():
            return []
        rows = []
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                with suppress(ValueError):  # a kill can cut the last line short: its step is run again
                    rows.append(json.loads(line))
        return rows

    def cut(self, step: int) -> None:
        """Forget the rows past the step that training resumes from."""
        write_lines(self.path, (json.dumps(row) for row in self.rows() if row["step"] <= step))

    def append(self, step: int, values: dict[str, float | None]) -> None:
        row = {"step": step, "time": time.time(), **{key: value for key, value in values.items() if value is not None}}
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")


class Completions:
    """completions/step-NNNNNN.parquet: every rollout of every step, a few kilobytes each; `collect` reads them."""

    def __init__(self, folder: Path):
        self.folder = folder / "completions"

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.parquet"

    def cut(self, step: int) -> None:
        for path in self.folder.glob("step-*.parquet"):
            if path > self._path(step):
                path.unlink()

    def write(self, step: int, rows: Iterable[dict]) -> None:
        """Rows of step, id, video, task, query, rollout, completion, reward, advantage, one column a reward, and what
        the stage adds: logprob_drop (of a probe), prefix (forced tokens, of awbc).
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._path(step).with_suffix(".partial")
        pandas.DataFrame([{"step": step, **row} for row in rows]).to_parquet(partial, index=False)
        partial.rename(self._path(step))


class Run:
    """run.json: who ran this stage, where, with what, for how long. A resumed run goes on counting its seconds."""

    def __init__(self, folder: Path, device: str, precision: str, policy: str):
        self.path, self._began = folder / "run.json", time.monotonic()
        before = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self._seconds_before = before.get("seconds", 0.0)
        self.facts = {
            "started": before.get("started", _now()),
            "ended": None,
            "exit": None,
            "host": platform.node(),
            "pid": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "device": _device(device),
            "precision": precision,
            "policy": policy,
            "versions": _versions(),
            **_source(),
        }
        self.update(before.get("steps", 0))

    def update(self, steps: int) -> None:
        """Write what is known by now, after `steps` optimiser steps."""
        peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
        seconds = round(self._seconds_before + time.monotonic() - self._began, 3)
        self.facts |= {"seconds": seconds, "peak_memory_gb": peak, "steps": steps}
        write_lines(self.path, [json.dumps(self.facts, indent=1, ensure_ascii=False)])

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Write how it ended: the exit status of an Interrupted, 1 for any other error."""
        self.facts |= {"ended": _now(), "exit": getattr(error, "code", 1) if error else 0}
        self.update(self.facts["steps"])


def _device(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
