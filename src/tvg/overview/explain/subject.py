"""What is being explained: one arm at one scale, as its file writes it, as the scale resizes it, and as it resolves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tvg.arms import MAIN
from tvg.config import Experiment, StageOf, StageSource
from tvg.overview.sources import sources
from tvg.resolve import Resolver, Run
from tvg.spec import (
    DataSpec,
    DataStageSpec,
    EvaluationSpec,
    Floor,
    HubModel,
    Model,
    PathModel,
    ScratchModel,
    StageSpec,
)
from tvg.store import Store


@dataclass(frozen=True)
class Subject:
    """An experiment's arm, and who resolves it. `unsized` resolves at a copy of the scale that resizes nothing."""

    resolver: Resolver
    unsized: Resolver
    name: str
    arm: str

    @classmethod
    def of(cls, text: str, resolver: Resolver) -> "Subject":
        """`EXPERIMENT[-ARM]` at the resolver's scale, or at the first one that it exists at."""
        name, arm = resolver.named(text)
        if not resolver.exists_here(name, arm):
            here = resolver.experiment(name, arm).scales[0]
            resolver = Resolver(resolver.config.model_copy(update={"scale": here}), resolver.folder)
        unsized = Resolver(resolver.config, resolver.folder)
        unsized.scale = unsized.scale.model_copy(update={"set": {}})
        return cls(resolver, unsized, name, arm)

    @property
    def title(self) -> str:
        return self.name if self.arm == MAIN else f"{self.name}-{self.arm}"

    @property
    def scale(self) -> str:
        return self.resolver.config.scale

    @property
    def file(self) -> Path:
        return self.resolver.folder / "experiments" / f"{self.name}.yaml"

    @cached_property
    def experiment(self) -> Experiment:
        """With the scale's sizes."""
        return self.resolver.experiment(self.name, self.arm)

    @cached_property
    def written(self) -> Experiment:
        """With the sizes that the file writes."""
        return self.unsized.experiment(self.name, self.arm)

    @cached_property
    def main(self) -> Experiment:
        """The main arm, with the sizes that the file writes."""
        return self.unsized.experiment(self.name, MAIN)

    @cached_property
    def edits(self) -> Mapping[str, Any]:
        """Dotted path -> value, as the arm writes them."""
        return {} if self.arm == MAIN else self.resolver.read_raw(self.name)["arms"][self.arm] or {}

    @cached_property
    def run(self) -> Run:
        """Under the first configured seed."""
        return self.resolver.run(self.name, self.arm, self.resolver.config.seeds[0])

    @cached_property
    def stages(self) -> dict[str, StageSpec | DataStageSpec]:
        """The stages that make what is evaluated, in order, without those that only happen to equal one."""
        order: list[str] = []

        def visit(name: str | None) -> None:
            if name in self.experiment.stages and name not in order:
                visit(self.model_of(name))
                visit(self.experiment.stages[name].data)
                order.append(name)

        visit(self.experiment.evaluate)
        return {name: self.run.stages[name] for name in order}

    def model_of(self, stage: str) -> str | None:
        """The name of the model that a stage starts from, asks, or takes the rollouts of."""
        told = self.experiment.stages[stage]
        return told.init if isinstance(told, StageSource) else told.model

    @cached_property
    def lineage(self) -> list[str]:
        """The trainings of what is evaluated, from the first to the last; the other stages make data for them."""
        names, name = [], self.experiment.evaluate
        while name in self.experiment.stages:
            names.insert(0, name)
            name = self.experiment.stages[name].init
        return names

    @property
    def evaluated(self) -> EvaluationSpec:
        """On the first benchmark; the others ask the same of the same model."""
        return next(iter(self.run.evaluations.values()))

    @cached_property
    def store(self) -> Store:
        config = self.resolver.config
        return Store(Path(config.results_root) / config.scale, config.data_root)

    @cached_property
    def _sources(self) -> dict[str, str]:
        return sources(self.file)

    def edited(self, path: str) -> bool:
        """Does the arm say what stands at this path?"""
        return any(f"{path}.".startswith(f"{edit}.") for edit in self.edits)

    def source(self, path: str) -> str | None:
        """The comment on the value at a dotted path: the arm's for what it edits, else the file's."""
        return self._sources.get(f"arms.{self.arm}.{path}" if self.edited(path) else path)

    def credit(self, path: str) -> str:
        """The same for a reader who has read the arm's section."""
        source = self.source(path) or "no source"
        if self.edited(path):
            return "of this arm" if source == self.purpose else f"of this arm: {source}"
        parts = [edit.removeprefix(f"{path}.") for edit in self.edits if edit.startswith(f"{path}.")]
        return "; ".join([source, *(f"{part}: of this arm" for part in parts)])

    @property
    def purpose(self) -> str | None:
        """The comment on the arm, or on its group of arms."""
        return self._sources.get(f"arms.{self.arm}")

    # ------------------------------------------------------------ names in words

    def start(self, source: str, model: Model) -> str:
        """What `init:` or `evaluate:` names, in words."""
        if source == "base":
            return f"{'the released checkpoint' if self.experiment.base else 'the base model'} ({self.base(model)})"
        if isinstance(model, ScratchModel | Floor | HubModel | PathModel):
            return weights(model)
        return _stage(source)

    def data(self, source: str, data: DataSpec) -> str:
        """What `data:` names, in words: a split, or what a stage keeps of it."""
        if data.made_by is None:
            return f"`{source}`: {split(data)}"
        what = "samples" if data.made_by.kind == "filter" else "completions"
        return f"the {what} that {_stage(source)} keeps"

    def base(self, model: Model) -> str:
        """What the base model is here."""
        base = self.resolver.scale.base
        if self.experiment.base is None and isinstance(base, StageOf):
            return f"at {self.scale} the stage `{base.stage}` of {base.experiment}"
        return weights(model)

    @cached_property
    def reads(self) -> dict[str, DataSpec]:
        """Data role or benchmark -> what it is at this scale, of all that this arm reads."""
        named = {self.experiment.stages[name].data: spec.data for name, spec in self.stages.items()}
        stages = {role: data for role, data in named.items() if role not in (None, *self.stages)}
        return stages | {name: spec.data for name, spec in self.run.evaluations.items()}

    @property
    def starts(self) -> list[str]:
        """Every model in use by its name, and what is evaluated."""
        return [self.experiment.evaluate, *(name for name in map(self.model_of, self.stages) if name)]


