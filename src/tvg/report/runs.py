"""What has been run at one scale: pointers, metrics, predictions and how each number was made."""

import json
import logging
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tvg.errors import TvgError
from tvg.evaluate.predictions import read_predictions
from tvg.rewards.similarity import similarity
from tvg.settings import Closed
from tvg.spec import (
    EvaluationSpec,
    Floor,
    ScratchModel,
    StageSpec,
    TrainedModel,
    digest,
)
from tvg.store import Store, identify, read_spec

log = logging.getLogger(__name__)

YIELD, SIMILARITY = "yield", "cosine of run and eat"
OF_SOME = (YIELD, SIMILARITY)  # facts that most rows do not have
BASE = "base"  # a training of another experiment's, that a run starts from


@dataclass(frozen=True)
class Pointer:
    """One planned run of one arm: names -> ids in the store."""

    experiment: str
    arm: str
    seed: int
    stages: dict[str, str]
    evaluations: dict[str, str]


@dataclass(frozen=True)
class Scored:
    """One evaluation that has been scored; own: the stages of the arm that asks for it."""

    store: Store
    ident: str
    seed: int
    metrics: dict
    own: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        return self.store.evaluation(self.ident)

    @cached_property
    def predictions(self) -> list[dict]:
        """Its rows; [] where only the metrics were brought here."""
        path = self.folder / "predictions.jsonl"
        return read_predictions(path) if path.exists() else []

    @cached_property
    def spec(self) -> EvaluationSpec | None:
        return read_evaluation(self.store, self.ident)

    @cached_property
    def run(self) -> dict:
        """Its run.json; {} where nothing was run, or on another machine."""
        return read_json(self.folder / "run.json") or {}

    @cached_property
    def trainings(self) -> "list[Training]":
        """The arm's trainings that its weights come from, last first; that of a base model is none of them."""
        folders = [self.store.stage(stage) for stage in stages(self.spec) if identify(stage) in self.own]
        return [Training(folder, []) for folder in folders]


