"""Groups a second of a GRPO training on 1, 2, ... GPUs, through the real trainer and `tvg train`'s own launcher.

    python benchmarks/scaling.py --gpus 1 2 --append benchmarks/results/scaling-h200.json
    python benchmarks/scaling.py --shape tiny --device cpu --gpus 1 2 --groups 4 --steps 2

Every number of GPUs makes the same steps: --groups groups, a KL term, the vision tower frozen, rollouts that do not end
(shapes.py), rewards that cost nothing, no checkpoints. Videos are noise of the shape's size; with --spread 0.3 they are
of 0.7 to 1.3 times its length, evenly. Of each run: `groups_per_second` over --steps steps after --warm ones,
`step_s` as each process sees it (`ranks`), the video tokens of each process's share of a step, `generate_s` of
each without waiting for the others, its peak memory; `speedup` over the first number of GPUs, `efficiency` a GPU.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from unittest import mock

import numpy as np
import torch
from record import Record, arguments, shortened
from shapes import SHAPES, Shape, policy_class

from tvg.model import scratch
from tvg.model.pixels import MERGE, PATCH, TEMPORAL
from tvg.model.policy import Policy
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import FramesSettings, Prompt, RewardSettings, Runtime
from tvg.spec import DatasetIdentity, DataSpec, FramesSpec, GrpoSpec, SamplesSpec
from tvg.store import Store
from tvg.train import checkpoints, grpo, inputs, processes, stage, watch
from tvg.train.launch import launch
from tvg.train.record import Metrics
from tvg.video.decode import Frames

FPS = 2.0
NOISE = DatasetIdentity(name="noise", kind="mini", version=1)
DATA = DataSpec(
    samples=SamplesSpec(dataset=NOISE, split="train"),
    frames=FramesSpec(dataset=NOISE, frames=FramesSettings(), version=1),
)
REWARDS = {"tiou": RewardSettings(weight=1.0)}


def specified(shape: Shape, options: argparse.Namespace) -> GrpoSpec:
    """The stage."""
    return GrpoSpec(
        version=1, init=shape.model, data=DATA, prompt=Prompt(texts={"ground": "Find the moment: {query}"}), seed=0,
        prompts_per_step=options.groups, num_generations=shape.group, max_completion_tokens=shape.new_tokens,
        steps=options.warm + options.steps, rewards=REWARDS, versions={},
    )  # fmt: skip


def drawn(shape: Shape, options: argparse.Namespace) -> tuple[list[Sample], dict[str, Frames]]:
    """A sample for each group of a step, and its video."""
    samples, frames = [], {}
    _, height, width = shape.grid
    for number, scale in enumerate(np.linspace(1 - options.spread, 1 + options.spread, options.groups)):
        count = TEMPORAL * max(1, round(shape.grid[0] * scale))
        size = (count, height * PATCH, width * PATCH, 3)
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        frames[f"{number}"] = Frames(pixels, np.arange(count) / FPS, FPS, count / FPS, "noise")
        samples.append(Sample(f"{number}", f"{number}", count / FPS, "a person runs " * 20, (Segment(0.1, 0.9),)))
    return samples, frames


def loaded(shape: Shape, options: argparse.Namespace, *, gradient_checkpointing: bool) -> Policy:
    """Random weights, drawn on the device, whose rollouts do not end."""
    with torch.device(options.device):
        torch.manual_seed(0)
        model, tokenizer = scratch.build(shape.model)
    torch.backends.cuda.enable_cudnn_sdp(False)  # as tvg.model.load
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    kind = policy_class(options.policy)
    with mock.patch.object(type(tokenizer), "convert_tokens_to_ids", return_value=None):
        tokenizer.eos_token, end = None, tokenizer.eos_token
        policy = kind(model, tokenizer)
    tokenizer.eos_token = end
    return policy


def train(options: argparse.Namespace) -> None:
    """What each process does; leaves ranks/<rank>.json."""
    shape, folder, moments, generating = SHAPES[options.shape], options.worker, [], []
    samples, frames = drawn(shape, options)
    begin, generate = watch.Watch.on_step_begin, policy_class(options.policy).generate

    def on_step_begin(self, *event, **more):
        moments.append(time.perf_counter())
        return begin(self, *event, **more)

    def generated(self, *args, **more):
        began = time.perf_counter()
        found = generate(self, *args, **more)  # ends with tokens on the CPU: there is nothing to wait for
        generating.append(time.perf_counter() - began)
        return found

    def read(*_):
        return samples, frames

    def load_policy(*_, gradient_checkpointing, **_unused):
        return loaded(shape, options, gradient_checkpointing=gradient_checkpointing)

    runtime = Runtime(policy=options.policy, rollouts_per_pass=options.rows or shape.group, fixed_set_every=0)
    with (
        mock.patch.object(inputs, "read", read),
        mock.patch.object(stage, "load", load_policy),
        mock.patch.object(stage, "save"),
        mock.patch.object(checkpoints.WholeCheckpoints, "_save_checkpoint"),
        mock.patch.object(grpo, "score", scored),
        mock.patch.object(watch.Watch, "on_step_begin", on_step_begin),
        mock.patch.object(policy_class(options.policy), "generate", generated),
        processes.joined(options.device),
    ):
        grpo.train(specified(shape, options), Store(folder), runtime, options.device)
        share = stage.balance.turns(
            options.groups, options.groups, processes.count(), lambda place: frames[samples[place].video].pixels.size
        )[processes.rank()]
        pixels = sum(frames[samples[place].video].pixels.size for place in share)
        steps = np.diff(moments[options.warm :]).tolist()
        told = {
            "step_s": [shortened(seconds) for seconds in steps],
            "generate_s": shortened(sum(generating[options.warm :]) / options.steps),
            "video_tokens": pixels // (3 * (PATCH * MERGE) ** 2 * TEMPORAL),
            "peak_gb": shortened(torch.cuda.max_memory_allocated() / 1e9) if options.device != "cpu" else None,
        }
        (folder / f"{processes.rank()}.json").write_text(json.dumps(told))


def scored(rewards, rollout, *_):
    """Some reward or other: equal ones would teach nothing."""
    return {name: hashlib.sha256(rollout.completion.encode()).digest()[0] / 255 for name in rewards}


def measured(gpus: int, options: argparse.Namespace) -> dict:
    """A run of its own, in `gpus` processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", folder]
        for name in ("shape", "device", "policy", "groups", "steps", "warm", "spread", "rows"):
            if getattr(options, name) is not None:
                command += [f"--{name}", str(getattr(options, name))]
        if status := launch(command, gpus):
            raise RuntimeError(f"the training on {gpus} GPUs ended with {status}, and has said why")
        spec = specified(SHAPES[options.shape], options)
        rows = Metrics(Store(folder).stage(spec)).rows()[options.warm - 1 :]
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(gpus)]
    seconds = rows[-1]["time"] - rows[0]["time"]
    return {
        "gpus": gpus,
        "groups_per_second": shortened(options.groups * options.steps / seconds),
        "step_s": shortened(seconds / options.steps),
        "generate_s": shortened(fmean(row["train/generate_seconds"] for row in rows[1:])),
        "length": shortened(fmean(row["train/length"] for row in rows[1:])),
        "ranks": ranks,
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__)
    options.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="numbers of GPUs, each a run")
    options.add_argument("--groups", type=int, default=8, help="prompts of a step, on all GPUs together")
    options.add_argument("--steps", type=int, default=4, help="that are timed")
    options.add_argument("--warm", type=int, default=2, help="steps before them, at least one")
    options.add_argument(
        "--spread", type=float, default=0.0, help="of the videos' lengths around the shape's, in [0, 1)"
    )
    options.add_argument("--rows", type=int, help="rollouts of a forward-backward pass (default: of one group)")
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = options.parse_args(argv)
    if options.worker:
        train(options)
        return 0
    record = Record("scaling", options)
    keys = ("shape", "groups", "steps", "warm", "spread", "policy")
    record.add(settings={key: getattr(options, key) for key in keys}, lengths=SHAPES[options.shape].lengths, runs=[])
    for gpus in options.gpus:
        with record.part(f"on {gpus}"):
            runs = [*record.values["runs"], measured(gpus, options)]
            for run in runs:
                run["speedup"] = shortened(run["groups_per_second"] / runs[0]["groups_per_second"])
                run["efficiency"] = shortened(run["speedup"] * runs[0]["gpus"] / run["gpus"])
            record.add(runs=runs)
    return record.end()


if __name__ == "__main__":
    sys.exit(main())
