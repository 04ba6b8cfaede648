"""ActivityNet, TACoS, QVHighlights, TVGBench, DiDeMo: the published files where they are there, and broken rows."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.unit.video_maker import Track, make_video, steady
from tvg import datasets
from tvg.config import read_dataset
from tvg.datasets import didemo
from tvg.errors import TvgError
from tvg.overview.cost.counts import Counts
from tvg.prompts import render
from tvg.sample import Sample, read_samples, write_samples
from tvg.segment import Segment
from tvg.settings import AnswerContract, Prompt
from tvg.spec import DatasetIdentity
from tvg.store import Store
from tvg.video.lengths import measure

FOLDER = REPO / "config" / "datasets"
SETS = ("activitynet", "tacos", "qvhighlights", "tvgbench", "didemo")
RECORD = {"duration": 20.0, "timestamps": [[1.0, 4.0]], "sentences": ["a dog runs"]}
WINDOWS = {"qid": 7, "query": "a dog runs", "duration": 20, "vid": "x_0.0_20.0", "relevant_windows": [[2, 6]]}
PART = {
    "path": "./a/x.mp4",
    "question": "a dog runs",
    "answer": "1.0-4.5",
    "start": None,
    "end": None,
    "duration": 20.0,
}
MARKED = {"annotation_id": 3, "video": "1@N0_2_ab.mov", "description": "a dog runs", "num_segments": 6,
          "times": [[1, 1], [1, 1], [1, 2], [0, 0]]}  # fmt: skip


def published(real_data, tmp_path: Path, name: str, split: str, source: str) -> datasets.Loaded:
    """A split of a shipped data set, from its real file."""
    identity = read_dataset(FOLDER, name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / identity.settings["splits"][split]["annotations"]).symlink_to(
        real_data(f"annotations/{source}")
    )
    return datasets.load(identity, split, tmp_path)


def small(tmp_path: Path, name: str, content, clean: bool = False, **settings) -> DatasetIdentity:
    """The shipped data set with one split, `some`, of one file that is not pinned."""
    shipped = read_dataset(FOLDER, name)
    (tmp_path / "annotations").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "annotations" / "some").write_text(text, encoding="utf-8")
    split = {"annotations": "some", "clean": clean}
    settings = {"files": {}, "splits": {"some": split}, "may_lose": 1.0} | settings
    return shipped.model_copy(update={"settings": shipped.settings | settings})


def some(tmp_path: Path, name: str, content, clean: bool = False, measured=None) -> datasets.Loaded:
    return datasets.load(small(tmp_path, name, content, clean), "some", tmp_path, measured)


def as_lines(*rows) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


# ---------------------------------------------------------------- the published files


@pytest.mark.parametrize(
    ("name", "split", "source", "rows", "videos"),
    [
        ("activitynet", "val_1", "activitynet/val.json", 17505, 4917),
        ("tacos", "val", "tacos/val.json", 4436, 27),
        ("qvhighlights", "val", "qvhighlights/highlight_val_release.jsonl", 1550, 1519),
        ("tvgbench", "test", "tvgbench/tvgbench.json", 800, 462),
        ("didemo", "val", "didemo/val_data.json", 4180, 1094),
    ],
)
def test_an_evaluation_split_is_whole(real_data, tmp_path, name, split, source, rows, videos):
    """All of it is asked, untouched, under ids of its own; nothing of the queries' text is lost on the way to a job."""
    loaded = published(real_data, tmp_path, name, split, source)
    assert loaded.lines == len(loaded.samples) == len({sample.id for sample in loaded.samples}) == rows
    assert len({sample.video for sample in loaded.samples}) == videos
    assert loaded.rejected == loaded.clipped == []
    assert all(s.query == s.query.strip() and "\n" not in s.query and "\t" not in s.query for s in loaded.samples)
    write_samples(tmp_path / "samples.jsonl", loaded.samples)
    assert list(read_samples(tmp_path / "samples.jsonl")) == loaded.samples


