"""What a run leaves behind: metrics.jsonl, completions/*.parquet, run.json; verbs and warnings where there are any."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import pandas
import torch

from tvg import facts
from tvg.rows import Rows
from tvg.sample import write_lines
from tvg.train import alarms, measures, processes


class Metrics(Rows):
    """metrics.jsonl: one row a step, numbers alone."""

    def __init__(self, folder: Path):
        super().__init__(folder / "metrics.jsonl")

    def append(self, step: int, values: dict[str, float | None]) -> None:
        self.add({"step": step, "time": time.time(), **{key: v for key, v in values.items() if v is not None}})


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


def cut(folder: Path, step: int) -> None:
    """Forget what a stage's files tell of the steps past the one that training resumes from."""
    for told in (Metrics(folder), Completions(folder), measures.verbs(folder), alarms.warnings(folder)):
        told.cut(step)


class Run:
    """run.json: who ran this stage, where, with what, for how long. A resumed run goes on counting its seconds."""

    def __init__(self, folder: Path, device: str, precision: str, policy: str):
        self.path, self._began = folder / "run.json", time.monotonic()
        before = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self._seconds_before = before.get("seconds", 0.0)
        self.facts = {
            "started": before.get("started", facts.now()),
            "ended": None,
            "exit": None,
            **facts.here(device),
            "precision": precision,
            "policy": policy,
        }
        self.update(before.get("steps", 0))

    def update(self, steps: int) -> None:
        """Write what is known by now, after `steps` optimiser steps; of several processes, the first does."""
        peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
        seconds = round(self._seconds_before + time.monotonic() - self._began, 3)
        self.facts |= {"seconds": seconds, "peak_memory_gb": peak, "steps": steps}
        if processes.is_first():
            write_lines(self.path, [json.dumps(self.facts, indent=1, ensure_ascii=False)])

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Write how it ended: the exit status of an Interrupted, 1 for any other error."""
        self.facts |= {"ended": facts.now(), "exit": getattr(error, "code", 1) if error else 0}
        self.update(self.facts["steps"])