def split(data: DataSpec) -> str:
    """A split of a data set, or a choice of its samples, in words."""
    chosen = f"what a {data.made_by.kind} stage keeps of " if data.made_by else ""
    return f"{chosen}split `{data.samples.split}` of the data set `{data.samples.dataset.name}`"


def _stage(source: str) -> str:
    """A stage by its name, `stage` or `experiment.stage`."""
    other, _, stage = source.rpartition(".")
    return f"the stage `{stage}`" + (f" of {other}" if other else "")


def weights(model: Model) -> str:
    """A model that is no stage, in words."""
    match model:
        case HubModel():
            return f"{model.hub}, revision {model.revision[:12]}"
        case PathModel():
            return f"the weights in {model.path}"
        case ScratchModel():
            layers = f"{_layers(model.text, 'text')} and {_layers(model.vision, 'vision')}"
            return f"a Qwen2.5-VL of random weights with {layers}"
        case Floor(fit=None):
            return "the whole clip"
        case Floor():
            fit = f"split `{model.fit.split}` of the data set `{model.fit.dataset.name}`"
            return f"one window, in shares of the clip's duration: the one that fits the {fit} best"
        case _:
            raise AssertionError(f"a trained model has the name of its stage: {model}")


def _layers(sizes: Mapping[str, Any], part: str) -> str:
    depth = sizes.get("num_hidden_layers", sizes.get("depth", "?"))
    return f"{depth} {part} layers of width {sizes.get('hidden_size', '?')}"
