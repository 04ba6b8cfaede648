"""GRPO steps a second at mini scale, through the real trainer: 16 groups of 8, drawn videos, the shipped configuration.

    python benchmarks/mini.py --append benchmarks/results/mini-h200.json
    python benchmarks/mini.py --policy plain --device cpu --groups 2 --generations 2 --tokens 8 --steps 2 --videos 4

Draws --videos of the mini data set into a temporary folder, with `tvg download`, `annotations`, `tasks` and `cache`,
and trains the `grpo` stage of time_r1-main (a KL term, the vision tower frozen) twice, without checkpoints: once to
take the time (`steps_per_s`, from metrics.jsonl, the first --warm steps left out), once to see where it goes, waiting
for the GPU around each part (`profile_ms`, of a step; `rest` is what no part covers). Without --weights the model is
random and its rollouts do not end: every one is --tokens long, which a trained model's are not (`length`: the mean).
"""

import os
import sys
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from unittest import mock

from accelerate import Accelerator
from record import Record, arguments, shortened, wait
from shapes import policy_class
from torch.optim import AdamW

from tvg import cli
from tvg.plan import Plan
from tvg.settings import Runtime
from tvg.spec import DataSpec, GrpoSpec, Model, PathModel, TrainedModel
from tvg.store import Store, identify
from tvg.train import grpo, inputs
from tvg.train.record import Metrics

CONFIG = Path(__file__).resolve().parents[1] / "config"
EVERY = 1 << 20  # steps: never


def planned(options: Namespace) -> GrpoSpec:
    """The stage as shipped, of the sizes asked for."""
    plan = Plan.load({"scale": "mini", "experiments": ["time_r1-main"]}, CONFIG)
    stage = plan.runs["time_r1", "main", 0].stages["grpo"]
    sizes = {
        "init": PathModel(path=str(options.weights)) if options.weights else untrained(stage.init),
        "data": fewer(stage.data, options.videos),
        "prompts_per_step": options.groups,
        "num_generations": options.generations,
        "max_completion_tokens": options.tokens,
        "steps": options.warm + options.steps,
    }
    return stage.model_copy(update=sizes)


def untrained(model: Model) -> Model:
    """The random weights that a trained model began as."""
    while isinstance(model, TrainedModel):
        model = model.stage.init
    return model


def fewer(data: DataSpec, videos: int) -> DataSpec:
    """The same data with `videos` training videos, the first of the shipped ones, and next to none to evaluate on."""
    identity = data.samples.dataset
    splits = dict.fromkeys(identity.settings["splits"], 1) | {data.samples.split: videos}
    smaller = identity.model_copy(update={"settings": identity.settings | {"splits": splits}})
    return data.model_copy(
        update={
            "samples": data.samples.model_copy(update={"dataset": smaller}),
            "frames": data.frames.model_copy(update={"dataset": smaller}),
        }
    )


def prepare(data: DataSpec, store: Store, processes: int) -> None:
    """Draw the videos, read their annotations, find the verbs, decode the frames: as the workflow's jobs do."""
    jobs = ["--data", str(store.data), "--jobs", str(processes)]
    read = data.samples.model_copy(update={"verbs": None, "verbs_version": None})
    verbs = [("tasks", data.samples, [])] if data.samples.verbs else []
    for verb, spec, more in (
        ("download", data.samples.dataset, jobs),
        ("annotations", read, jobs),
        *verbs,
        ("cache", data.frames, [*jobs, "--shard", "0", "--of", "1"]),
    ):
        store.freeze(spec)
        if cli.main([verb, str(store.spec(identify(spec))), *more]):
            raise RuntimeError(f"tvg {verb} failed, and has said why")


