"""Jobs of the workflow: one spec file in, its place in the store out. Rules use the lines that a person may paste."""

import json
import logging
import os
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tvg import facts
from tvg.cli.shared import CONFIG, Arguments, Declare
from tvg.spec import StageSpec
from tvg.store import Store

log = logging.getLogger(__name__)


def add(declare: Declare) -> None:
    for run, text, example in (
        (download, "draw or download a data set's videos", "mini.videos-0123456789ab.json"),
        (annotations, "read a split's annotations into samples", "mini.train-0123456789ab.json"),
        (cache, "decode one shard of a data set's videos", "mini.frames-0123456789ab.json --shard 03 --of 64"),
        (tasks, "extract the verbs of a split's queries", "mini.train.standin-0123456789ab.json"),
        (train, "train one stage", "grpo-0123456789ab.json"),
        (select, "choose samples or completions to train on", "filter-0123456789ab.json"),
        (evaluate, "predict and score one evaluation", "charades_test-0123456789ab.json"),
    ):
        parser = declare(run, text, f"results/mini/specs/{example}")
        parser.add_argument("spec", type=Path, help="a spec file, results/{scale}/specs/{id}.json")
        if run in (download, annotations, cache):
            parser.add_argument("--data", type=Path, help="the root of all videos (default: data)")
            parser.add_argument("--jobs", type=int, default=1, help="processes")
        if run is cache:
            parser.add_argument("--shard", required=True, help="which one, from 0")
            parser.add_argument("--of", type=int, required=True, help="how many shards there are")
        if run in (train, select, evaluate):
            parser.add_argument("--threads", type=int, help="of one job (default: torch's own choice)")
        if run is train:
            parser.add_argument("--gpus", type=int, default=1, help="of this node, a process each; 0: on the CPU")


def download(a: Arguments) -> None:
    from tvg import datasets
    from tvg.sample import write_lines
    from tvg.spec import DatasetIdentity
    from tvg.store import read_spec
    from tvg.video.lengths import measure

    identity, store = read_spec(DatasetIdentity, a.spec), _store(a)
    folder, path = store.dataset(identity), store.fetched(identity)
    listing = path.with_suffix(".problems.jsonl")
    fetched = datasets.fetch(identity, folder, a.jobs, partial(measure, jobs=a.jobs), listing)
    counts = {
        "videos": len(fetched.files),
        "downloaded": fetched.downloaded,
        "adopted": fetched.adopted,
        "problems": len(fetched.problems),
    }
    write_lines(path, [json.dumps({"dataset": identity.name, **counts, "files": fetched.files}, ensure_ascii=False)])
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    log.info("%s: %s; in %s", identity.name, said, store.videos(identity))


def annotations(a: Arguments) -> None:
    from tvg import datasets
    from tvg.sample import write_samples
    from tvg.spec import SamplesSpec
    from tvg.store import read_spec
    from tvg.video.lengths import measure

    spec, store = read_spec(SamplesSpec, a.spec), _store(a)
    path, folder = store.samples(spec), store.dataset(spec.dataset)
    loaded = datasets.load(spec.dataset, spec.split, folder, partial(measure, jobs=a.jobs), listing=path)
    write_samples(path, loaded.samples)
    counts = len(loaded.samples), len(loaded.clipped), len(loaded.rejected)
    log.info("%s/%s: %d samples (%d clipped to the video), %d rejected", spec.dataset.name, spec.split, *counts)


def tasks(a: Arguments) -> None:
    from tvg.inversion import annotate
    from tvg.inversion.verbs import extractor
    from tvg.sample import read_samples, write_samples
    from tvg.spec import SamplesSpec
    from tvg.store import read_spec

    spec, store = read_spec(SamplesSpec, a.spec), _store(a)
    without = spec.model_copy(update={"verbs": None, "verbs_version": None})
    annotated = list(annotate(read_samples(store.samples(without)), extractor(spec.verbs)))
    path = store.samples(spec)
    verbless = [sample for sample in annotated if not sample.verbs]
    write_samples(path.with_suffix(".verbless.jsonl"), verbless)
    write_samples(path, annotated)
    log.info("%d queries, %d without a verb: never drawn for an inversion task", len(annotated), len(verbless))


def cache(a: Arguments) -> None:
    from tvg.sample import read_samples
    from tvg.spec import FramesSpec
    from tvg.store import read_spec
    from tvg.video.cache import write_shard

    spec, store = read_spec(FramesSpec, a.spec), _store(a)
    folder, names = store.videos(spec.dataset), set(store.files(spec.dataset))
    if spec.samples:
        names &= {sample.video for sample in islice(read_samples(store.samples(spec.samples)), spec.limit)}
    write_shard(store.shards(spec, a.of)[int(a.shard)], names, spec.frames, jobs=a.jobs, video_dir=folder)


def train(a: Arguments) -> int:
    from tvg.store import read_stage

    spec, store = read_stage(a.spec), _store(a)
    if a.gpus > 1 and facts.processes() == 1:
        return _on_several(a, spec)
    log.info("this stage serves %s", store.served(a.spec.stem))
    _threads(a.threads)
    from tvg.train import awbc, grpo, sft

    kind = {"sft": sft, "grpo": grpo, "awbc": awbc}[spec.kind]
    kind.train(spec, store, _runtime(store), None if a.gpus else "cpu")
    return 0


def _on_several(a: Arguments, spec: StageSpec) -> int:
    """The same verb once for each GPU."""
    from tvg.train.launch import check_gpus, launch
    from tvg.train.schedule import of_each

    of_each(spec, a.gpus)
    check_gpus(a.gpus)
    command = [sys.executable, "-m", "tvg.cli", "train", str(a.spec), "--gpus", str(a.gpus)]
    if a.threads:
        command += ["--threads", str(max(1, a.threads // a.gpus))]
    return launch(command + (["--log", a.log] if a.log else []), a.gpus)


def select(a: Arguments) -> None:
    from tvg.store import read_data_stage

    spec, store = read_data_stage(a.spec), _store(a)
    log.info("this stage serves %s", store.served(a.spec.stem))
    _threads(a.threads)
    from tvg.select import collect, difficulty

    path = difficulty.run(spec, store, _runtime(store)) if spec.kind == "filter" else collect.run(spec, store)
    log.info("wrote %s", path)


def evaluate(a: Arguments) -> None:
    from tvg.spec import EvaluationSpec
    from tvg.store import read_spec

    spec, store = read_spec(EvaluationSpec, a.spec), _store(a)
    log.info("this evaluation serves %s", store.served(a.spec.stem))
    _threads(a.threads)
    from tvg.evaluate.metrics import evaluate
    from tvg.evaluate.predict import predict

    predict(spec, store, _runtime(store))
    evaluate(spec, store)


def _store(a: Arguments) -> Store:
    """The store that the spec file lies in: results/{scale}/specs/x.json."""
    return Store(Path(a.spec).parent.parent, getattr(a, "data", None) or "data")


def _runtime(store: Store) -> Any:
    """How jobs run at the store's scale; says nothing of what they compute."""
    from tvg.config import Scale, read

    return read(Scale, CONFIG / "scales", store.root.name).runtime


def _threads(count: int | None) -> None:
    """Before torch is imported: one job's threads must not take another job's cores."""
    if count:
        os.environ["OMP_NUM_THREADS"] = str(count)
        import torch

        torch.set_num_threads(count)
