"""TimeRFT on its published file, and on items that are broken."""

import json
import shutil

import pytest

from tests.conftest import REPO
from tests.unit.video_maker import Track, make_video, steady
from tvg import datasets
from tvg.config import read_dataset
from tvg.errors import TvgError
from tvg.segment import Segment, tiou
from tvg.video.lengths import measure

ITEM = {"video": "a/b/x.mp4", "duration": 20.0, "timestamp": [1.0, 4.0], "sentence": "a dog runs", "video_start": None,
        "video_end": None}  # fmt: skip


def identity(**settings):
    shipped = read_dataset(REPO / "config" / "datasets", "timerft")
    return shipped.model_copy(update={"settings": shipped.settings | settings})


def write(folder, items):
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train_2k5.json").write_text(json.dumps(items))
    return identity(files={}, splits={"train": {"annotations": "train_2k5.json"}}, may_lose=1.0)


def test_published_file(real_data, tmp_path):
    source = real_data("annotations/timerft/train_2k5.json")
    (tmp_path / "annotations").mkdir()
    shutil.copy(source, tmp_path / "annotations")
    loaded = datasets.load(identity(), "train", tmp_path)
    items = json.loads(source.read_text())
    assert len(loaded.samples) + len(loaded.rejected) == len(items) == 2500
    assert len(loaded.rejected) + len(loaded.clipped) == 48, "every end beyond the duration is listed"
    assert sum(sample.clip is not None for sample in loaded.samples) == sum(
        item["video_start"] is not None for item, kept in zip(items, items, strict=True) if kept
    ) - sum(json.loads(row["text"])["video_start"] is not None for row in loaded.rejected)
    for item in items:  # the file carries its own check of an IoU function
        assert 100 * tiou(Segment(*item["pred"]), Segment(*item["timestamp"])) == pytest.approx(item["difficulty"])


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": [4.0, 1.0]},
        {"timestamp": [120, 14220]},
        {"timestamp": [1]},
        {"duration": None},
        {"timestamp": "1-4"},
    ],
)
def test_a_broken_item_is_listed_with_its_reason(tmp_path, change):
    loaded = datasets.load(write(tmp_path, [ITEM, ITEM | change]), "train", tmp_path)
    assert [sample.id for sample in loaded.samples] == ["timerft-1"]
    (row,) = loaded.rejected
    assert row["line"] == 2 and row["reason"] and json.loads(row["text"])


def test_absent_videos_are_an_error_that_names_their_source(tmp_path):
    made = write(tmp_path, [ITEM])
    made = made.model_copy(update={"settings": made.settings | {"may_lose": 0.5}})
    with pytest.raises(TvgError, match="Boshenxx/TimeR1-Dataset"):
        datasets.fetch(made, tmp_path, 1, measure, tmp_path / "listed" / "problems.jsonl")
    assert json.loads((tmp_path / "listed" / "problems.jsonl").read_text()) == {"video": "x.mp4", "problem": "absent"}


@pytest.mark.parametrize(
    ("cut", "seconds", "fine"),
    [
        ((None, None), 20, True),
        ((None, None), 40, False),
        ((None, None), 12, False),
        ((15, 35), 20, True),  # the file is the cut already
        ((15, 35), 35, True),
        ((15, 35), 90, True),
        ((15, 35), 30, False),
    ],
)
def test_a_file_may_be_longer_than_its_cut(tmp_path, cut, seconds, fine):
    made = write(tmp_path, [ITEM | {"video_start": cut[0], "video_end": cut[1]}])
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "x.mp4", Track(steady(seconds, 1), rate=1, last=1000))
    fetched = datasets.fetch(made, tmp_path, 1, measure, tmp_path / "listed" / "problems.jsonl")
    assert (fetched.problems == {}) is fine
    assert fetched.files == ("x.mp4",) and fetched.adopted == 1
