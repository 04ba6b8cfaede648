"""A real video and its official annotation, all the way: loader, sampling, tasks, prediction, scores."""

import csv
import json
import shutil

import av
import numpy as np
import pytest

from tests.conftest import REPO
from tvg import datasets
from tvg.config import Config, Scale, read, read_dataset
from tvg.evaluate.metrics import evaluate
from tvg.evaluate.predict import predict
from tvg.inversion import annotate
from tvg.inversion.verbs import VERSIONS, extractor
from tvg.resolve import Resolver
from tvg.sample import write_samples
from tvg.settings import FramesSettings, Runtime
from tvg.spec import ScratchModel
from tvg.store import Store
from tvg.video.cache import write_shard
from tvg.video.decode import sample as sample_frames


@pytest.fixture
def charades(real_data, tmp_path):
    """data/charades_sta as the user of Charades has it, with one video of the test split."""
    folder = tmp_path / "data" / "charades_sta"
    (folder / "annotations").mkdir(parents=True)
    (folder / "videos").mkdir()
    for name in ("charades_sta_test.txt", "Charades_v1_test.csv"):
        shutil.copy(real_data(f"annotations/charades-sta/{name}"), folder / "annotations")
    shutil.copy(real_data("videos/OHOFG.mp4"), folder / "videos")
    return folder


def test_sampled_times_are_those_of_the_frames_on_screen(charades):
    video = charades / "videos" / "OHOFG.mp4"
    with av.open(str(video)) as file:
        shown = np.array([float(frame.pts * frame.time_base) for frame in file.decode(video=0)])
    shown -= shown[0]
    frames = sample_frames(video, FramesSettings())
    wanted = np.arange(0, frames.duration, 0.5)
    on_screen = shown[np.searchsorted(shown, wanted + 1e-6, side="right") - 1]
    assert len(frames) == len(wanted) == 71 and np.allclose(frames.times, on_screen, atol=1e-4)


def test_from_the_annotation_to_the_scores(charades, tmp_path):
    scale = read(Scale, REPO / "config" / "scales", "mini")
    store = Store(tmp_path / "results" / "real", tmp_path / "data")
    loaded = datasets.load(read_dataset(REPO / "config" / "datasets", "charades_sta"), "test", charades)
    assert len(loaded.samples) == 3720
    ours = [sample for sample in loaded.samples if sample.video == "OHOFG.mp4"]
    assert len(ours) == 6 and ours[0].duration == pytest.approx(_length(charades, "OHOFG"))

    planned = Resolver(Config(experiments=("zero_shot",)), REPO / "config").run("zero_shot", "main", 0)
    spec = planned.evaluations["charades_test"]
    identity = read_dataset(REPO / "config" / "datasets", "charades_sta")
    data = spec.data.model_copy(
        update={
            "samples": spec.data.samples.model_copy(
                update={"dataset": identity, "split": "test", "verbs_version": VERSIONS["standin"]}
            ),
            "frames": spec.data.frames.model_copy(update={"dataset": identity}),
        }
    )
    spec = spec.model_copy(update={"data": data, "model": ScratchModel(**scale.scratch.model_dump())})

    write_samples(store.samples(data.samples), annotate(ours, extractor("standin")))
    for index in store.shards(data.frames, 1):
        write_shard(index, ["OHOFG.mp4"], data.frames.frames, jobs=1, video_dir=charades / "videos")
    predict(spec, store, Runtime(evaluate_batch=4), "cpu")
    metrics = evaluate(spec, store)
    rows = [json.loads(line) for line in (store.evaluation(spec) / "predictions.jsonl").open()]
    assert metrics["n"] == metrics["n_scored"] == 6 and metrics["missing"] == 0
    assert {row["task"] for row in rows} == {"ground", "complete_verb", "recognise_action", "describe"}
    assert {verb for row in rows for verb in row["verbs"]} >= {"eat", "sit"}
    assert all(row["completion"] is not None and row["tokens"] > 0 for row in rows)


def _length(folder, video: str) -> float:
    with (folder / "annotations" / "Charades_v1_test.csv").open() as file:
        return next(float(row["length"]) for row in csv.DictReader(file) if row["id"] == video)
