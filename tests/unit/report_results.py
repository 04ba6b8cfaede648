"""A results folder of one scale that a test fills itself: runs with seeds, trainings, and arms that were not run."""

import json
import random
from pathlib import Path

from tvg.evaluate import metrics
from tvg.settings import EvaluateSettings, FramesSettings, Prompt, RewardSettings
from tvg.spec import (
    DatasetIdentity,
    DataSpec,
    EvaluationSpec,
    Floor,
    FramesSpec,
    GrpoSpec,
    HubModel,
    SamplesSpec,
    ScratchModel,
    TrainedModel,
)
from tvg.store import Store, identify

ANSWER = "<think>It starts at {0:.2f} and ends at {1:.2f}.</think> <answer>{0:.2f} to {1:.2f}</answer>"


class Results:
    """A results folder of one scale: add(experiment, arm, seed, noise) is one finished run."""

    def __init__(self, root: Path, kind: str = "mini", videos: int = 30):
        self.store, self.videos = Store(root), videos
        dataset = DatasetIdentity(name="drawn" if kind == "mini" else "charades_sta", kind=kind, version=1)
        frames = FramesSpec(dataset=dataset, frames=FramesSettings(), version=1)
        self.data = DataSpec(samples=SamplesSpec(dataset=dataset, split="test"), frames=frames)
        self.prompt = Prompt(texts={"ground": "When does {query} happen?"})
        own = ScratchModel(text={"hidden_size": 64}, vision={})
        self.base = own if kind == "mini" else HubModel(hub="Qwen/Qwen2.5-VL-3B-Instruct", revision="main")

    def add(
        self, experiment, arm="main", seed=0, noise=1.0, missing=0, floor=False, steps=60,
        benchmarks=("charades_test",), rewards=None,
    ):  # fmt: skip
        stages, model = {}, Floor(floor="whole_video") if floor else self.base
        if steps and not floor and experiment != "zero_shot":
            rewards = rewards or {"tiou": RewardSettings(weight=1.0), "format": RewardSettings(weight=1.0)}
            spec = GrpoSpec(
                version=1,
                init=self.base,
                data=self.data,
                prompt=self.prompt,
                rewards=rewards,
                versions={"arm": len(arm)},
                seed=seed,
                learning_rate=1e-6 * (1 + hash_of(experiment, arm)),
            )
            stages, model = {"grpo": identify(spec)}, TrainedModel(stage=spec)
            self._train(spec, noise, steps)
        versions, evaluations = {"run": hash_of(experiment, arm, seed)}, {}
        for benchmark in benchmarks:
            spec = EvaluationSpec(
                version=1,
                benchmark=benchmark,
                model=model,
                data=self.data,
                prompt=self.prompt,
                versions=versions,
                settings=EvaluateSettings(),
            )
            evaluations[benchmark] = self.store.freeze(spec)
            chance = random.Random(hash_of(arm, seed))
            self._predict(self.store.evaluation(spec), noise, missing, floor, chance)
        pointer = {"experiment": experiment, "arm": arm, "seed": seed, "stages": stages, "evaluations": evaluations}
        write_json(self.store.pointer(experiment, arm, seed), pointer)
        return self.store.evaluation(evaluations[benchmarks[0]])

    def _predict(self, folder, noise, missing, floor, rng):
        truth, rows = random.Random(0), []
        for k in range(self.videos * 3):
            start, length = truth.uniform(0, 18), truth.uniform(3, 10)
            guess = [max(0.0, start + rng.gauss(0, noise)), start + length + rng.gauss(0, noise)]
            lost, said = k // 3 < missing, rng.random() > 0.03 * noise
            rows.append(
                {
                    "id": f"q{k}",
                    "video": f"clip{k // 3:03d}.mp4",
                    "task": "ground",
                    "query": f"the red square moves <{k}>",
                    "segments": [[start, start + length]],
                    "duration": 30.0,
                    "verbs": None,
                    "legacy": None,
                    "tokens": 40,
                    "completion": None if lost or floor else ANSWER.format(*guess) if said else "I cannot tell.",
                    "predicted": None if lost or not said else guess,
                    "format": said and not lost and not floor,
                    "missing": "file not found" if lost else None,
                }
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        scores = metrics.score(rows)
        if not floor:
            scores["actions"] = {
                t: {"accuracy": 0.5, "n": 9} for t in ("complete_verb", "recognise_action", "describe")
            }
            scores["intervals"] |= {t: [0.4, 0.6] for t in scores["actions"]}
        write_json(folder / "metrics.json", scores)
        if not floor:
            write_json(folder / "run.json", {"seconds": 45.0, "queries": 90, "tokens": 3600, "device": "cpu"})
        lost = [row for row in rows if row["missing"]]
        (folder / "missing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lost))

    def _train(self, spec, noise, steps):
        folder, rng = self.store.stage(spec), random.Random(7)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "step": s,
                "time": 1e9 + 4 * s,
                "train/reward": 1.6 - 1.1 * 0.97**s - 0.1 * noise + rng.gauss(0, 0.08),
                "train/rewards/tiou": 0.7 - 0.6 * 0.97**s + rng.gauss(0, 0.05),
                "train/rewards/format": 1 - 0.7 * 0.9**s,
                "train/reward_std": 0.3 * 0.99**s + rng.gauss(0, 0.02),
                "train/step_seconds": 4.0,
                "train/length": 60 - 0.2 * s + rng.gauss(0, 3),
                "train/loss": rng.gauss(0, 0.01),
                "train/grad_norm": abs(rng.gauss(1, 0.3)),
            }
            for s in range(1, steps + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6')
        write_json(
            folder / "run.json",
            {
                "started": "2026-11-20T10:00:00",
                "ended": "2026-11-20T10:04:00",
                "exit": 0,
                "host": "node1",
                "device": "cpu",
                "precision": "float32",
                "policy": "plain",
                "versions": {"torch": "2.13"},
                "commit": "0123456789abcdef",
                "dirty": True,
                "seconds": 240.5,
                "peak_memory_gb": 1.25,
                "steps": steps,
            },
        )


def hash_of(*parts) -> int:
    """The same number on every run, unlike hash()."""
    return sum(ord(c) * (i + 1) for i, c in enumerate("/".join(map(str, parts))))


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def filled(folder: Path) -> Results:
    """Base, floors and trained runs; two seeds of Invert4TVG; most arms not run."""
    found = Results(folder / "results" / "mini")
    found.add("zero_shot", noise=6)
    found.add("zero_shot", "whole_video", noise=9, floor=True)
    found.add("time_r1", "finetune", noise=3)
    for seed in (0, 1):
        found.add("invert4tvg", seed=seed, noise=2)
    found.add("invert4tvg", "tvg_only", noise=3, missing=2)
    found.add("invert4tvg", "ground_0.8", noise=2)
    found.add("invert4tvg", "ground_1.0", noise=3)
    return found
