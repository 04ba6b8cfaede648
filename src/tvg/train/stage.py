"""A training stage from its spec to model.done: load, resume, train, stop when asked, save."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import sleep
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from tvg.errors import TvgError
from tvg.model.adapt import apply
from tvg.model.load import load, save
from tvg.model.policy import Context, Policy
from tvg.model.question import context, visible
from tvg.model.sight import sees_video
from tvg.sample import Sample, write_lines
from tvg.settings import Prompt, Runtime
from tvg.spec import SftSpec, StageSpec, canonical
from tvg.store import Store
from tvg.train import balance, checkpoints, inputs, processes, record, signals
from tvg.train.arguments import precision, shared
from tvg.train.fixed_set import FixedSet
from tvg.train.record import Run
from tvg.train.schedule import epoch_of, names, of_each, per_step, schedule, seed_of, steps
from tvg.train.watch import Broken, Watch, quiet
from tvg.video.decode import Frames

log = logging.getLogger(__name__)
MOST_THREADS = 8


@dataclass(frozen=True)
class Job:
    """What a trainer is made of.

    order: the schedule; prompts and contexts by position in it; count: samples of one epoch. frames: of each video.
    turns: for each process (tvg.train.processes), the positions that are its own.
    """

    spec: StageSpec
    runtime: Runtime
    folder: Path
    device: str
    policy: Policy
    order: list[Sample]
    prompts: list[Prompt]
    contexts: inputs.Ahead[Context]
    frames: Mapping[str, Frames]
    count: int
    turns: list[list[int]]
    watch: Watch
    stop: signals.Stop

    def arguments(self) -> dict:
        """The library's arguments of any kind of trainer."""
        return shared(self.spec, self.runtime, self.device, self.folder, steps(self.spec, self.count))

    @property
    def step_of_one(self) -> int:
        """Samples that this process reads for an optimiser step."""
        return of_each(self.spec, processes.count())

    def seed_at(self, position: int, *parts: object) -> int:
        """The seed of a random choice about the sample at this position of the schedule."""
        return seed_of(self.spec.seed, position // self.count, *names(self.spec, self.order[position]), *parts)


Build = Callable[[Job], Trainer]


def train(spec: StageSpec, store: Store, runtime: Runtime, build: Build, device: str | None = None) -> Path:
    """Train the stage and return its folder. Raises SystemExit(130 or 143) when asked to stop, all being saved.

    Where several processes have been started for it, they train it together.
    """
    folder = store.stage(spec)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "model").exists():
        log.info("%s: the weights are there already", folder)
        return _done(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with processes.joined(device), signals.caught() as stop, quiet():
        try:
            with Run(folder, device, precision(runtime, device), runtime.policy) as run:
                with processes.first_goes_first():
                    job = _job(spec, store, runtime, device, folder, run, stop)
                    run.facts["sees_video"] = _sight(job)
                _run(build(job), folder)
                if processes.is_first():
                    save(job.policy, folder / "model")
        except signals.Interrupted as stopped:
            sleep(stopped.grace)
            raise SystemExit(stopped.code) from stopped
        except Broken as error:
            if processes.is_first():
                raise
            raise SystemExit(1) from error  # the first process tells of it
    return _done(folder) if processes.is_first() else folder


def _job(spec, store, runtime, device, folder, run, stop) -> Job:
    of_each(spec, processes.count())
    if processes.is_first():
        write_lines(folder / "spec.json", [json.dumps(canonical(spec), indent=1, ensure_ascii=False)])
    samples, frames = inputs.read(spec.data, store, folder)
    order, count = schedule(spec, samples), len(epoch_of(spec, samples))
    turns = balance.turns(len(order), per_step(spec), processes.count(), _work(order, frames))
    prompts = [_prompt(spec, sample, position // count) for position, sample in enumerate(order)]
    policy = _policy(spec, store, runtime, device)
    contexts = ahead(
        lambda position: context(policy, prompts[position], order[position], frames[order[position].video]),
        spec,
        turns,
        device,
    )
    watch = Watch(spec.seed, folder, run, FixedSet(spec, runtime, policy, samples, frames, device, stop))
    return Job(spec, runtime, folder, device, policy, order, prompts, contexts, frames, count, turns, watch, stop)


def _prompt(spec: StageSpec, sample: Sample, epoch: int) -> Prompt:
    """The prompt that asks this sample: one of those with a question for its task, each with equal chance."""
    prompts = (spec.prompt, *(spec.more_prompts if isinstance(spec, SftSpec) else ()))
    asking = [prompt for prompt in prompts if sample.task in prompt.texts] or [spec.prompt]
    return asking[seed_of(spec.seed, "prompt", epoch, sample.id, sample.task) % len(asking)]


def _work(order: list[Sample], frames: Mapping[str, Frames]) -> Callable[[int], float]:
    """How much work there is at each position: the pixels that the model is shown, of which it makes video tokens."""

    @cache
    def shown(sample: Sample) -> int:
        return visible(sample, frames[sample.video]).pixels.size

    return lambda position: shown(order[position])


def ahead(make: Callable[[int], Any], spec: StageSpec, turns: list[list[int]], device: str) -> inputs.Ahead:
    """What `make` makes of each position, a step ahead of the model; a CPU's cores are the model's.

    turns: the positions of each process.
    """
    share = len(turns)
    threads = 0 if device == "cpu" else max(1, min(MOST_THREADS, (os.cpu_count() or 1) // share))
    return inputs.Ahead(make, turns[processes.rank()], of_each(spec, share), threads)


def _policy(spec, store, runtime, device) -> Policy:
    """The model to train: what learns in float32, since a step of 1e-6 is lost in a bfloat16 weight."""
    half = spec.lora is not None and precision(runtime, device) == "bfloat16"
    dtype, recompute = torch.bfloat16 if half else torch.float32, runtime.gradient_checkpointing
    policy = load(
        spec.init, store, device=device, dtype=dtype, gradient_checkpointing=recompute, policy=runtime.policy,
        compiled=runtime.compile,
    )  # fmt: skip
    policy.model = apply(policy.model, spec)
    for weight in policy.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return policy


def _sight(job: Job) -> float:
    """Stacks that lose the pixels on the way say nothing: by how much does the first sample's video move the model?

    In nats of a log-probability. Raises TvgError where it is 0: such a training would be on text alone.
    """
    change = sees_video(job.policy, job.contexts.make(0))
    if not change > 0:
        raise TvgError(
            f"sample {job.order[0].id}",
            "the model does not see the video",
            got=f"log-probabilities change by {change} when the pixels are negated",
            expected="a change",
            hint="a policy that drops pixel_values trains on text alone: compare with the plain policy",
        )
    log.info("the model sees the video: log-probabilities change by up to %.3g nats when it is negated", change)
    return change


def _run(trainer: Trainer, folder: Path) -> None:
    """Train from the newest whole checkpoint to the end, or to a signal or an error that is worth a checkpoint."""
    trainer.remove_callback(PrinterCallback)
    resumed = processes.from_first(checkpoints.newest(folder / "checkpoints"))
    step = checkpoints.step_of(resumed) if resumed else 0
    if processes.is_first():
        record.cut(folder, step)
    if resumed:
        log.info("resuming after step %d", step)
    job = trainer.job
    try:
        with job.watch.work.told(lambda: f"step {trainer.state.global_step + 1}", _dials(job.spec, job.runtime)):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except (signals.Interrupted, TvgError) as stopped:
        told = isinstance(stopped, (signals.Interrupted, Broken))  # to all processes; any other error is of this one
        if told or processes.count() == 1:
            log.info("stopped in step %d (%s): saving", trainer.state.global_step + 1, type(stopped).__name__)
            trainer.save_now()
        raise


def _dials(spec: StageSpec, runtime: Runtime) -> str:
    """What to turn where memory is short, and what each is now."""

    def now(holder: object, *names: str) -> str:
        held = [(name, getattr(holder, name)) for name in names if hasattr(holder, name)]
        return ", ".join(f"{name} (now {str(value).lower()})" for name, value in held)

    of_all = ["shard_optimizer"] if processes.count() > 1 else []
    names = "rollouts_per_pass", "gradient_checkpointing", "generate_batch", "evaluate_batch", "policy"
    same = now(runtime, *of_all, *names)
    other = now(spec, "lora", "freeze_vision", "beta", "max_completion_tokens")
    other += f", {now(spec.data.frames.frames, 'total_pixels')} of the frames"
    return (
        f"turn in the scale's `runtime`, which changes no result: {same}; or make it another training: {other}; "
        "`tvg plan` says what each saves. The last whole step is kept in checkpoints/, and the next start goes on there"
    )


def _done(folder: Path) -> Path:
    """Drop what only a resumption needs, then say so: model.done comes last."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / "model.done").touch()
    return folder
