"""A store with a tiny model, tiny drawn videos in a real frame cache, and specs over them, for tests of training."""

import atexit
import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tvg.datasets import mini
from tvg.model import load, scratch
from tvg.sample import Sample, write_samples
from tvg.segment import Segment
from tvg.settings import FramesSettings, Prompt, RewardSettings, Runtime
from tvg.spec import (
    DatasetIdentity,
    DataSpec,
    FramesSpec,
    GrpoSpec,
    SamplesSpec,
    ScratchModel,
    SftSpec,
)
from tvg.store import Store
from tvg.video.cache import write_shard

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "window_size": 56}
IDENTITY = DatasetIdentity(name="toy", kind="mini", version=1)
SIDE, SECONDS, FPS, VIDEOS = 56, 8, 2, 6
DATA = DataSpec(
    samples=SamplesSpec(dataset=IDENTITY, split="train", verbs="standin", verbs_version=1),
    frames=FramesSpec(dataset=IDENTITY, frames=FramesSettings(min_pixels=SIDE**2, max_pixels=SIDE**2), version=1),
)
PROMPT = Prompt(
    texts={
        "ground": "Find the moment: {query}",
        "complete_verb": "Fill in the missing verb: {masked}",
        "recognise_action": "Use one verb to describe the event in the video.",
        "describe": "Describe what the person in the video does.",
    }
)
COMMON = {"version": 1, "init": ScratchModel(text=TEXT, vision=VISION), "data": DATA, "prompt": PROMPT, "seed": 0}
QUICK = Runtime(gradient_checkpointing=False, save_every=2, fixed_set_every=0)


def sft_spec(**settings) -> SftSpec:
    return SftSpec(**{**COMMON, "batch": 4, "steps": 3, "learning_rate": 1e-3, **settings})


def grpo_spec(**settings) -> GrpoSpec:
    rewards = {
        "format": RewardSettings(weight=1.0),
        "tiou": RewardSettings(weight=1.0),
        "verbs": RewardSettings(weight=1.0),
    }
    defaults = {
        "prompts_per_step": 2,
        "num_generations": 4,
        "max_completion_tokens": 8,
        "steps": 3,
        "learning_rate": 1e-3,
        "rewards": rewards,
        "versions": {},
    }
    return GrpoSpec(**{**COMMON, **defaults, **settings})


def make_store(root: Path, without_frames: int = 0, verbless: int = 0, count: int = VIDEOS) -> Store:
    """A store with `count` samples, each of its own video; the last `without_frames` have none in the cache."""
    store = Store(root / "results", root / "data")
    samples = [
        Sample(
            id=f"toy-{n}",
            video=f"toy-{n}.mp4" if n < count - without_frames else f"absent-{n}.mp4",
            duration=float(SECONDS),
            query="a person runs.",
            segments=(Segment(2.1, 5.4),),
            verbs=() if n < verbless else ("run",),
            masked="a person [].",
        )
        for n in range(count)
    ]
    write_samples(store.samples(DATA.samples), samples)
    shutil.copytree(_decoded(), store.frames(DATA.frames))
    return store


@cache
def _decoded() -> Path:
    """A frame cache of VIDEOS small videos, drawn, encoded and decoded once a session."""
    root = Path(tempfile.mkdtemp(prefix="tvg-training-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    names = [f"toy-{n}.mp4" for n in range(VIDEOS)]
    for number, name in enumerate(names):
        _draw(root / name, number)
    write_shard(root / "frames" / "00-of-01.json", names, DATA.frames.frames, 1, root)
    return root / "frames"


def _draw(path: Path, number: int) -> None:
    """A square that moves over noise, its own way in each video."""
    rng, pictures = np.random.default_rng(number), []
    for k in range(SECONDS * FPS):
        picture = rng.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
        x = (5 * k + 7 * number) % (SIDE - 16)
        picture[20:36, x : x + 16] = 255
        pictures.append(picture.repeat(2, 0).repeat(2, 1))
    path.write_bytes(mini.encode(pictures, FPS, 2 * SIDE, crf=18))


def same_rows(rows: list[dict]) -> list[dict]:
    """Metrics without what depends on the clock."""
    rate = "train/tokens_per_second"
    return [{k: v for k, v in row.items() if k not in ("time", rate) and not k.endswith("seconds")} for row in rows]


def weights_of(folder: Path) -> dict:
    """The saved weights of a stage, under the library's names."""
    return load.read(folder / "model", torch.float32)[0].state_dict()


def untrained(spec) -> dict:
    """The weights that a spec starts from."""
    return scratch.build(spec.init)[0].state_dict()


def frozen(name: str) -> bool:
    return "visual." in name and "merger." not in name


def graded(rewards, rollout, contract, extractor) -> dict[str, float]:
    """Stands in for tvg.rewards.score: a random model writes no answer, and without variance nothing is learnt."""
    return {name: int(hashlib.sha256((name + rollout.completion).encode()).hexdigest(), 16) % 3 / 2 for name in rewards}
