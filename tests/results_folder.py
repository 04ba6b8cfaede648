"""A results/{scale} as the workflow leaves it, of three experiments with several arms, for tests of what reads it."""

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tvg.sample import write_lines
from tvg.settings import EvaluateSettings, FramesSettings, Prompt, RewardSettings
from tvg.spec import (
    DatasetIdentity,
    DataSpec,
    EvaluationSpec,
    FramesSpec,
    GrpoSpec,
    SamplesSpec,
    ScratchModel,
    SftSpec,
    TrainedModel,
)
from tvg.store import Store, identify

BEGAN = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
IDENTITY = DatasetIdentity(name="mini", kind="mini", version=1)
FRAMES = FramesSpec(dataset=IDENTITY, frames=FramesSettings(total_pixels=301056), version=1)
PROMPT = Prompt(texts={"ground": "When does this happen: {query}"})
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f0005000101"
    "a2a5ee3d0000000049454e44ae426082"
)
ARMS = {  # edits of the grpo stage
    "invert4tvg": {"main": {}, "tvg_only": {"tasks": {"ground": 1.0}}, "cosine": {"beta": 0.01}},
    "time_r1": {"main": {"loss_type": "grpo"}, "finetune": {"loss_type": "grpo", "temperature": 0.9}},
    "tar_tvg": {"main": {"top_p": 0.9}, "one_anchor": {"top_p": 0.8}},
}
TASKS = {"ground": 0.8, "complete_verb": 0.1, "describe": 0.1}


def data(split: str) -> DataSpec:
    return DataSpec(samples=SamplesSpec(dataset=IDENTITY, split=split, verbs="standin", verbs_version=1), frames=FRAMES)


