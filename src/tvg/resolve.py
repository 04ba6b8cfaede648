"""From an experiment file, an arm, a scale and a seed to specs: names become what they stand for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from tvg import parse, rewards
from tvg.arms import MAIN, Arms
from tvg.config import (
    CollectStage,
    Config,
    Experiment,
    FilterStage,
    Role,
    Stage,
    StageOf,
    StageSource,
    did_you_mean,
    read_dataset,
    read_prompt,
    read_prompts,
)
from tvg.errors import TvgError
from tvg.inversion import verbs
from tvg.sample import INVERSION_TASKS
from tvg.settings import Closed, CollectSettings, FilterSettings, Prompt
from tvg.spec import (
    AwbcSpec,
    CollectSpec,
    DataSpec,
    DataStageSpec,
    EvaluationSpec,
    FilterSpec,
    Floor,
    FramesSpec,
    GrpoSpec,
    Model,
    SamplesSpec,
    ScratchModel,
    SftSpec,
    StageSpec,
    TrainedModel,
    nested,
)
from tvg.store import identify

VERSIONS = {  # bump one when the same settings give another result
    "sft": 1,
    "grpo": 1,
    "awbc": 1,
    "filter": 1,
    "collect": 1,
    "evaluation": 1,
    "frames": 1,
}
FLOORS = {"floor_whole_video": "whole_video", "floor_constant_window": "constant_window"}
STAGES = (SftSpec, GrpoSpec, AwbcSpec, FilterSpec, CollectSpec)
RunKey = tuple[str, str, int]  # experiment, arm, seed


@dataclass(frozen=True)
class Run:
    """One experiment, arm and seed: its stages and evaluations, resolved."""

    experiment: str
    arm: str
    seed: int
    stages: dict[str, StageSpec | DataStageSpec] = field(default_factory=dict)
    evaluations: dict[str, EvaluationSpec] = field(default_factory=dict)


class Resolver(Arms):
    """Resolves what the files under `folder` (config/) say, at the configured scale, each name once."""

    def __init__(self, config: Config, folder: Path):
        super().__init__(config, folder)
        self.dataset = cache(partial(read_dataset, folder / "datasets"))
        self.stage = cache(self._stage)
        self.run = cache(self._run)
        self._open: list[tuple[str, str, str]] = []

    def _run(self, name: str, arm: str, seed: int) -> Run:
        experiment = self.experiment(name, arm)
        stages = {stage: self.stage(name, arm, stage, seed) for stage in experiment.stages}
        model = self.model(experiment.evaluate, name, arm, seed)
        evaluations = {b: self._evaluation(experiment, model, b) for b in experiment.benchmarks}
        needed = {identify(spec) for spec in nested(model) if isinstance(spec, STAGES)}
        used = {stage: spec for stage, spec in stages.items() if identify(spec) in needed}
        return Run(name, arm, seed, used, evaluations)

    def model(self, source: str, name: str, arm: str, seed: int) -> Model:
        """What `init:` or `evaluate:` names: base, scratch, a floor, a stage here, or `experiment.stage`."""
        if source == "base":
            base = self.experiment(name, arm).base or self.scale.base
            if isinstance(base, StageOf):
                return self._trained(base.experiment, MAIN, base.stage, seed)
            if base != "scratch":
                return base
            source = base
        if source == "scratch":
            if self.scale.scratch is None:
                raise TvgError(
                    f"{self.folder}/scales/{self.config.scale}.yaml",
                    "this scale trains nothing from scratch",
                    got="init: scratch",
                    expected="scratch: {text, vision}",
                    hint="use `init: base`",
                )
            return ScratchModel(**self.scale.scratch.model_dump())
        if source in FLOORS:
            fit = self._samples("charades_train", self.scale.data, verbs_needed=False)
            return Floor(floor=FLOORS[source], fit=fit if source == "floor_constant_window" else None)
        if "." in source:
            other, stage = source.split(".", 1)
            return self._trained(other, MAIN, stage, seed)
        return self._trained(name, arm, source, seed)

    def _trained(self, name: str, arm: str, stage: str, seed: int) -> TrainedModel:
        made = self.stage(name, arm, stage, seed)
        if isinstance(made, FilterSpec | CollectSpec):
            raise TvgError(
                f"{self.folder}/experiments/{name}.yaml", "this stage makes data, not a model", got=stage,
                expected="a stage of kind sft or grpo", hint="data is named by `data:`",
            )  # fmt: skip
        return TrainedModel(stage=made)

    def _stage(self, name: str, arm: str, stage: str, seed: int) -> StageSpec | DataStageSpec:
        experiment = self.experiment(name, arm)
        where = f"{self.folder}/experiments/{name}.yaml" + ("" if arm == MAIN else f": arm '{arm}'")
        if stage not in experiment.stages:
            known = ["base", "scratch", *FLOORS, *experiment.stages]
            raise TvgError(
                where, "no such stage", got=stage, expected=", ".join(known), hint=did_you_mean(stage, known)
            )
        self._refuse_cycle(name, arm, stage, where)
        self._open.append((name, arm, stage))
        try:
            written = experiment.stages[stage]
            make = {"filter": self._filter, "collect": self._collect}.get(written.kind, self._training)
            return make(written, experiment, where, (name, arm, seed))
        finally:
            self._open.pop()

    def _training(self, written: Stage, experiment: Experiment, where: str, run: RunKey) -> StageSpec:
        name, arm, seed = run
        tasks = set(written.every_task)
        constructs = written.kind == "awbc" or (written.kind == "sft" and written.constructed > 0)
        shared = {
            **_own(written, StageSource),
            "version": VERSIONS[written.kind],
            "seed": seed if written.seed is None else written.seed,
            "init": self.model(written.init, name, arm, seed),
            "data": self._data_of(written.data, run, tasks),
            "prompt": self._prompt(
                written.prompt or experiment.prompt,
                written.inversion_prompt or experiment.inversion_prompt,
                tasks,
                prefix=constructs,
            ),
        }
        if written.kind == "sft":
            more = [read_prompt(self.folder / "prompts", name) for name in written.more_prompts]
            return SftSpec(**shared | {"more_prompts": tuple(_asking(prompt, tasks, constructs) for prompt in more)})
        wanted = written.rewards or experiment.rewards
        rewards.check(wanted, where)
        used = rewards.applicable(wanted, tasks)
        kind = AwbcSpec if written.kind == "awbc" else GrpoSpec
        return kind(**shared, rewards=used, versions=_versions(used))

    def _filter(self, written: FilterStage, experiment: Experiment, where: str, run: RunKey) -> FilterSpec:
        name, arm, seed = run
        return FilterSpec(
            **_own(written, FilterStage, but=FilterSettings) | {"seed": seed if written.seed is None else written.seed},
            version=VERSIONS["filter"],
            model=self.model(written.model, name, arm, seed),
            data=self._data_of(written.data, run, set(INVERSION_TASKS)),
            prompt=self._prompt(written.prompt or experiment.prompt, experiment.inversion_prompt, {"ground"}),
            versions=_versions([]),
        )

    def _collect(self, written: CollectStage, experiment: Experiment, where: str, run: RunKey) -> CollectSpec:
        name, arm, seed = run
        source = self._trained(name, arm, written.model, seed).stage if written.model else None
        if source is not None and source.kind not in ("grpo", "awbc"):
            raise TvgError(
                where, "rollouts are made by grpo and awbc stages", got=f"{written.model}, of kind {source.kind}",
                expected="a stage of kind grpo or awbc", hint="name the stage whose rollouts are collected",
            )  # fmt: skip
        return CollectSpec(
            **_own(written, CollectStage, but=CollectSettings),
            version=VERSIONS["collect"],
            source=source,
            data=source.data if source else self._data_of(written.data, run, set(INVERSION_TASKS)),
            prompt=self._prompt(written.prompt or experiment.prompt, experiment.inversion_prompt, {"ground"}),
            versions=_versions([]),
        )

    def _data_of(self, source: str, run: RunKey, tasks: set[str]) -> DataSpec:
        """What `data:` names: a stage that makes data, here or as `experiment.stage`, or a role."""
        name, arm, seed = run
        if source in self.experiment(name, arm).stages:
            made = self.stage(name, arm, source, seed)
        elif (other := source.split(".", 1))[0] in self._names() and "." in source:
            made = self.stage(other[0], MAIN, other[1], seed)
        else:
            return self._data(source, self.scale.data, tasks)
        if not isinstance(made, FilterSpec | CollectSpec):
            raise TvgError(
                f"{self.folder}/experiments/{name}.yaml", "this stage makes a model, not data", got=f"data: {source}",
                expected="a data role, or a stage of kind filter or collect", hint="a model is named by `init:`",
            )  # fmt: skip
        return made.data.model_copy(update={"made_by": made, "limit": None})

    def _names(self) -> set[str]:
        return {path.stem for path in (self.folder / "experiments").glob("*.yaml")}

    def _refuse_cycle(self, name: str, arm: str, stage: str, where: str) -> None:
        """`_open` holds the stages whose resolving has led here."""
        if (name, arm, stage) in self._open:
            raise TvgError(
                where,
                "stages start from each other",
                got=" -> ".join(f"{one}.{last}" for one, _, last in [*self._open, (name, arm, stage)]),
                expected="an end at base or scratch",
                hint="change one `init:`, `model:` or `data:`",
            )

    def _evaluation(self, experiment: Experiment, model: Model, benchmark: str) -> EvaluationSpec:
        settings = experiment.evaluation
        if isinstance(model, Floor):
            settings = settings.model_copy(update={"tasks": ("ground",)})
        tasks = set(settings.tasks)
        return EvaluationSpec(
            version=VERSIONS["evaluation"],
            benchmark=benchmark,
            model=model,
            settings=settings,
            data=self._data(benchmark, self.scale.benchmarks, tasks),
            prompt=self._prompt(experiment.prompt, experiment.inversion_prompt, tasks),
            versions=_versions(["format", *(["verbs"] if tasks & set(INVERSION_TASKS) else [])]),
        )

    def _data(self, role: str, roles: dict[str, Role], tasks: set[str]) -> DataSpec:
        samples = self._samples(role, roles, verbs_needed=bool(tasks & set(INVERSION_TASKS)))
        limit = self.config.limit
        only = {"split": samples.split, "limit": limit} if limit else {}
        frames = FramesSpec(dataset=samples.dataset, frames=self.scale.frames, version=VERSIONS["frames"], **only)
        return DataSpec(samples=samples, frames=frames, limit=limit)

    def _samples(self, role: str, roles: dict[str, Role], verbs_needed: bool) -> SamplesSpec:
        dataset, _, split = role.rpartition(".")
        if role in roles:
            dataset, split = roles[role].dataset, roles[role].split
        elif not (dataset and (self.folder / "datasets" / f"{dataset}.yaml").exists()):
            raise TvgError(
                f"{self.folder}/scales/{self.config.scale}.yaml",
                "this scale maps no such role",
                got=role,
                expected=f"{', '.join(roles)}, or dataset.split",
                hint=did_you_mean(role, list(roles)),
            )
        identity, backend = self.dataset(dataset, split), self.scale.verbs if verbs_needed else None
        splits = list(identity.settings.get("splits", {}))
        if split not in splits:
            where = f"{self.folder}/datasets/{dataset}.yaml"
            hint = did_you_mean(split, splits)
            raise TvgError(where, "no such split", got=f"{role}: {split}", expected=", ".join(splits), hint=hint)
        return SamplesSpec(
            dataset=identity,
            split=split,
            verbs=backend,
            verbs_version=verbs.VERSIONS[backend] if backend else None,
        )

    def _prompt(self, name: str, inversion_name: str, tasks: set[str], prefix: bool = False) -> Prompt:
        """The texts of the tasks in use only: wording that is never asked changes no hash."""
        return _asking(read_prompts(self.folder / "prompts", name, inversion_name), tasks, prefix)


def _versions(used: Iterable[str]) -> dict[str, int]:
    return {"parse": parse.VERSION} | {f"reward.{name}": rewards.VERSIONS[name] for name in sorted(used)}


def _asking(prompt: Prompt, tasks: set[str], prefix: bool = False) -> Prompt:
    """The prompt as these tasks use it."""
    used = {task: prompt.texts[task] for task in sorted(tasks) if task in prompt.texts}
    formats = {task: check for task, check in sorted(prompt.answer.formats.items()) if task in used}
    own = {task: check for task, check in formats.items() if check != prompt.answer.format}
    answer = prompt.answer.model_copy(update={"formats": own})
    return prompt.model_copy(update={"texts": used, "answer": answer, **({} if prefix else {"prefix": None})})


def _own(written: Stage, source: type[Closed], but: type[Closed] = Closed) -> dict[str, Any]:
    """The settings of a stage without the names in it, which resolving replaces."""
    names = source.model_fields.keys() - but.model_fields.keys()
    return {key: getattr(written, key) for key in type(written).model_fields if key not in names}