def test_activitynet_as_published(real_data, tmp_path):
    loaded = published(real_data, tmp_path, "activitynet", "val_1", "activitynet/val.json")
    over = [s.segments[0].end - s.duration for s in loaded.samples if s.segments[0].end > s.duration]
    assert len(over) == 134 and max(over) < 0.0101, "every end after the duration is kept as it is written"
    first = loaded.samples[0]
    assert first.video == "v_uqiMw7tQ1Cc.mp4" and first.segments == (Segment(0.28, 55.15),) and first.duration == 55.15
    asked = Prompt(texts={"ground": "When: {query}"}, answer=AnswerContract(format="fmt_ta", reward="ans_last"))
    odd = [s for s in loaded.samples if set("[]{}") & set(s.query) or not s.query.isascii()]
    assert odd and all(render(asked, sample)[-1]["content"] == f"When: {sample.query}" for sample in odd)


def test_tacos_counts_in_frames_and_repeats_itself(real_data, tmp_path):
    samples = published(real_data, tmp_path, "tacos", "val", "tacos/val.json").samples
    assert samples[0].id == "s34-d28-1" and samples[0].video == "s34-d28-cam-002.avi"
    assert samples[0].segments[0] == (pytest.approx(201 / 29.4), pytest.approx(487 / 29.4))
    distinct = {(sample.video, sample.query, sample.segments) for sample in samples}
    assert len(samples) - len(distinct) == 516 + 3, "three more differ by spaces only"
    assert all(sample.segments[0].end <= sample.duration for sample in samples)


def test_qvhighlights_has_several_windows(real_data, tmp_path):
    loaded = published(real_data, tmp_path, "qvhighlights", "val", "qvhighlights/highlight_val_release.jsonl")
    windows = [len(sample.segments) for sample in loaded.samples]
    assert sum(windows) == 2803 and max(windows) == 25 and sum(count > 1 for count in windows) == 530
    whole = [s for s in loaded.samples if Segment(0.0, s.duration) in s.segments]
    assert len(whole) == 52
    assert loaded.samples[0].id == "qvhighlights-2579" and loaded.samples[0].video == "NUsG9BgSes0_210.0_360.0.mp4"


def test_tvgbench_asks_about_parts_of_files(real_data, tmp_path):
    samples = published(real_data, tmp_path, "tvgbench", "test", "tvgbench/tvgbench.json").samples
    parts = [sample for sample in samples if sample.clip]
    assert len(parts) == 252 and all(s.clip.length == pytest.approx(s.duration) for s in parts)
    assert sum(s.segments[0].length == 0 for s in samples) == 11, "R1 cannot exceed 98.625 %"
    assert sum(s.segments[0].end > s.duration for s in samples) == 27
    assert min(sample.duration for sample in samples) == pytest.approx(1.3)
    endings = Counter(Path(path).suffix for path in {s.id: s.video for s in samples}.values())
    assert endings == {".mp4": 622, ".avi": 168, ".mkv": 10}


def test_didemo_is_what_most_annotators_marked(real_data, tmp_path):
    loaded = published(real_data, tmp_path, "didemo", "val", "didemo/val_data.json")
    assert sum(len(sample.segments) > 1 for sample in loaded.samples) == 326
    first = loaded.samples[0]
    assert first.id == "didemo-49152" and first.segments == (Segment(5.0, 10.0),) and first.duration == 30.0
    rows = json.loads(real_data("annotations/didemo/val_data.json").read_text())
    best = [official(row) == max(map(official_of(row), MOMENTS)) for row in rows]
    assert sum(best) == 4179, "no moment scores better in the publisher's evaluation, but in one query"


MOMENTS = [(first, last) for first in range(6) for last in range(first, 6)]


def official_of(row):
    """The publisher's score of a moment: the mean of the three best overlaps with what annotators marked."""

    def score(moment):
        overlaps = [
            max(0, min(moment[1], last) + 1 - max(moment[0], first))
            / (max(moment[1], last) + 1 - min(moment[0], first))
            for first, last in row["times"]
        ]
        return round(sum(sorted(overlaps)[-3:]) / 3, 9)

    return score


