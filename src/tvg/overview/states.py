"""What the store holds of a stage or an evaluation right now: read from its files, without Snakemake."""

import itertools
import json
import os
import platform
import re
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tvg.settings import Closed
from tvg.spec import CollectSpec, FilterSpec
from tvg.store import Store

SIGNALS = (130, 143)  # exit codes of a training that was asked to stop, and saved
TAIL = 1 << 16  # bytes of a growing file that are read: the last hundred steps
SAID_AT = re.compile(r"^\d\d:\d\d:\d\d ", re.MULTILINE)  # how a line of a job's log begins
ERROR = ("\n  hint:", "unexpected error")  # what only the last word of a failed job holds
RECENT = 20  # steps whose median is the pace
State = Literal["done", "running", "stopped", "failed", "waiting"]


@dataclass(frozen=True)
class StageState:
    """A training in the store. step: the newest one on disk. kept: the step that a new start would go on from.

    pace: recent seconds a step, or None. quiet: seconds since anything was written. note: why it is in this state.
    run: its run.json, {} without one. warnings: what its metrics have given alarm about (tvg.train.alarms).
    """

    state: State
    step: int = 0
    kept: int = 0
    pace: float | None = None
    reward: float | None = None
    loss: float | None = None
    quiet: float | None = None
    note: str | None = None
    log: Path | None = None
    run: dict = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationState:
    """An evaluation in the store. predictions: rows that are safely written. Else as for a training."""

    state: State
    predictions: int = 0
    quiet: float | None = None
    note: str | None = None
    log: Path | None = None


@dataclass(frozen=True)
class ChoiceState:
    """A filter or a collect stage in the store. answered: samples that a filter's model has answered.

    read, kept: samples or completions, as its report says; None before there is one. Else as for an evaluation.
    """

    state: State
    answered: int = 0
    read: int | None = None
    kept: int | None = None
    quiet: float | None = None
    note: str | None = None
    log: Path | None = None


def stage(store: Store, ident: str) -> StageState:
    """The state of the training `ident`."""
    folder, log = store.stage(ident), store.root / "logs" / "train" / f"{ident}.log"
    run = read_json(folder / "run.json")
    rows = tail(folder / "metrics.jsonl")
    state, note = _state(folder, run, log)
    last = rows[-1] if rows else {}
    return StageState(
        state=state,
        step=last.get("step", run.get("steps") or 0),
        kept=_kept(folder),
        pace=pace(rows),
        reward=last.get("train/reward"),
        loss=last.get("train/loss"),
        quiet=_quiet(folder / "run.json", folder / "metrics.jsonl", log) if run else None,
        note=note,
        log=log if log.exists() else None,
        run=run,
        warnings=tuple(f"{w['name']} at step {w['step']}: {w['text']}" for w in tail(folder / "warnings.jsonl")),
    )


def evaluation(store: Store, ident: str) -> EvaluationState:
    """The state of the evaluation `ident`: one that was killed goes on from its predictions."""
    folder, log = store.evaluation(ident), store.root / "logs" / "evaluate" / f"{ident}.log"
    done, partial = folder / "predictions.jsonl", folder / "predictions.partial.jsonl"
    written = next((path for path in (done, partial) if path.exists()), None)
    rows = lines(written) if written else 0
    log = log if log.exists() else None
    if (folder / "metrics.json").exists():
        return EvaluationState("done", rows, log=log)
    if note := last_error(log):
        return EvaluationState("failed", rows, _quiet(log), note, log)
    return EvaluationState("stopped" if written else "waiting", rows, _quiet(partial, done, log), log=log)


def choice(store: Store, ident: str) -> ChoiceState:
    """The state of the choice of data `ident`: a filter that was killed goes on from its answers."""
    folder, log = store.stage(ident), store.root / "logs" / "select" / f"{ident}.log"
    done, answers, report = folder / "samples.jsonl", folder / "answers.jsonl", read_json(folder / "report.json")
    answered = lines(answers) if answers.exists() else 0
    log = log if log.exists() else None
    if done.exists():
        return ChoiceState("done", answered, report.get("read"), report.get("kept"), log=log)
    if note := last_error(log):
        return ChoiceState("failed", answered, report.get("read"), quiet=_quiet(log), note=note, log=log)
    state = "stopped" if answers.exists() else "waiting"
    return ChoiceState(state, answered, quiet=_quiet(answers, log) if answers.exists() else None, log=log)


def is_done(store: Store, spec: Closed) -> bool:
    """Has this stage made its model, or chosen its data?"""
    made = "samples.jsonl" if isinstance(spec, FilterSpec | CollectSpec) else "model.done"
    return (store.stage(spec) / made).exists()


def last_error(log: Path | None) -> str | None:
    """The error that a job's log ends with, on one line; None where it ends with anything else."""
    text = _tail(log) if log else ""
    starts = [match.end() for match in SAID_AT.finditer(text)]
    block = text[starts[-1] :] if starts else ""
    if not any(sign in block for sign in ERROR):
        return None
    told = block.strip().splitlines()
    return told[-1] if ERROR[1] in told[0] else told[0].partition(": ")[2]


def read_json(path: Path) -> dict:
    """A JSON object; {} where there is none, or none yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def lines(path: Path) -> int:
    """How many whole lines a file has."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def tail(path: Path) -> list[dict]:
    """The last rows of a metrics.jsonl; a line that is cut at either end is left out."""
    rows = []
    for line in _tail(path).split("\n"):
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def _tail(path: Path) -> str:
    """The end of a text file, from the start of a line on; nothing where there is no file."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[2] if start else text


def pace(rows: list[dict], recent: int = RECENT) -> float | None:
    """Seconds a step, the median of the last: as logged, else from one row's time to the next."""
    rows = rows[-recent:]
    logged = [row["train/step_seconds"] for row in rows if "train/step_seconds" in row]
    if not logged:
        pairs = list(itertools.pairwise(rows))
        logged = [b["time"] - a["time"] for a, b in pairs if "time" in a and "time" in b and b["step"] == a["step"] + 1]
    return statistics.median(logged) if logged else None


def _state(folder: Path, run: dict, log: Path) -> tuple[State, str | None]:
    if (folder / "model.done").exists():
        return "done", None
    code = run.get("exit")
    if not run:
        error = last_error(log)
        return ("failed", error) if error else ("waiting", None)
    if code is None:
        gone = _gone(run)
        return ("stopped" if gone else "running"), gone
    if code in SIGNALS or code == 0:
        return "stopped", None
    return "failed", f"exit code {code}, {last_error(log) or 'without a word'}"


def _gone(run: dict) -> str | None:
    """Why a training that never said that it ended cannot be alive; None where it may be."""
    process = run.get("pid")
    if process is None or run.get("host") != platform.node():
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return f"its process {process} is gone: killed?"
    except PermissionError:
        return None
    return None


def _kept(folder: Path) -> int:
    """The step of the newest checkpoint; a damaged one is found out only when training resumes."""
    steps = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoints/checkpoint-[0-9]*")]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _quiet(*paths: Path | None) -> float | None:
    times = []
    for path in filter(None, paths):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(0.0, time.time() - max(times)) if times else None