@dataclass(frozen=True)
class Training:
    """One trained stage, and what asks for it: (experiment, arm, seed, name of the stage there)."""

    folder: Path
    used: list[tuple[str, str, int, str]]

    @cached_property
    def history(self) -> list[dict]:
        """The rows of its metrics.jsonl."""
        return list(read_rows(self.folder / "metrics.jsonl"))

    @cached_property
    def run(self) -> dict:
        """Its run.json; {} where it is not here."""
        return read_json(self.folder / "run.json") or {}

    def logged(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of every step that logged `key`."""
        return [(row["step"], row[key]) for row in self.history if row.get(key) is not None]


def trainings(root: Path, arms: Container[tuple[str, str]]) -> list[Training]:
    """Every training that runs of these (experiment, arm) stand on, each once, what they start from included."""
    store, used = Store(root), {}
    for path in sorted(root.glob("*/*/seed-*.json")):
        pointer = read_pointer(path)
        if pointer is None or (pointer.experiment, pointer.arm) not in arms:
            continue
        names = {ident: name for name, ident in pointer.stages.items()}
        for evaluation in pointer.evaluations.values():
            names = {identify(stage): BASE for stage in stages(read_evaluation(store, evaluation))} | names
        for ident, name in names.items():
            used.setdefault(ident, []).append((pointer.experiment, pointer.arm, pointer.seed, name))
    return [Training(store.stage(ident), found) for ident, found in used.items()]


def read_pointer(path: Path) -> Pointer | None:
    found = read_json(path)
    return Pointer(**found) if found else None


def read_evaluation(store: Store, ident: str) -> EvaluationSpec | None:
    """How an evaluation is made; None where its spec was not brought here."""
    try:
        return read_spec(EvaluationSpec, store.spec(ident))
    except TvgError as error:
        log.warning("no protocol to print: %s", error)
        return None


def scored(root: Path, experiment: str, arm: str, benchmark: str) -> list[Scored]:
    """The scored evaluations of one arm on one benchmark, one a seed; what is not there yet is left out."""
    store = Store(root)
    found = []
    for path in (root / experiment / arm).glob("seed-*.json"):
        pointer = read_pointer(path)
        ident = pointer.evaluations.get(benchmark) if pointer else None
        metrics = read_json(store.evaluation(ident) / "metrics.json") if ident else None
        if metrics:
            found.append(Scored(store, ident, pointer.seed, metrics, frozenset(pointer.stages.values())))
    return sorted(found, key=lambda one: one.seed)


def read_json(path: Path) -> dict | None:
    """None where the file is absent or not JSON: a report is made of what there is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: not readable (%s)", path, error)
        return None


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a metrics.jsonl; a line cut short by a crash is skipped and said."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError:
            log.warning("%s:%d: not JSON, skipped", path, number)


# ---------------------------------------------------------------- how a number was made


def protocol(one: Scored) -> dict[str, str]:
    """What a reader must know to compare: prompt, frames, decoding, parser, weights. Floors have the data only."""
    spec = one.spec
    if spec is None:
        return {}
    frames, data = spec.data.frames.frames, spec.data.samples
    drawn = " (drawn videos)" if data.dataset.kind == "mini" else ""
    facts = {"data": f"{data.dataset.name} {data.split}{drawn}, {one.metrics['n']} queries"}
    if isinstance(spec.model, Floor):
        return facts
    legacy = f", {spec.prompt.answer.legacy} beside it in metrics.json" if spec.prompt.answer.legacy else ""
    return facts | {
        "base": origin(spec.model),
        "prompt": f"{digest(spec.prompt)} (format check {spec.prompt.answer.format})",
        "frames": f"{frames.fps:g} a second, at most {frames.max_frames}, {frames.total_pixels:,} pixels of budget",
        "decoding": f"greedy, at most {spec.settings.max_completion_tokens} tokens",
        "parser": f"strict_answer{legacy}",
        **_chosen(one),
        **_similar(spec),
        **provenance(one),
    }


def _chosen(one: Scored) -> dict[str, str]:
    """How much of their data the data stages have kept that the trainings stand on, first stage first."""
    said = []
    for stage in stages(one.spec):
        made = stage.data.made_by
        while made:
            report = read_json(one.store.stage(made) / "report.json")
            if report and report["read"]:
                share = 100 * report["kept"] / report["read"]
                passed = report.get("passed", report["kept"])
                filled = f", of which {passed:,} pass its thresholds" if passed < report["kept"] else ""
                said.append(f"{made.kind} kept {report['kept']:,} of {report['read']:,} ({share:.1f} %){filled}")
            made = made.data.made_by
    return {YIELD: ", then ".join(reversed(said))} if said else {}


def _similar(spec: EvaluationSpec) -> dict[str, str]:
    """What the vectors behind a cosine of verbs are worth: the paper quotes one number (systems.md 8, row 14)."""
    rewards = [getattr(stage, "rewards", {}).get("verbs") for stage in stages(spec)]
    if not any(reward and reward.match == "cosine" for reward in rewards):
        return {}
    return {SIMILARITY: f"{similarity('run', 'eat'):.2f}, where the paper quotes 0.2"}


def provenance(one: Scored) -> dict[str, str]:
    """Where the evaluation and the stages it stands on were run: values that differ are joined."""
    runs = [one.run, *(read_json(one.store.stage(stage) / "run.json") for stage in stages(one.spec))]
    runs = [run for run in runs if run]
    commits = [
        f"{run['commit'][:10]}{' with uncommitted edits' if run.get('dirty') else ''}"
        for run in runs
        if run.get("commit")
    ]
    found = {
        "commit": commits,
        **{key: [run[key] for run in runs if run.get(key)] for key in ("device", "precision", "policy")},
    }
    return {key: ", ".join(dict.fromkeys(map(str, values))) for key, values in found.items() if values}


def stages(spec: EvaluationSpec | None) -> Iterable[StageSpec]:
    """The trainings that the evaluated weights come from, last first."""
    model = spec.model if spec else None
    while isinstance(model, TrainedModel):
        yield model.stage
        model = model.stage.init


def origin(model: Closed) -> str:
    """The weights at the root of a model, in words."""
    match model := _root(model):
        case ScratchModel():
            return f"own model of width {model.text.get('hidden_size', '?')}, from random weights"
        case Floor():
            return "no model"
        case _:
            return getattr(model, "hub", None) or model.path


def reductions(one: Scored) -> list[str]:
    """In what an evaluation is smaller than a paper's; empty only for outside weights on all of a real benchmark."""
    spec = one.spec
    if spec is None:
        return ["unknown protocol"]
    own = not isinstance(spec.model, Floor) and isinstance(_root(spec.model), ScratchModel)
    return [
        *(["own model"] if own else []),
        *(["drawn videos"] if spec.data.samples.dataset.kind == "mini" else []),
        *([f"first {spec.data.limit} queries"] if spec.data.limit else []),
        *(["LoRA"] if any(stage.lora for stage in stages(spec)) else []),
        *(f"{stage.kind.upper()} of {stage.steps} steps" for stage in stages(spec) if stage.steps),
    ]


def _root(model: Closed) -> Closed:
    while isinstance(model, TrainedModel):
        model = model.stage.init
    return model