def official(row):
    return min(map(official_of(row), didemo.agreed(row["times"])))


# ---------------------------------------------------------------- what a row may look like


def test_seconds_frames_and_names(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("v_b.webm", "v_c.mkv", "v_c.mp4"):
        (tmp_path / "videos" / name).touch()
    seconds = {f"v_{letter}": RECORD for letter in "abc"}
    samples = some(tmp_path, "activitynet", seconds).samples
    assert [sample.video for sample in samples] == ["v_a.mp4", "v_b.webm", "v_c.mp4"], "absent: the first ending"
    frames = {"s1-d2.avi": {"fps": 25.0, "num_frames": 500, "timestamps": [[25, 100]], "sentences": [" He\n cuts. "]}}
    (sample,) = some(tmp_path, "tacos", frames).samples
    assert sample == Sample("s1-d2-1", "s1-d2-cam-002.avi", 20.0, "He cuts.", (Segment(1.0, 4.0),))
    (tmp_path / "videos" / "s1-d2.mp4").touch()
    assert some(tmp_path, "tacos", frames).samples[0].video == "s1-d2.mp4"


def test_training_is_cleaned_and_what_is_scored_is_not(tmp_path):
    times = [[4.0, 1.0], [2.0, 2.0], [1.0, 20.01], [1.0, 1.2], [1.0, 4.0]]
    content = {"v_a": {"duration": 20.0, "timestamps": times, "sentences": ["a dog runs"] * 5}}
    kept = some(tmp_path, "activitynet", content, clean=True)
    assert [(s.id, s.segments[0]) for s in kept.samples] == [("v_a-3", (1.0, 20.0)), ("v_a-5", (1.0, 4.0))]
    assert [row["line"] for row in kept.rejected] == [1, 2, 4] and [row["line"] for row in kept.clipped] == [3]
    scored = some(tmp_path, "activitynet", content)
    assert [[*sample.segments[0]] for sample in scored.samples] == times
    assert scored.rejected == scored.clipped == []


def test_of_several_windows_only_the_bad_ones_go(tmp_path):
    row = WINDOWS | {"relevant_windows": [[2, 6], [6, 6], [18, 22]]}
    (sample,) = some(tmp_path, "qvhighlights", as_lines(row), clean=True).samples
    assert sample.segments == (Segment(2, 6), Segment(18, 20))
    (sample,) = some(tmp_path, "qvhighlights", as_lines(row)).samples
    assert len(sample.segments) == 3


def test_the_test_file_without_windows_says_which_has_them(tmp_path):
    bare = {key: value for key, value in WINDOWS.items() if key != "relevant_windows"}
    with pytest.raises(TvgError, match="no query has its windows") as error:
        some(tmp_path, "qvhighlights", as_lines(bare, bare))
    assert "highlight_test_with_gt.jsonl" in error.value.hint


@pytest.mark.parametrize(
    ("name", "good", "change"),
    [
        *[("activitynet", RECORD, change) for change in (
            {"duration": None}, {"duration": 0}, {"timestamps": [[1]]}, {"timestamps": []}, {"timestamps": [["a", 2]]},
            {"timestamps": [[float("nan"), 2]]}, {"sentences": ["  "]}, {"sentences": [3]}, {"sentences": None},
            {"fps": 0}, {"fps": 25},
        )],
        *[("qvhighlights", WINDOWS, change) for change in (
            {"relevant_windows": []}, {"relevant_windows": None}, {"relevant_windows": [[1, 2, 3]]}, {"vid": "../x"},
            {"query": None}, {"duration": "long"}, {"qid": 7},
        )],
        *[("tvgbench", PART, change) for change in (
            {"answer": "1.0 to 4.5"}, {"answer": "-1.0-4.5"}, {"answer": [1, 4]}, {"path": ""}, {"path": ".."},
            {"duration": None}, {"question": ""},
        )],
        *[("didemo", MARKED, change) for change in (
            {"times": [[0, 0], [1, 1], [2, 2], [3, 3]]}, {"times": []}, {"times": [[6, 6]] * 4},
            {"times": [[3, 2]] * 4}, {"num_segments": None}, {"description": "\n"}, {"annotation_id": 3},
        )],
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else value,
)  # fmt: skip
def test_a_broken_row_is_listed_with_its_reason(tmp_path, name, good, change):
    bad = good | change
    content = {
        "activitynet": {"v_a": good, "v_b": bad}, "qvhighlights": as_lines(good, bad)
    }.get(name, [good, bad])  # fmt: skip
    if name == "didemo" and "annotation_id" not in change:
        content[1]["annotation_id"] = 4
    if name == "qvhighlights" and "qid" not in change:
        content = as_lines(good, bad | {"qid": 8})
    loaded = some(tmp_path, name, content)
    assert len(loaded.samples) == 1
    (row,) = loaded.rejected
    assert row["line"] == 2 and row["text"] and "not a row of this data set: " in row["reason"]
    with pytest.raises(TvgError, match="too many annotation lines rejected"):
        datasets.load(small(tmp_path, name, content, may_lose=0.1), "some", tmp_path)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("content", ["{", "3", '"a"', "[1, null]", '{"a": 1}', '{"a": {"sentences": []}}', ""])
def test_any_other_file_is_an_error_or_has_no_samples(tmp_path, name, content):
    try:
        assert some(tmp_path, name, content).samples == []
    except TvgError as error:
        assert error.where.endswith("some")


@pytest.mark.parametrize(("count", "error"), [("rows", "number of queries"), ("videos", "number of videos")])
def test_other_counts_than_published_are_an_error(tmp_path, count, error):
    splits = {"some": {"annotations": "some", "clean": False, count: 2}}
    with pytest.raises(TvgError, match=error):
        datasets.load(small(tmp_path, "activitynet", {"v_a": RECORD}, splits=splits), "some", tmp_path)


# ---------------------------------------------------------------- votes and lengths of DiDeMo, parts of TVGBench


@given(st.lists(st.sampled_from([[0, 0], [0, 1], [1, 1], [2, 5]]), min_size=5, max_size=9), st.randoms())
def test_a_vote_does_not_depend_on_the_order(times, random):
    """Five votes for four moments: two agree, at least."""
    chosen = didemo.agreed(times)
    counts = Counter(map(tuple, times))
    assert {counts[moment] for moment in chosen} == {max(counts.values())} and len(chosen) == len(set(chosen))
    random.shuffle(times)
    assert didemo.agreed(times) == chosen


@pytest.mark.parametrize(
    ("seconds", "duration", "end", "clip"),
    [(28.2, 28.2, 28.2, None), (30.0, 30.0, 30.0, None), (70.0, 30.0, 30.0, (0.0, 30.0)), (12.0, 12.0, 30.0, None),
     ("no video stream", 30.0, 30.0, None)],
)  # fmt: skip
def test_the_last_chunk_ends_with_the_video(tmp_path, seconds, duration, end, clip):
    """Measured; of a longer video annotators saw thirty seconds."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "1@N0_2_ab.mp4").touch()
    rows = [MARKED | {"times": [[5, 5]] * 4}]
    loaded = some(tmp_path, "didemo", rows, measured=lambda paths, exact: {path.name: seconds for path in paths})
    (sample,) = loaded.samples
    assert sample.video == "1@N0_2_ab.mp4" and sample.duration == duration and sample.clip == clip
    assert sample.segments == (Segment(25.0, end),)


@pytest.mark.parametrize(
    ("seconds", "clip", "duration"),
    [(60.0, (15.0, 35.0), 20.0), (30.0, (15.0, 30.0), 15.0), (34.5, (15.0, 35.0), 20.0), (15.0, (15.0, 35.0), 20.0),
     ("absent", (15.0, 35.0), 20.0)],
)  # fmt: skip
def test_a_part_ends_with_its_file(tmp_path, seconds, clip, duration):
    """The truth stays as written: it counts from the start of the part."""
    rows = [PART | {"start": 15.0, "end": 35.0}, PART]
    loaded = some(tmp_path, "tvgbench", rows, measured=lambda paths, exact: {path.name: seconds for path in paths})
    assert loaded.samples[0].clip == clip and loaded.samples[0].duration == duration
    assert loaded.samples[1].clip is None and loaded.samples[1].duration == 20.0
    assert {sample.segments for sample in loaded.samples} == {(Segment(1.0, 4.5),)}
    assert [row["line"] for row in loaded.clipped] == ([1] if duration == 15.0 else [])


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("name", "content", "video", "seconds", "fine"),
    [
        ("activitynet", {"v_a": RECORD}, "v_a.mkv", 20, True),
        ("activitynet", {"v_a": RECORD}, "v_a.mp4", 12, False),
        ("qvhighlights", as_lines(WINDOWS), "x_0.0_20.0.mp4", 20, True),
        ("tvgbench", [PART], "x.mp4", 40, False),
        ("tvgbench", [PART | {"start": 30.0, "end": 50.0}], "x.mp4", 45, True),  # goes on to the end of the truth
        ("tvgbench", [PART | {"start": 30.0, "end": 50.0}], "x.mp4", 20, False),  # no file is the part already
        ("didemo", [MARKED], "1@N0_2_ab.mov.mp4", 26, True),
        ("didemo", [MARKED], "1@N0_2_ab.mp4", 70, True),
        ("didemo", [MARKED], "1@N0_2_ab.mov", 12, False),
    ],
)
def test_videos_that_are_there_are_compared_with_the_annotations(tmp_path, name, content, video, seconds, fine):
    (tmp_path / "videos").mkdir()
    drawn = make_video(tmp_path / "drawn.mp4", Track(steady(seconds, 1), rate=1, last=1000))
    drawn.rename(tmp_path / "videos" / video)
    fetched = datasets.fetch(small(tmp_path, name, content), tmp_path, 1, measure, tmp_path / "problems.jsonl")
    assert fetched.files == (video,) and (fetched.problems == {}) is fine


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [("activitynet", {"v_a": RECORD}, "v_a.mp4"), ("tacos", {"s1.avi": RECORD}, "s1-cam-002.avi"),
     ("qvhighlights", as_lines(WINDOWS), "x_0.0_20.0.mp4"), ("tvgbench", [PART], "x.mp4"),
     ("didemo", [MARKED], "1@N0_2_ab.mov")],
)  # fmt: skip
def test_absent_videos_are_an_error_that_says_where_to_get_them(tmp_path, name, content, first):
    made = small(tmp_path, name, content, may_lose=0.5)
    with pytest.raises(TvgError, match="too many videos absent") as error:
        datasets.fetch(made, tmp_path, 1, measure, tmp_path / "problems.jsonl")
    assert made.settings["videos_from"] in error.value.hint
    assert json.loads((tmp_path / "problems.jsonl").read_text()) == {"video": first, "problem": "absent"}


@pytest.mark.parametrize(
    ("name", "videos", "most"), [("tvgbench", 462, False), ("tacos", 127, True), ("didemo", None, False)]
)
def test_a_plan_knows_how_many_videos_there_are(tmp_path, name, videos, most):
    found = Counts(Store(tmp_path)).all_videos(read_dataset(FOLDER, name))
    assert (found.value, found.most) == (videos, most)


@pytest.mark.parametrize("name", SETS)
def test_every_shipped_file_comes_from_one_commit_and_is_known(name):
    """What has no checksum is said to have none in the YAML."""
    settings = read_dataset(FOLDER, name).settings
    assert {split["annotations"] for split in settings["splits"].values()} == set(settings["files"])
    unknown = [file for file, source in settings["files"].items() if "sha256" not in source]
    assert unknown == (["train_data.json"] if name == "didemo" else [])
    assert all("/raw.githubusercontent.com/" in source["url"] for source in settings["files"].values())
    assert [split for split, what in settings["splits"].items() if what["clean"]] == [
        split for split in settings["splits"] if split == "train"
    ]
