"""What a plan needs of the world: annotations and videos, released weights, the tracking server."""

import os
from collections.abc import Iterator
from pathlib import Path

from tvg.overview.check.finding import Finding, not_needed, ok, warning, wrong
from tvg.overview.cost import reach, space, weights
from tvg.overview.cost.sizes import parameters
from tvg.overview.forecast import absent_files
from tvg.overview.layout import amount, size
from tvg.overview.selection import loads
from tvg.overview.text import listed
from tvg.plan import Plan
from tvg.settings import Closed
from tvg.spec import DatasetIdentity, HubModel, PathModel, nested
from tvg.store import Store, identify


def data(store: Store, jobs: list[Closed]) -> Iterator[Finding]:
    """One line for each data set's annotations, one for its videos."""
    every = (spec for job in jobs for spec in nested(job) if isinstance(spec, DatasetIdentity))
    for identity in {identify(spec): spec for spec in every}.values():
        splits = identity.settings.get("splits", {})
        name = f"data {identity.name}" + (f".{next(iter(splits))}" if identity.kind == "jsonl" and splits else "")
        if lost := absent_files(identity):
            told = listed([line.partition(": ")[2] for line in lost])
            yield wrong(name, f"absent: {told}", f"put it there, or correct config/datasets/{identity.name}.yaml")
        elif store.fetched(identity).exists():
            yield ok(name, "fetched")
        elif identity.kind == "mini":
            yield ok(name, "is drawn by the first job")
        elif identity.kind == "jsonl":
            yield _own(name, store.videos(identity))
        else:
            yield from _published(store, identity)


def _published(store: Store, identity: DatasetIdentity) -> Iterator[Finding]:
    folder = store.dataset(identity)
    files = identity.settings.get("files", {})
    absent = {name: file["url"] for name, file in files.items() if not (folder / "annotations" / name).exists()}
    if files:
        yield _from_web(f"annotations {identity.name}", absent, folder / "annotations", len(files))
    if "videos_from" in identity.settings:
        yield _brought(identity, folder / "videos")
        return
    archives = {url.rsplit("/", 1)[-1]: url for url in space.archives(identity)}
    missing = {name: url for name, url in archives.items() if not (folder / name).exists()}
    here = _count(folder / "videos")
    if here:
        yield ok(f"videos {identity.name}", f"{amount(here)} in {folder / 'videos'}; what lacks is downloaded")
    elif archives:
        yield _from_web(f"videos {identity.name}", missing, folder, len(archives))


def _from_web(what: str, absent: dict[str, str], folder: Path, count: int) -> Finding:
    """Files that are there or can be had. absent: name -> address."""
    problems = {name: said for name, url in absent.items() if (said := reach.problem(url))}
    if not problems:
        here = count - len(absent)
        return ok(what, f"{here} of {count} files here, the others can be downloaded" if absent else "here")
    name, said = next(iter(problems.items()))
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    told = f"{name} {said}{more}"
    return wrong(what, told, f"curl --create-dirs -o {folder / name} {absent[name]}   (where there is a network)")


def _brought(identity: DatasetIdentity, videos: Path) -> Finding:
    """Videos that the user brings; which of them lack is found out when the data set is fetched."""
    what, here = f"videos {identity.name}", _count(videos)
    if here:
        return ok(what, f"{amount(here)} files in {videos}; `tvg download` compares them with the annotations")
    return wrong(what, f"none in {videos}", f"put them there, from {identity.settings['videos_from']}")


def _own(what: str, videos: Path) -> Finding:
    """Data of the user's own; `tvg data check` looks into it."""
    if here := _count(videos):
        return ok(what, f"{amount(here)} files in {videos}")
    return wrong(what, f"no videos in {videos}", "correct `videos:` in its YAML, or put them there")


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def models(jobs: list[Closed]) -> Iterator[Finding]:
    """Weights that a job loads and that no stage makes."""
    used = [loads(job) for job in jobs]
    hubs = {model.hub + model.revision: model for model in used if isinstance(model, HubModel)}
    paths = {model.path: model for model in used if isinstance(model, PathModel)}
    if not hubs and not paths:
        yield not_needed("released weights", "every model of the plan is made here")
    yield from map(_hub, hubs.values())
    yield from map(_folder, paths.values())


def _hub(model: HubModel) -> Finding:
    what, command = f"weights {model.hub}", weights.download_command(model)
    if weights.cached(model):
        return ok(what, f"in {weights.cache()}")
    counts = parameters(model)
    told = f"{size(counts.total * space.HALF)}, " if counts else ""
    if said := weights.refusal(model):
        return wrong(what, f"{told}not in {weights.cache()}, and {said}", weights.mend(model))
    return ok(what, f"{told}downloaded by the first job; for nodes without a network: {command}")


def _folder(model: PathModel) -> Finding:
    what, folder = f"weights {model.path}", Path(model.path)
    absent = [name for name in ("config.json", "*.safetensors") if not any(folder.glob(name))]
    if not absent:
        return ok(what, "config.json and safetensors are there")
    return wrong(what, f"no {listed(absent, 'or')} there", "correct `base: {path: ...}`, or put the weights there")


def tracking(plan: Plan) -> Finding:
    """The MLflow server answers, or the database's folder can be written."""
    what, uri = "tracking", plan.config.tracking_uri
    if uri and uri.startswith(("http://", "https://")):
        said = reach.problem(f"{uri.rstrip('/')}/health", method="GET")
        if said is None:
            return ok(what, f"{uri} answers")
        hint = "; a 403 means that it was started without --allowed-hosts for this name" if "403" in said else ""
        return wrong(
            what, f"{uri}: {said}{hint}", "start it, or set tracking_uri in config/config.yaml: no run waits for it"
        )
    if uri and not uri.startswith("sqlite:///"):
        return warning(what, f"{uri} is of a kind that is not checked")
    path = Path(uri.removeprefix("sqlite:///")) if uri else Path(plan.config.results_root) / "mlflow.db"
    here = path if path.exists() else space.room(path.parent)
    if os.access(here, os.W_OK) and (path.exists() or here.is_dir()):
        return ok(what, f"{path} can be written")
    return wrong(what, f"{here} may not be written", "set tracking_uri in config/config.yaml")
