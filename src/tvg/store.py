"""Where everything lies: the store of one scale, addressed by the content of specs.

`results/{scale}/specs/{id}.json` holds what was planned; an id is a readable part and the digest of the spec.
"""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from tvg.errors import TvgError
from tvg.sample import write_lines
from tvg.settings import Closed
from tvg.spec import (
    DatasetIdentity,
    DataSpec,
    DataStageSpec,
    EvaluationSpec,
    FramesSpec,
    SamplesSpec,
    StageSpec,
    canonical,
    digest,
)

FOLDERS = ("specs", "samples", "frames", "stages", "evaluations", "tables", "plots", "logs", "benchmarks")
S = TypeVar("S", bound=Closed)
_STAGE = TypeAdapter(StageSpec)
_DATA_STAGE = TypeAdapter(DataStageSpec)


def identify(spec: Closed) -> str:
    """The id of a spec: what a person recognises, then its digest."""
    match spec:
        case SamplesSpec():
            readable = ".".join(filter(None, (spec.dataset.name, spec.split, spec.verbs)))
        case FramesSpec():
            readable = f"{spec.dataset.name}.frames"
        case DatasetIdentity():
            readable = f"{spec.name}.videos"
        case EvaluationSpec():
            readable = spec.benchmark.replace(".", "_")
        case _:
            readable = spec.kind
    return f"{readable}-{digest(spec)}"


class Store:
    """The paths of one scale under `root` (results/{scale}); `data` is the root of downloaded and drawn videos."""

    def __init__(self, root: Path | str, data: Path | str = "data"):
        self.root, self.data = Path(root), Path(data)

    def spec(self, ident: str) -> Path:
        return self.root / "specs" / f"{ident}.json"

    def table(self, name: str) -> Path:
        """What a table is that nobody wrote into config/tables."""
        return self.root / "specs" / "tables" / f"{name}.json"

    def pointer(self, experiment: str, arm: str, seed: int) -> Path:
        """The small file that says which stages and evaluations a run is."""
        return self.root / experiment / arm / f"seed-{seed}.json"

    def fetched(self, identity: DatasetIdentity) -> Path:
        """The list of a data set's files, written when they are all there."""
        return self.root / "fetched" / f"{identify(identity)}.json"

    def samples(self, spec: SamplesSpec) -> Path:
        return self.root / "samples" / f"{identify(spec)}.jsonl"

    def chosen(self, data: DataSpec) -> Path:
        """The file of samples that a stage or an evaluation reads."""
        return self.stage(data.made_by) / "samples.jsonl" if data.made_by else self.samples(data.samples)

    def frames(self, spec: FramesSpec) -> Path:
        return self.root / "frames" / identify(spec)

    def shards(self, spec: FramesSpec, count: int) -> list[Path]:
        """The index files of the frame cache's `count` shards."""
        return [self.frames(spec) / f"{k:02d}-of-{count:02d}.json" for k in range(count)]

    def stage(self, spec: Closed | str) -> Path:
        return self.root / "stages" / (spec if isinstance(spec, str) else identify(spec))

    def evaluation(self, spec: Closed | str) -> Path:
        return self.root / "evaluations" / (spec if isinstance(spec, str) else identify(spec))

    def dataset(self, identity: DatasetIdentity) -> Path:
        """A drawn data set is addressed by content; a downloaded one keeps its name, so that files are adopted.

        The user's own stays where it is; a YAML that does not say where fails when its kind checks it.
        """
        if identity.kind == "jsonl":
            return Path(str(identity.settings.get("videos", ""))).expanduser()
        return self.data / (f"{identity.name}-{digest(identity)}" if identity.kind == "mini" else identity.name)

    def videos(self, identity: DatasetIdentity) -> Path:
        return self.dataset(identity) / ("" if identity.kind == "jsonl" else "videos")

    def files(self, identity: DatasetIdentity) -> list[str]:
        """The names of the wanted videos that are there; a folder may hold others. Raises TvgError before they are."""
        path = self.fetched(identity)
        content = _read(path)
        if "files" not in content:
            raise TvgError(
                path, "does not say which videos there are", got=", ".join(content), expected="files",
                hint="delete it and run snakemake again",
            )  # fmt: skip
        return content["files"]

    def served(self, ident: str) -> str:
        """The runs whose pointers name this stage or evaluation, for people: `time_r1, invert4tvg-tvg_only`."""
        named = {path.parent for path in self.root.glob("*/*/seed-*.json") if f'"{ident}"' in path.read_text()}
        arms = sorted(f"{arm.parent.name}-{arm.name}".removesuffix("-main") for arm in named)
        return ", ".join(arms) or "as a base"

    def freeze(self, spec: Closed) -> str:
        """Write the spec where jobs will read it, once; returns its id."""
        ident = identify(spec)
        path = self.spec(ident)
        if not path.exists():
            write_lines(path, [json.dumps(canonical(spec), indent=1, ensure_ascii=False)])
        return ident


def read_stage(path: Path | str) -> StageSpec:
    """The spec of a training stage."""
    return _STAGE.validate_python(_read(path))


def read_data_stage(path: Path | str) -> DataStageSpec:
    """The spec of a stage that makes data."""
    return _DATA_STAGE.validate_python(_read(path))


def read_spec(kind: type[S], path: Path | str) -> S:
    return kind.model_validate(_read(path))


def _read(path: Path | str) -> dict:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TvgError(
            path,
            "cannot read this spec",
            got=error,
            expected="a JSON file that planning wrote",
            hint="run `snakemake -n` to plan again",
        ) from error