class Profile:
    """Seconds of every call of the parts of a step, while it is on; a call waits for the GPU before and after."""

    def __init__(self, policy: type):
        self.calls: list[tuple[str, float, float]] = []  # part, when it began, seconds
        self.parts = {
            "contexts": (inputs.Ahead, "__call__"),
            "generate": (policy, "generate"),
            "rewards": (grpo.VideoGrpo, "_calculate_rewards"),
            "score": (policy, "score"),
            "backward": (Accelerator, "backward"),
            "optimizer": (AdamW, "step"),
        }

    @contextmanager
    def on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for part, (owner, name) in self.parts.items():
                stack.enter_context(mock.patch.object(owner, name, self._noting(part, getattr(owner, name))))
            yield

    def _noting(self, part: str, call: Callable) -> Callable:
        def noted(*args: object, **options: object) -> object:
            wait()
            at, began = time.time(), time.perf_counter()
            result = call(*args, **options)
            wait()
            self.calls.append((part, at, time.perf_counter() - began))
            return result

        return noted

    def since(self, moment: float) -> dict[str, float]:
        """Seconds of each part, of the calls after a moment of the clock."""
        found: dict[str, float] = defaultdict(float)
        for part, at, seconds in self.calls:
            found[part] += seconds if at > moment else 0.0
        return found


def trained(spec: GrpoSpec, store: Store, options: Namespace) -> list[dict]:
    """Train, and return the rows of metrics.jsonl from the last step of the warm-up on."""
    rows = options.groups * options.generations
    runtime = Runtime(
        policy=options.policy, compile=options.compile, rollouts_per_pass=options.rows or rows, generate_batch=rows,
        gradient_checkpointing=False, save_every=EVERY, fixed_set_every=0,
    )  # fmt: skip
    return Metrics(grpo.train(spec, store, runtime, options.device)).rows()[options.warm - 1 :]


def profiled(spec: GrpoSpec, store: Store, options: Namespace) -> dict[str, float]:
    """Milliseconds of each part of a step. Another seed: the same stage again would find its weights there."""
    profile = Profile(policy_class(options.policy))
    with profile.on():
        rows = trained(spec.model_copy(update={"seed": spec.seed + 1}), store, options)
    found = profile.since(rows[0]["time"])
    found["rest"] = rows[-1]["time"] - rows[0]["time"] - sum(found.values())
    return {part: shortened(1000 * seconds / options.steps) for part, seconds in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__)
    options.add_argument("--weights", type=Path, help="a trained mini model's folder (default: random weights)")
    options.add_argument("--groups", type=int, default=16, help="prompts of a step")
    options.add_argument("--generations", type=int, default=8, help="rollouts of a group")
    options.add_argument("--tokens", type=int, default=160, help="that a rollout is cut off at; mini's own: 160")
    options.add_argument("--rows", type=int, help="rollouts of a forward-backward pass (default: all of the step)")
    options.add_argument("--steps", type=int, default=20, help="that are timed")
    options.add_argument("--warm", type=int, default=5, help="steps before them, at least one")
    options.add_argument("--videos", type=int, default=32, help="to draw; each has two or three queries")
    options = options.parse_args(argv)
    record, spec = Record("mini", options), planned(options)
    keys = ("groups", "generations", "tokens", "steps", "warm", "videos", "policy", "compile")
    record.add(settings={key: getattr(options, key) for key in keys}, trained=bool(options.weights))
    record.add(steps_per_s=None, length=None, profile_ms=None)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results" / "mini", Path(folder) / "data")
        with record.part("drawing and decoding videos"):
            prepare(spec.data, store, min(options.videos, os.cpu_count() or 1))
            with record.part("training, against the clock"):
                rows = trained(spec, store, options)
                record.add(steps_per_s=shortened(options.steps / (rows[-1]["time"] - rows[0]["time"])))
                record.add(length=shortened(fmean(row["train/length"] for row in rows[1:])))
            with record.part("training, part by part"):
                record.add(profile_ms=profiled(spec, store, options))
    return record.end()


if __name__ == "__main__":
    sys.exit(main())
