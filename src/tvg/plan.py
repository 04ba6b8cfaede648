"""The plan: every configured run, the specs it needs, and which files each Snakemake job reads.

Importing this loads neither torch nor transformers: the Snakefile starts fast on a login node.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvg import datasets
from tvg.config import Config, check, did_you_mean
from tvg.errors import TvgError
from tvg.report.layout import Line, Table, load_all, located, of_arms, target
from tvg.resolve import Resolver, Run
from tvg.sample import write_lines
from tvg.settings import Closed
from tvg.spec import (
    CollectSpec,
    DatasetIdentity,
    DataSpec,
    EvaluationSpec,
    FilterSpec,
    Floor,
    FramesSpec,
    Model,
    SamplesSpec,
    StageSpec,
    TrainedModel,
    canonical,
)
from tvg.store import Store, identify, read_data_stage, read_spec, read_stage

PAGES = ("demo", "all")  # of the report


class Plan:
    """All experiments of the configuration, resolved at its scale, and the store that holds their results."""

    def __init__(self, config: Config, folder: Path = Path("config")):
        self.config, self.folder = config, folder
        self.resolver = Resolver(config, folder)
        self.scale = self.resolver.scale
        self.store = Store(Path(config.results_root) / config.scale, config.data_root)
        wanted = self.resolver.selected()
        here = {name: [a for a in arms if self.resolver.exists_here(name, a)] for name, arms in wanted.items()}
        self.left_out = {name: [arm for arm in arms if arm not in here[name]] for name, arms in wanted.items()}
        self.runs: dict[tuple[str, str, int], Run] = {
            (name, arm, seed): self.resolver.run(name, arm, seed)
            for name in wanted
            for arm in here[name]
            for seed in config.seeds
        }
        self.specs: dict[str, Closed] = {}
        for run in self.runs.values():
            for spec in (*run.stages.values(), *run.evaluations.values()):
                self._add(spec)
        for spec in self.specs.values():
            if isinstance(spec, DatasetIdentity):
                datasets.check_settings(spec)
        written = {name: located(table, self._file_of) for name, table in load_all(folder / "tables").items()}
        self.targets: dict[str, str] = {target(name, table): name for name, table in written.items()}
        self.tables: dict[str, Table] = self._tables_of_arms() | written
        self._check_tables()

    @classmethod
    def load(cls, content: dict[str, Any], folder: Path | str = "config") -> "Plan":
        """From Snakemake's config dictionary: config.yaml with the command line's `--config` over it."""
        return cls(check(Config, dict(content), Path(folder) / "config.yaml"), Path(folder))

    def _tables_of_arms(self) -> dict[str, Table]:
        """Every experiment's arms on each of their benchmarks, one row each: an arm needs no table file to be seen."""
        arms: dict[tuple[str, str], list[str]] = {}
        for run in self.runs.values():
            for benchmark in run.evaluations:
                rows = arms.setdefault((run.experiment, benchmark), [])
                rows.extend([run.arm] if run.arm not in rows else [])
        papers = {name: self.resolver.experiment(name).paper for name, _ in arms}
        return {
            f"arms_{name}_{benchmark}".replace(".", "_"): of_arms(name, papers[name], benchmark, rows)
            for (name, benchmark), rows in arms.items()
        }

    def _file_of(self, experiment: str) -> dict[str, Any]:
        """The content of an experiment's file; {} where there is none."""
        there = (self.folder / "experiments" / f"{experiment}.yaml").exists()
        return self.resolver.read_raw(experiment) if there else {}

    def _check_tables(self) -> None:
        """A row of an arm that does not exist would stay empty for ever."""
        for name in self.tables:
            for experiment, arm in self._arms_of(name):
                if experiment in {run.experiment for run in self.runs.values()}:
                    arms = self.resolver.arms(experiment)
                    if arm not in arms:
                        raise TvgError(
                            f"{self.folder}/tables/{name}.yaml", f"a row of an arm that {experiment} does not have",
                            got=arm, expected=", ".join(arms), hint=did_you_mean(arm, arms),
                        )  # fmt: skip

    @property
    def notice(self) -> str | None:
        """One line on the experiments and arms that this scale leaves out."""
        told: dict[str, list[str]] = {}
        for name, arms in self.left_out.items():
            scales = sorted({scale for arm in arms for scale in self.resolver.experiment(name, arm).scales})
            what = name if len(arms) == len(self.resolver.arms(name)) else f"{len(arms)} arms of {name}"
            if arms:
                told.setdefault(", ".join(scales), []).append(what)
        words = [f"{', '.join(names)} (only at {scales})" for scales, names in told.items()]
        return f"left out at scale {self.config.scale}: {'; '.join(words)}" if told else None

    def _add(self, spec: Closed) -> None:
        """Register a spec and all that it stands on."""
        if self.specs.setdefault(identify(spec), spec) is not spec:
            return
        for needed in _needs(spec):
            self._add(needed)

    # ------------------------------------------------------------ what Snakemake asks

    def spec(self, ident: str) -> Closed:
        """A planned spec; a job that outlives an edit of the YAML finds its own in the store."""
        if ident in self.specs:
            return self.specs[ident]
        kind = ident.rsplit("-", 1)[0]
        path = self.store.spec(ident)
        if kind in ("sft", "grpo", "awbc"):
            return read_stage(path)
        if kind in ("filter", "collect"):
            return read_data_stage(path)
        if kind.endswith((".frames", ".videos")):
            return read_spec(FramesSpec if kind.endswith(".frames") else DatasetIdentity, path)
        return read_spec(SamplesSpec if "." in kind else EvaluationSpec, path)

    def inputs(self, ident: str) -> list[str]:
        """The files that the job of this spec reads."""
        return list(dict.fromkeys(map(str, self._inputs(self.spec(ident)))))

    def _inputs(self, spec: Closed) -> list[Path]:
        match spec:
            case FramesSpec():
                only = [self.store.samples(spec.samples)] if spec.samples else []
                return [self.store.fetched(spec.dataset), *only]
            case SamplesSpec(verbs=None):
                return [self.store.fetched(spec.dataset)]
            case SamplesSpec():
                return [self.store.samples(_without_verbs(spec))]
            case EvaluationSpec():
                return [
                    *self._model_inputs(spec.model),
                    *self._data_inputs(spec.data, not isinstance(spec.model, Floor)),
                ]
            case DatasetIdentity():
                return []
            case FilterSpec():
                return [*self._model_inputs(spec.model), *self._data_inputs(spec.data)]
            case CollectSpec():
                source = [self.store.stage(spec.source) / "model.done"] if spec.source else []
                return [*source, *self._data_inputs(spec.data, frames=False)]
            case _:
                return [*self._model_inputs(spec.init), *self._data_inputs(spec.data)]

    def _model_inputs(self, model: Model) -> list[Path]:
        match model:
            case TrainedModel():
                return [self.store.stage(model.stage) / "model.done"]
            case Floor(fit=SamplesSpec()):
                return [self.store.samples(model.fit)]
            case _:
                return []

    def _data_inputs(self, data: DataSpec, frames: bool = True) -> list[Path]:
        return [
            self.store.chosen(data),
            *(self.store.shards(data.frames, self.scale.shards) if frames else []),
        ]

    def metrics(self, names: Iterable[str] | None = None) -> list[str]:
        """The metrics files of the tables `names` (default: of every run)."""
        if names is None:
            specs = [spec for run in self.runs.values() for spec in run.evaluations.values()]
        else:
            specs = [spec for name in names for spec in self._evaluations_of(name)]
        return list(dict.fromkeys(str(self.store.evaluation(spec) / "metrics.json") for spec in specs))

    def table_names(self, ablations: bool = False) -> list[str]:
        """Tables all of whose runs are configured here."""
        known = {(name, arm) for name, arm, _ in self.runs}
        return [
            name
            for name, table in self.tables.items()
            if (not ablations or table.ablation) and self._arms_of(name) and self._arms_of(name) <= known
        ]

    def table_source(self, name: str) -> str:
        """The file that a person edits to change this table: its own, or the experiment whose arms it lists."""
        own = self.folder / "tables" / f"{name}.yaml"
        return str(
            own if own.exists() else self.folder / "experiments" / f"{self.tables[name].rows[0].experiment}.yaml"
        )

    def pages(self, name: str) -> list[str]:
        """The tables of a report page: `demo`, or `all`."""
        return ["demo"] if name == "demo" else self.table_names()

    def _arms_of(self, table: str) -> set[tuple[str, str]]:
        """(experiment, arm) of every row with a run of ours at this scale."""
        return {(line.row.experiment, line.row.arm) for line in self._lines_of(table)}

    def _lines_of(self, table: str) -> list[Line]:
        """Its rows with a run of ours at this scale, each on one benchmark."""
        return [line for line in self.tables[table].lines if line.row.ours_at(self.config.scale)]

    def _evaluations_of(self, table: str) -> list[EvaluationSpec]:
        wanted = {(line.row.experiment, line.row.arm, line.benchmark) for line in self._lines_of(table)}
        return [
            spec
            for (name, arm, _), run in self.runs.items()
            for benchmark, spec in run.evaluations.items()
            if (name, arm, benchmark) in wanted
        ]

    def freeze(self) -> None:
        """Write the specs for jobs to read and the pointers for reports, before the first job; nothing on a dry run."""
        for spec in self.specs.values():
            self.store.freeze(spec)
        for name, table in self.tables.items():
            if not (self.folder / "tables" / f"{name}.yaml").exists():
                write_lines(self.store.table(name), [json.dumps(canonical(table), indent=1, ensure_ascii=False)])
        changed = {(run.experiment, run.arm) for run in self.runs.values() if self._point(run)} | self._forget()
        self._take_away({name for name in self.tables if changed & self._arms_of(name)})

    def _take_away(self, tables: set[str]) -> None:
        """Tables, and the pages and plots with them in it, whose numbers belong to an older plan.

        What is made from a page goes too: Snakemake asks for nothing below a file that is there.
        """
        root = self.store.root
        pages = [page for page in PAGES if tables & set(self.pages(page))]
        stale = [path for name in tables for kind in ("tables", "plots") for path in root.glob(f"{kind}/{name}.*")]
        stale += [root / made for page in pages for made in (f"report/{page}.html", f"track/{page}.json")]
        stale += [path for page in pages for path in root.glob(f"plots/{page}/*")]
        for path in stale:
            path.unlink(missing_ok=True)

    def _forget(self) -> set[tuple[str, str]]:
        """Delete the pointers of arms and seeds that configured experiments no longer have; which arms those were."""
        gone = set()
        for name in {name for name, _, _ in self.runs}:
            for path in self.store.root.glob(f"{name}/*/seed-*.json"):
                arm, seed = path.parent.name, int(path.stem.removeprefix("seed-"))
                asked = any((name, arm) == run[:2] for run in self.runs)
                if arm not in self.resolver.arms(name) or (asked and (name, arm, seed) not in self.runs):
                    path.unlink()
                    gone.add((name, arm))
        return gone

    def _point(self, run: Run) -> bool:
        """Write the run's pointer file where it changed; True if an older one stood there."""
        path = self.store.pointer(run.experiment, run.arm, run.seed)
        pointer = json.dumps(
            {
                "experiment": run.experiment,
                "arm": run.arm,
                "seed": run.seed,
                "stages": {name: identify(spec) for name, spec in run.stages.items()},
                "evaluations": {name: identify(spec) for name, spec in run.evaluations.items()},
            },
            indent=1,
        )
        before = path.read_text(encoding="utf-8").strip() if path.exists() else None
        if before != pointer:
            write_lines(path, [pointer])
        return before is not None and before != pointer


def _without_verbs(spec: SamplesSpec) -> SamplesSpec:
    return spec.model_copy(update={"verbs": None, "verbs_version": None})


def _needs(spec: Closed) -> list[Closed]:
    """The specs that this one stands on directly."""
    match spec:
        case FramesSpec():
            return [spec.dataset, *([spec.samples] if spec.samples else [])]
        case SamplesSpec(verbs=None):
            return [spec.dataset]
        case SamplesSpec():
            return [_without_verbs(spec)]
        case EvaluationSpec() | FilterSpec():
            return [*_model_needs(spec.model), *_data_needs(spec.data)]
        case CollectSpec():
            return [*([spec.source] if spec.source else []), *_data_needs(spec.data)]
        case DatasetIdentity():
            return []
        case _:
            return [*_model_needs(spec.init), *_data_needs(spec.data)]


def _data_needs(data: DataSpec) -> list[Closed]:
    return [data.samples, data.frames, *([data.made_by] if data.made_by else [])]


def _model_needs(model: Model) -> list[StageSpec | SamplesSpec]:
    match model:
        case TrainedModel():
            return [model.stage]
        case Floor(fit=SamplesSpec()):
            return [model.fit]
        case _:
            return []
