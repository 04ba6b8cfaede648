"""What happens around every optimiser step: seeds, checks, metrics, progress."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from tvg.errors import TvgError
from tvg.progress import SECONDS_BETWEEN_LINES
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
    """Metrics go to metrics.jsonl, progress to a bar on a terminal and to the log elsewhere."""

    def __init__(self, seed: int | None, metrics: Metrics, run: Run):
        self.seed, self.metrics, self.run = seed, metrics, run
        self.bar, self.said = None, 0.0

    def on_train_begin(self, args, state, control, **_):
        self.first_step, self.began = state.global_step, time.monotonic()
        if sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step", leave=False)

    def on_step_begin(self, args, state, control, **_):
        # dropout is a function of the step, so that a step run again after a stop is the same step
        torch.manual_seed(seed_of(self.seed, "step", state.global_step))
        self.step_began = time.monotonic()

    def on_pre_optimizer_step(self, args, state, control, model, **_):
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
        self.metrics.append(state.global_step, values)
        self._progress(state, values)

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
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield
    if bars:
        transformers_logging.enable_progress_bar()


def broken(step: int, got: str, ids: list[str] | None = None) -> TvgError:
    """The error of a step whose loss or gradient is no number; the weights are still those of the step before."""
    return TvgError(
        f"step {step}",
        "the training broke down",
        got=got + (f" on samples {', '.join(ids)}" if ids else ""),
        expected="finite numbers",
        hint="lower learning_rate or max_grad_norm; the state before this step is kept in checkpoints/",
    )
