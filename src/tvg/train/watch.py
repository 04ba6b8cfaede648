"""What happens around every optimiser step: seeds, checks, metrics, alarms, progress."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from tvg.errors import TvgError
from tvg.model.exhausted import Work
from tvg.progress import SECONDS_BETWEEN_LINES
from tvg.train import alarms, processes
from tvg.train.fixed_set import SECONDS, FixedSet
from tvg.train.record import Metrics, Run
from tvg.train.schedule import seed_of

log = logging.getLogger(__name__)
NAMES = {  # the library's names -> ours; a name that stands in neither column is not kept
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "reward": "train/reward",
    "frac_reward_zero_std": "train/zero_std_groups",
    "completions/mean_length": "train/length",
    "completions/clipped_ratio": "train/truncated",
    "kl": "train/kl",
    "entropy": "train/entropy",
}


def ours(logs: dict[str, float | None]) -> dict[str, float | None]:
    """The logged values under our names; rewards/<name>/mean becomes train/rewards/<name>."""
    renamed = {}
    for name, value in logs.items():
        if name.startswith("rewards/") and name.endswith("/mean"):
            name = f"train/{name.removesuffix('/mean')}"
        name = NAMES.get(name, name)
        if name.startswith("train/"):
            renamed[name] = value
    return renamed


class Watch(TrainerCallback):
    """Metrics go to metrics.jsonl, alarms to warnings.jsonl, progress to a bar on a terminal or else to the log.

    work: what the trainer is doing, which it says before everything that takes memory.
    """

    def __init__(self, seed: int | None, folder: Path, run: Run, fixed_set: FixedSet):
        self.seed, self.metrics, self.run, self.fixed_set = seed, Metrics(folder), run, fixed_set
        self.warnings, self.work = alarms.warnings(folder), Work()
        self.bar, self.said = None, 0.0

    def on_train_begin(self, args, state, control, **_):
        told = self.metrics.rows(), {row["name"] for row in self.warnings.rows()}
        self.rows, self.given = processes.from_first(told)
        step = state.global_step
        if self.rows and self.rows[-1]["step"] == step and SECONDS not in self.rows[-1]:
            if processes.is_first():
                self.metrics.cut(step - 1)  # it may have been stopped while the fixed set was asked
            self._keep(state, self.rows.pop())
        self.first_step, self.began = state.global_step, time.monotonic()
        if sys.stderr.isatty() and processes.is_first():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step", leave=False)

    def on_step_begin(self, args, state, control, **_):
        # dropout is a function of the step, so that a step run again after a stop is the same step
        torch.manual_seed(seed_of(self.seed, "step", state.global_step) + processes.rank())
        self.step_began = time.monotonic()

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.work("the optimiser makes its step")
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if not torch.isfinite(norm):
            raise broken(state.global_step + 1, f"gradient norm {norm.item()}")

    def on_log(self, args, state, control, logs, **_):
        state.log_history.clear()  # metrics.jsonl has it, and every checkpoint would carry it
        if "loss" not in logs:
            return
        values = ours(logs) | {"train/step_seconds": time.monotonic() - self.step_began}
        if tokens := logs.get("tokens"):
            values["train/tokens_per_second"] = tokens / values["train/step_seconds"]
        self._keep(state, values)
        if processes.is_first():
            self._progress(state, values)

    def _keep(self, state, values: dict[str, float | None]) -> None:
        """Write the row of the step, with what the fixed set says where that is due, and give the alarms."""
        try:
            if self.fixed_set.due(state.global_step, state.max_steps):
                self.work("the fixed set is answered")
                values = values | self.fixed_set()
        finally:  # asked to stop: the step has been made, and is saved
            self._write(state, values)

    def _write(self, state, values: dict[str, float | None]) -> None:
        """The first process's values, which are of all."""
        if not processes.is_first():
            return
        self.metrics.append(state.global_step, values)
        self.rows.append({"step": state.global_step, **values})
        for name, text in alarms.active(self.rows).items():
            if name not in self.given:
                self.given.add(name)
                self.warnings.add({"step": state.global_step, "name": name, "text": text})
                log.warning("%s at step %d: %s", name, state.global_step, text)

    def on_save(self, args, state, control, **_):
        self.run.update(state.global_step)

    def on_train_end(self, args, state, control, **_):
        if self.bar:
            self.bar.close()

    def _progress(self, state, values: dict[str, float]) -> None:
        name = "reward" if values.get("train/reward") is not None else "loss"
        shown = {name: f"{values[f'train/{name}']:.4f}"}
        if self.bar:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(state.global_step - self.bar.n)
            return
        now, done = time.monotonic(), state.global_step - self.first_step
        if now - self.said < SECONDS_BETWEEN_LINES and state.global_step < state.max_steps:
            return
        self.said, pace = now, (now - self.began) / done
        left = pace * (state.max_steps - state.global_step)
        step = f"{state.global_step}/{state.max_steps}"
        log.info("step %s: %s %s, %.2f s a step, %.0f s left", step, name, shown[name], pace, left)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own bars, and their warnings of each other's outdated names."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        for outdated in ("gradient_checkpointing", "broadcast_buffers"):
            warnings.filterwarnings("ignore", message=f".*{outdated}", category=FutureWarning)
        yield
    if bars:
        transformers_logging.enable_progress_bar()


class Broken(TvgError):
    """The weights are still those of the step before. Raised in all processes at once."""


def broken(step: int, got: str, ids: list[str] | None = None) -> Broken:
    """The error of a step whose loss or gradient is no number."""
    return Broken(
        f"step {step}",
        "the training broke down",
        got=got + (f" on samples {', '.join(ids)}" if ids else ""),
        expected="finite numbers",
        hint="lower learning_rate or max_grad_norm; the state before this step is kept in checkpoints/",
    )