class World:
    """Builds a results/{scale} piece by piece; `full` builds it whole."""

    def __init__(self, root: Path, steps: int = 40, benchmarks: tuple[str, ...] = ("charades_test",)):
        self.root, self.store, self.steps, self.benchmarks = root, Store(root), steps, benchmarks
        scratch = ScratchModel(text={"hidden_size": 64}, vision={"hidden_size": 32})
        self.base = SftSpec(version=1, init=scratch, data=data("train"), prompt=PROMPT, seed=0, steps=steps)

    def full(self) -> "World":
        """zero_shot (trains nothing), then every arm. All start from the base; tar_tvg's arms share a second sft."""
        self.train(self.base)
        self.arm("zero_shot", "main", {}, self.base)
        for experiment, arms in ARMS.items():
            first = self.sft() if experiment == "tar_tvg" else self.base
            self.train(first)
            for arm, edits in arms.items():
                grpo = self.grpo(first, **edits)
                self.train(grpo)
                self.arm(experiment, arm, {"sft": first, "grpo": grpo} if first != self.base else {"grpo": grpo}, grpo)
        self.report()
        return self

    def sft(self) -> SftSpec:
        return self.base.model_copy(update={"init": TrainedModel(stage=self.base), "learning_rate": 1e-5})

    def grpo(self, first: SftSpec | None = None, **edits) -> GrpoSpec:
        settings = {"tasks": TASKS, "learning_rate": 2e-4, "steps": self.steps, "seed": 0} | edits
        rewards = {"tiou": RewardSettings(weight=1.0), "format": RewardSettings(weight=1.0)}
        return GrpoSpec(
            version=1,
            init=TrainedModel(stage=first or self.base),
            data=data("train"),
            prompt=PROMPT,
            rewards=rewards,
            versions={"reward.tiou": 1},
            **settings,
        )

    def evaluation(self, benchmark: str, model) -> EvaluationSpec:
        return EvaluationSpec(
            version=1,
            benchmark=benchmark,
            model=TrainedModel(stage=model),
            data=data("test"),
            prompt=PROMPT,
            settings=EvaluateSettings(),
            versions={},
        )

    def arm(self, experiment: str, arm: str, stages: dict, evaluated=None, seed: int = 0, score: bool = True) -> Path:
        """Write the pointer; evaluate `evaluated` on every benchmark."""
        evaluations = {name: self.evaluation(name, evaluated) for name in self.benchmarks} if evaluated else {}
        for spec in (*stages.values(), *evaluations.values()):
            self.store.freeze(spec)
        pointer = self.store.pointer(experiment, arm, seed)
        ids = {
            key: {name: identify(spec) for name, spec in specs.items()}
            for key, specs in (("stages", stages), ("evaluations", evaluations))
        }
        write_lines(pointer, [json.dumps({"experiment": experiment, "arm": arm, "seed": seed, **ids}, indent=1)])
        for spec in evaluations.values() if score else ():
            self.score(spec)
        return pointer

    def train(self, spec, steps: int | None = None, code: int | None = 0) -> Path:
        """The folder of a training after `steps`; code None: still running."""
        folder, steps = self.store.stage(spec), self.steps if steps is None else steps
        self.store.freeze(spec)
        write_lines(folder / "spec.json", [self.store.spec(identify(spec)).read_text()])
        write_lines(folder / "metrics.jsonl", [self.row(spec, step) for step in range(1, steps + 1)])
        ended = None if code is None else (BEGAN + timedelta(seconds=3 * steps)).isoformat()
        facts = {"started": BEGAN.isoformat(), "ended": ended, "exit": code, "steps": steps}
        facts |= {"host": "box", "device": "cpu, 2 threads", "commit": COMMIT, "dirty": False}
        write_lines(folder / "run.json", [json.dumps(facts)])
        if code == 0:
            (folder / "model.done").touch()
        return folder

    def row(self, spec, step: int, attempt: int = 0) -> str:
        """A line of metrics.jsonl; another attempt has other times and values."""
        chance = random.Random(f"{identify(spec)} {step} {attempt}")
        rise = 1 - math.exp(-step / 15)
        values = {f"train/rewards/{name}": rise * chance.uniform(0.9, 1) for name in ("tiou", "format")}
        values |= {"train/reward": 2 * rise, "train/loss": 0.1 / step, "train/grad_norm": chance.random()}
        return json.dumps({"step": step, "time": BEGAN.timestamp() + 3 * step + 1000 * attempt, **values})

    def score(self, spec: EvaluationSpec, rows: int = 120) -> Path:
        folder, chance = self.store.evaluation(spec), random.Random(identify(spec))
        level = 0.2 + 0.4 * chance.random()
        metrics = {"headline": "r1_at_0.5", "n": rows, "r1_at_0.5": level, "miou": level * 0.9, "legacy": None}
        metrics |= {"intervals": {"r1_at_0.5": [level - 0.02, level + 0.02]}, "start_offset": {"mean": -0.4}}
        metrics |= {"actions": {"describe": {"accuracy": 0.3, "n": 40}}}
        write_lines(folder / "predictions.jsonl", (self.prediction(k, chance) for k in range(rows)))
        write_lines(folder / "metrics.json", [json.dumps(metrics, indent=1)])
        return folder

    def prediction(self, number: int, chance: random.Random) -> str:
        start = chance.uniform(0, 10)
        predicted = [start, start + 4] if number % 10 else None
        completion = (
            f"<think>a | b\nc</think><answer>{start:.1f} to {start + 4:.1f}</answer>" if predicted else "no idea"
        )
        row = {"id": str(number), "video": f"{number}.mp4", "task": "ground", "query": "a person opens a door"}
        row |= {"segments": [[2.0, 7.0]], "duration": 20.0, "verbs": ["open"], "completion": completion}
        row |= {"predicted": predicted, "legacy": None, "format": True, "missing": None, "tokens": 20}
        return json.dumps(row)

    def report(self) -> None:
        lines = ["label,experiment,arm,status", "main,invert4tvg,main,run", "cosine,invert4tvg,cosine,run"]
        write_lines(self.root / "tables" / "invert4tvg_3.csv", lines)
        table = ["# Verb rewards", "", "| | R1@0.5 |", "| :-- | --: |", "| main | 41.2 |", "| cosine | 40.3 |"]
        write_lines(self.root / "tables" / "invert4tvg_3.md", table)
        write_lines(self.root / "report" / "all.html", ["<h1>Report</h1>"])
        (self.root / "plots" / "all").mkdir(parents=True)
        (self.root / "plots" / "all" / "curves.png").write_bytes(PIXEL)
