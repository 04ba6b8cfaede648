"""Data of the user's own: rows, their errors by line, durations from the files, the identity, `tvg data check`."""

import hashlib
import json
import re
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.unit.video_maker import Track, make_video, steady
from tvg import cli, datasets
from tvg.config import read_dataset
from tvg.datasets.rows import FIELDS, parse, read
from tvg.errors import TvgError
from tvg.sample import Sample, read_samples, write_samples
from tvg.segment import Segment
from tvg.spec import DatasetIdentity, SamplesSpec
from tvg.store import Store, identify
from tvg.video.lengths import measure

GOOD = {"id": "a", "video": "ten.mp4", "query": "a person sits", "segments": [[1.0, 4.0]], "duration": 10.0}
YAML = "kind: jsonl\nversion: 1\nvideos: my videos\nsplits: {train: my_train.jsonl, test: my_test.jsonl}\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder where a user calls snakemake: two videos, of 10 s and 20 s, and a data set's YAML."""
    monkeypatch.chdir(tmp_path)
    Path("my videos").mkdir()
    for name, seconds in (("ten.mp4", 10), ("a b:c@d+e_é.mp4", 20)):
        make_video(Path("my videos") / name, Track(steady(2 * seconds, 2), rate=2, last=500))
    Path("datasets").mkdir()
    Path("datasets/own.yaml").write_text(YAML)
    return tmp_path


def line(change: dict | str, **more) -> str:
    """GOOD with a change (a string: as it is); "gone" takes a key away."""
    if isinstance(change, str):
        return change
    return json.dumps({key: value for key, value in {**GOOD, **more, **change}.items() if value != "gone"})


def rows(*changes: dict | str, to: str = "my_train.jsonl") -> Path:
    """Write a line for each change, ids 0, 1, ... unless changed."""
    Path(to).write_text("".join(line(change, id=str(n)) + "\n" for n, change in enumerate(changes)), encoding="utf-8")
    return Path(to)


def own_identity(split: str | None = None, **changes) -> DatasetIdentity:
    identity = read_dataset(Path("datasets"), "own", split)
    return identity.model_copy(update={"settings": {**identity.settings, **changes}})


def load(split: str = "train", **changes) -> datasets.Loaded:
    return datasets.load(own_identity(split, **changes), split, Path("unused"), measure_here, Path("listed.jsonl"))


measure_here = partial(measure, jobs=2)


# ---------------------------------------------------------------- a line

BROKEN = [
    ("not json", "not JSON: Expecting value at column 1"),
    ('{"id": "a", "id": "b"}', "the key 'id' comes twice"),
    ("[1, 2]", "not a JSON object but [1, 2]"),
    ("[" * 100_000, "not JSON that can be read"),
    ({"id": "gone"}, "no `id`"),
    ({"id": ""}, "`id` is empty"),
    ({"id": 7}, "`id` is not a string but 7"),
    ({"id": "a\nb"}, "`id` holds a control character"),
    ({"video": "gone"}, "no `video`"),
    ({"query": " \t "}, "`query` is empty"),
    ({"query": "\ud83d"}, "`query` holds half a character"),
    ({"segments": []}, "`segments` is not a list of [start, end] but []"),
    ({"segments": [1, 2]}, "`segments` is not a list of [start, end]"),
    ({"segments": [[1, 2, 3]]}, "`segments` is not a list of [start, end]"),
    ({"segments": [[1, "2"]]}, "`segments` holds what is no finite number: '2'"),
    ({"segments": [[1, True]]}, "`segments` holds what is no finite number: True"),
    ({"segments": [[1, float("nan")]]}, "`segments` holds what is no finite number: nan"),
    ({"segments": [[1, float("inf")]]}, "`segments` holds what is no finite number: inf"),
    ({"segments": [[1, 10**400]]}, "`segments` holds what is no finite number"),
    ({"duration": 0}, "`duration` is not above 0"),
    ({"duration": "10"}, "`duration` holds what is no finite number: '10'"),
    ({"completion": 7}, "`completion` is not a string but 7"),
    ({"completion": " "}, "`completion` is empty"),
    ({"captions": "a"}, "`captions` is not a list of [start, end, text] but 'a'"),
    ({"captions": [[1, 2]]}, "`captions` is not a list of [start, end, text]"),
    ({"captions": [[1, 2, "a"], {"start": 3}]}, "`captions` is not a list of [start, end, text]"),
    ({"captions": [[1, 2, "a"], [3, "4", "b"]]}, "`captions` holds what is no finite number: '4', in caption 2"),
    ({"captions": [[1, 2, ""]]}, "`captions` is empty, in caption 1"),
    ({"captions": [[1, 2, "a"], [0.5, 4, "b"]]}, "not in order of time: caption 2 starts before caption 1"),
]


@pytest.mark.parametrize(("change", "problem"), BROKEN)
def test_a_broken_line_says_what_is_wrong(change, problem):
    row, problems, _ = parse(line(change))
    assert row is None and len(problems) == 1 and problem in problems[0]


def test_all_that_is_wrong_with_a_line_is_said_at_once():
    row, problems, extra = parse('{"video": "../x", "query": "", "segments": 1, "duraton": 3}')
    assert row is None and [problem.split()[:2] for problem in problems] == [
        ["no", "`id`"], ["`video`", "is"], ["`query`", "is"], ["`segments`", "is"],
    ]  # fmt: skip
    assert extra == ["duraton"]


@pytest.mark.parametrize(
    "name",
    [
        "..", ".", "../x.mp4", "a/../x.mp4", "a/x.mp4", "/etc/passwd", "x\\y.mp4", "..\\x.mp4", "x;rm.mp4", "x|y.mp4",
        "x&y.mp4", "$HOME.mp4", "$(rm).mp4", "`rm`.mp4", "x<y.mp4", "x>y.mp4", "x'y.mp4", 'x"y.mp4', "x*.mp4", "x?.mp4",
        "x\ny.mp4", "x\ty.mp4", "x\x00.mp4", "x\x7f.mp4", "x\x85.mp4", "x\u2028y.mp4", "gpj\u202e4pm.mp4", "a..b.mp4",
        "x" * 252 + ".mp4", "é" * 126 + ".mp4", "", "  ", "\ud800.mp4", 7, None, ["x.mp4"],
    ],
)  # fmt: skip
def test_file_names_that_are_refused(name):
    row, problems, _ = parse(json.dumps({**GOOD, "video": name}))
    assert row is None and len(problems) == 1 and problems[0].startswith("`video` ")


@pytest.mark.parametrize(
    "name",
    [
        "x.mp4", "-I-wH0MQbMs.mp4", "27106108@N06_9607275967_20ef539e82.mp4",
        "RX9Sk3E8ht0_00:00:12:700_00:00:56:100.mp4", "動画.webm", "видео.mp4",
        "a b.mp4", "a+b.mp4", "Video (1).mp4", "Title [dQw4w9WgXcQ].mkv", "é.mp4", "e\u0301.mp4",
        "#1, a=b%20~!.mp4", ".hidden.mp4", "no suffix",
    ],
)  # fmt: skip
def test_file_names_that_are_legal(name):
    row, problems, _ = parse(json.dumps({**GOOD, "video": name}))
    assert problems == [] and row.video == name


def test_every_published_name_is_legal(real_data):
    items = json.loads(real_data("annotations/timerft/train_2k5.json").read_text())
    for item in items:
        row, problems, _ = parse(json.dumps({**GOOD, "video": item["video"].rsplit("/", 1)[-1]}))
        assert row is not None, problems


@given(st.text())
def test_any_text_is_a_row_or_broken_but_never_raises(text):
    row, problems, _ = parse(text)
    assert (row is None) == bool(problems)


@given(st.binary())
def test_any_bytes_are_read_line_by_line(content):
    for line in read(content):
        assert (line.row is None) == bool(line.problems) and 1 <= line.number <= content.count(b"\n") + 1


QUERIES = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
NAMES = st.from_regex(r"[\w@:+ ()\[\]-]{1,40}\.mp4", fullmatch=True).filter(lambda name: len(name.encode()) <= 255)
SEGMENTS = st.lists(
    st.tuples(st.floats(0, 900), st.floats(1, 90)).map(lambda pair: [pair[0], pair[0] + pair[1]]),
    min_size=1,
    max_size=4,
)
LEGAL = st.lists(
    st.fixed_dictionaries(
        {"id": st.uuids().map(str), "video": NAMES, "query": QUERIES, "segments": SEGMENTS, "duration": st.just(1000.0)}
    ),
    min_size=1,
    unique_by=lambda row: row["id"],
)


@given(LEGAL, st.booleans())
def test_legal_rows_come_back_as_they_were_written(tmp_path_factory, written, ascii_only):
    folder = tmp_path_factory.mktemp("rows")
    path = folder / "rows.jsonl"
    path.write_bytes("\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in written).encode())
    settings = {"videos": "unused", "splits": {"train": str(path), "test": str(path)}}
    identity = DatasetIdentity(name="own", kind="jsonl", version=1, settings=settings)
    for split in ("train", "test"):
        loaded = datasets.load(identity, split, folder)
        assert loaded.rejected == loaded.clipped == []
        write_samples(folder / "samples.jsonl", loaded.samples)
        assert list(read_samples(folder / "samples.jsonl")) == [
            Sample(row["id"], row["video"], 1000.0, row["query"], tuple(Segment(*pair) for pair in row["segments"]))
            for row in written
        ]


# ---------------------------------------------------------------- a split


def test_a_broken_line_is_named_and_the_rest_still_read(own, caplog):
    rows({}, "broken", {}, "", {"id": "0"}, {"video": "a;b.mp4"})
    loaded = load(may_lose=0.6)
    assert [sample.id for sample in loaded.samples] == ["0", "2"]
    assert [(row["file"], row["line"], row["reason"]) for row in loaded.rejected] == [
        ("my_train.jsonl", 2, "not JSON: Expecting value at column 1"),
        ("my_train.jsonl", 5, "the id '0' is that of line 1"),
        ("my_train.jsonl", 6, "`video` is not a plain file name: 'a;b.mp4' holds ';'"),
    ]
    assert "my_train.jsonl:5: the id '0' is that of line 1" in caplog.text


def test_too_many_lost_is_an_error_after_all_are_listed(own):
    rows({}, "broken", {}, "{}")
    with pytest.raises(TvgError, match=r"2 of 4 \(line 2: .*listed in listed.rejected.jsonl"):
        load(may_lose=0.49)
    assert [json.loads(row)["line"] for row in Path("listed.rejected.jsonl").read_text().splitlines()] == [2, 4]
    with pytest.raises(TvgError):
        load()
    assert len(load(may_lose=0.5).samples) == 2


def test_a_line_that_is_not_utf8_spoils_only_itself(own):
    text = json.dumps({**GOOD, "query": "é"}, ensure_ascii=False)
    Path("my_train.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n" + text.encode("latin1") + b"\n\n")
    loaded = load(may_lose=0.5)
    assert [sample.query for sample in loaded.samples] == ["é"]
    assert loaded.rejected[0]["line"] == 2 and "UTF-8" in loaded.rejected[0]["reason"]


def test_durations_that_are_not_stated_come_from_the_files(own):
    rows({"duration": "gone"}, {"duration": None, "video": "a b:c@d+e_é.mp4"}, {"duration": 9.5})
    assert [sample.duration for sample in load().samples] == [10.0, 20.0, 9.5]


def test_without_a_duration_the_file_must_be_there_and_whole(own):
    Path("my videos/bad.mp4").write_text("<html>")
    rows({"duration": "gone", "video": "none.mp4"}, {"duration": "gone", "video": "bad.mp4"}, {"video": "none2.mp4"})
    loaded = load(may_lose=1.0)
    assert [sample.video for sample in loaded.samples] == ["none2.mp4"], "who states a duration needs no file here"
    assert [row["line"] for row in loaded.rejected] == [1, 2]
    assert "none.mp4: no such video" in loaded.rejected[0]["reason"] and "damaged" in loaded.rejected[1]["reason"]


def test_nothing_has_no_duration(own):
    rows({"duration": "gone"}, {"video": "other.mp4"})
    loaded = datasets.load(own_identity("train", may_lose=0.5), "train", Path("unused"))
    assert [sample.duration for sample in loaded.samples] == [10.0]
    assert "no duration is stated" in loaded.rejected[0]["reason"]


SPANS = (
    {"segments": [[4, 1]]},
    {"segments": [[3, 3]]},
    {"segments": [[2, 12]]},
    {"segments": [[9.6, 14]]},
    {"segments": [[-1, 4]]},
    {"segments": [[1, 2], [6, 5], [8, 11]]},
    {"segments": [[1, 10.2]]},
)


def test_training_is_cleaned(own):
    rows(*SPANS)
    loaded = load(may_lose=1.0)
    assert {sample.id: sample.segments for sample in loaded.samples} == {
        "2": ((2, 10),), "4": ((0, 4),), "5": ((1, 2), (8, 10)), "6": ((1, 10),),
    }  # fmt: skip
    assert [row["line"] for row in loaded.rejected] == [1, 2, 4]
    assert [row["line"] for row in loaded.clipped] == [3, 5, 6, 7]
    assert "segment 2: the segment ends at 5.0 s" in loaded.clipped[2]["reason"]


def test_evaluation_is_kept_as_written_and_doubts_are_said(own, caplog):
    rows(*SPANS, to="my_test.jsonl")
    loaded = load("test")
    assert [list(map(list, sample.segments)) for sample in loaded.samples] == [row["segments"] for row in SPANS]
    assert loaded.rejected == loaded.clipped == []
    said = [line for line in caplog.messages if "kept as written:" in line]
    assert [int(line.split(":")[1]) for line in said] == [1, 2, 3, 4, 5, 6], "0.2 s are within what durations differ by"


def test_completions_and_captions_come_with_the_sample(own):
    told = [[0, 2.5, "a person stands."], [2.5, 4, "a person sits.\nThen: nothing."], [3, 10.1, "é"]]
    rows({"completion": "<think>é</think> <time>[1, 4]</time>", "captions": told}, {"captions": []}, {"captions": None})
    rows({"captions": told}, to="my_test.jsonl")
    whole, none, without = load().samples
    assert whole.completion == "<think>é</think> <time>[1, 4]</time>" and none.completion is None
    assert whole.captions == ((0.0, 2.5, told[0][2]), (2.5, 4.0, told[1][2]), (3.0, 10.0, "é")), "cut at 10 s"
    assert (none.captions, without.captions) == ((), None)
    assert load("test").samples[0].captions[2] == (3.0, 10.1, "é"), "kept as written"


def test_captions_outside_the_video_are_named(own, caplog):
    told = [[-1, 2, "a"], [5, 4, "b"], [6, 10.2, "c"], [9.8, 14, "d"], [20, 30, "e"]]
    rows({"captions": told})
    rows({"captions": told}, to="my_test.jsonl")
    loaded = load()
    assert loaded.samples[0].captions == ((0.0, 2.0, "a"), (6.0, 10.0, "c"))
    reasons = loaded.clipped[0]["reason"]
    assert [f"caption {number}: " in reasons for number in range(1, 6)] == [True] * 5 and loaded.rejected == []
    assert len(load("test").samples[0].captions) == 5
    assert "kept as written: caption 1: the segment from -1.0 s" in caplog.text and "caption 3" not in caplog.text
    assert cli.main(["data", "check", "my_train.jsonl"]) == 1, "a person should look at them"
    rows({"captions": told[2:3]})
    assert cli.main(["data", "check", "my_train.jsonl"]) == 0


@pytest.mark.parametrize(
    ("split", "clean", "cleaned"),
    [("train", None, True), ("train_small", None, True), ("test", None, False), ("val", None, False),
     ("test", True, True), ("train", False, False)],
)  # fmt: skip
def test_which_splits_are_cleaned(own, split, clean, cleaned):
    rows({"segments": [[1, 12]]})
    entry = {"file": "my_train.jsonl"} | ({} if clean is None else {"clean": clean})
    loaded = load(split, splits={split: entry})
    assert (loaded.samples[0].segments[0].end == 10) is cleaned


def test_keys_that_are_not_read_are_said_once_with_what_was_meant(own, caplog):
    rows({"source": "x"}, {"source": "y", "duraton": 3})
    assert len(load().samples) == 2
    assert "keys that are not read: 'source' in 2 rows, 'duraton' in 1 rows (did you mean 'duration'?)" in caplog.text


def test_a_file_without_rows_is_an_error(own):
    Path("my_train.jsonl").write_text("\n \n")
    with pytest.raises(TvgError, match="no rows"):
        load()


# ---------------------------------------------------------------- the identity


def test_the_identity_holds_the_file(own):
    path = rows({})
    identity = own_identity()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert identity.settings["splits"] == {
        "train": {"file": "my_train.jsonl", "sha256": digest},
        "test": {"file": "my_test.jsonl", "sha256": "absent"},
    }
    rows({}, to="my_test.jsonl")
    assert own_identity().settings["splits"]["test"]["sha256"] == digest
    rows({"query": "another"})
    assert own_identity() != identity


def test_long_and_short_form_are_one_split(own):
    rows({})
    short = own_identity()
    Path("datasets/own.yaml").write_text(YAML.replace("train: my_train.jsonl", "train: {file: my_train.jsonl}"))
    assert own_identity() == short


def test_an_edit_of_the_test_file_is_none_of_the_training(own):
    rows({})
    before = own_identity("train"), own_identity("test")
    rows({}, to="my_test.jsonl")
    assert own_identity("train") == before[0] and own_identity("test") != before[1]
    assert list(before[0].settings["splits"]) == ["train"]
    assert list(own_identity("trian").settings["splits"]) == ["train", "test"], "for the error that lists them"


def test_an_absent_file_stops_only_the_job_that_needs_it(own):
    rows({})
    identity = own_identity()
    assert fetch(identity).files == ("ten.mp4",)
    assert len(datasets.load(identity, "train", Path("unused"), measure_here).samples) == 1
    with pytest.raises(TvgError, match="cannot read this annotation file") as error:
        datasets.load(identity, "test", Path("unused"), measure_here)
    assert error.value.where == "my_test.jsonl" and error.value.got == "No such file or directory"
    assert error.value.hint.startswith("put it there") and "completion, captions" in error.value.expected
    hinted = identity.model_copy(update={"settings": {**identity.settings, "hint": "from the library"}})
    with pytest.raises(TvgError) as error:
        datasets.load(hinted, "test", Path("unused"), measure_here)
    assert error.value.hint.startswith("from the library; put it there")
    rows({}, to="my_test.jsonl")
    with pytest.raises(TvgError, match="snakemake again"):
        datasets.load(identity, "test", Path("unused"), measure_here)


def test_a_file_that_changed_after_planning_is_not_taken(own):
    rows({})
    identity = own_identity()
    rows({"query": "another"})
    for job in (fetch, lambda identity: datasets.load(identity, "train", Path("unused"), measure_here)):
        with pytest.raises(TvgError, match="not the file that was planned with"):
            job(identity)


@pytest.mark.parametrize(
    ("yaml", "key"),
    [
        ("kind: jsonl\nversion: 1\nvideo: x\nsplits: {train: a}\n", "videos"),
        ("kind: jsonl\nversion: 1\nvideos: x\nsplits: {train: {fil: a}}\n", "fil"),
        ("kind: jsonl\nversion: 1\nvideos: x\nsplits: [a]\n", "splits"),
        ("kind: jsonl\nversion: 1\nvideos: x\nsplits: {}\n", "splits"),
        ("kind: jsonl\nversion: 1\nvideos: x\nsplits: {train: a}\nmay_loose: 0.1\n", "may_lose"),
        ("kind: jsonl\nversion: 1\nvideos: x\nsplits: {train: a}\nmay_lose: 2\n", "may_lose"),
    ],
)
def test_a_wrong_yaml_names_its_key(own, yaml, key):
    Path("datasets/own.yaml").write_text(yaml)
    with pytest.raises(TvgError, match=key) as error:
        datasets.check_settings(own_identity())
    assert error.value.where.startswith("config/datasets/own.yaml")


@pytest.mark.parametrize("name", ["timerft_pool", "tvg_r1_cold", "tvg_r1_rl", "taro"])
def test_what_a_person_brings_is_asked_for_where_it_is_needed(own, name):
    """The shipped data sets without a download: planned without their file, and asked for by the job."""
    identity = read_dataset(REPO / "config" / "datasets", name)
    assert identity.settings["splits"]["train"]["sha256"] == "absent"
    with pytest.raises(TvgError, match="cannot read this annotation file") as error:
        datasets.load(identity, "train", Path("unused"), measure_here)
    assert error.value.where == f"data/{name}/train.jsonl"
    assert "tvg data check --help" in error.value.hint and f"config/datasets/{name}.yaml" in error.value.hint
    assert "not public" in error.value.hint or "convert" in error.value.hint


def test_the_rows_that_the_shipped_files_show_are_legal():
    for name in ("timerft_pool", "tvg_r1_cold", "tvg_r1_rl", "taro"):
        text = (REPO / "config" / "datasets" / f"{name}.yaml").read_text()
        comment = "".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
        shown = re.search(r"\{\"id\".*?\}", comment)[0].replace("[start, end]", "[1, 2]").replace(", ...]", "]")
        row, problems, extra = parse(
            shown.replace('"id": ...', '"id": "1"').replace('"duration": ...', '"duration": 9')
        )
        assert (problems, extra) == ([], []) and row.duration == 9.0
        assert (row.completion is not None, row.captions is not None) == (name == "tvg_r1_cold", name == "taro")


# ---------------------------------------------------------------- the jobs


def fetch(identity: DatasetIdentity) -> datasets.Fetched:
    return datasets.fetch(identity, Path("unused"), 1, measure_here, Path("problems.jsonl"))


def test_fetch_looks_for_every_named_video_and_copies_nothing(own):
    rows({}, {"video": "none.mp4"}, "broken", {"video": "../up.mp4"})
    before = sorted(Path().rglob("*"))
    fetched = fetch(own_identity(may_lose=0.5))
    assert fetched == datasets.Fetched(("ten.mp4",), 0, 1, {"none.mp4": "absent"})
    assert sorted(Path().rglob("*")) == sorted([*before, Path("problems.jsonl")])
    with pytest.raises(TvgError, match="1 of 2") as error:
        fetch(own_identity(may_lose=0.4))
    assert error.value.where == "my videos" and "put them into my videos" in error.value.hint


def test_fetch_compares_stated_durations_with_the_files(own):
    rows({"duration": 30.0})
    with pytest.raises(TvgError, match=r"lasts 10.00 s, the annotations say 30.00 s"):
        fetch(own_identity())


def test_videos_stay_where_they_are(own):
    rows({})
    assert Store("results/mini", "data").videos(own_identity()) == Path("my videos")


def test_both_jobs_from_the_spec_to_the_samples(own):
    rows({"duration": "gone"}, {"segments": [[2, 10.1]]})
    store, identity = Store("results/mini"), own_identity("train")
    spec = SamplesSpec(dataset=identity, split="train")
    paths = [str(store.spec(store.freeze(one))) for one in (identity, spec)]
    assert cli.main(["download", paths[0]]) == 0 and cli.main(["annotations", paths[1]]) == 0
    assert store.files(identity) == ["ten.mp4"], "and not what else is in the folder"
    assert len(list(read_samples(store.samples(spec)))) == 2
    assert Path(f"results/mini/samples/{identify(spec)}.clipped.jsonl").read_text().count("\n") == 1


def test_the_annotations_job_lists_what_it_lost_before_it_fails(own, caplog):
    rows({}, "broken")
    store, spec = Store("results/mini"), SamplesSpec(dataset=own_identity("train"), split="train")
    assert cli.main(["annotations", str(store.spec(store.freeze(spec)))]) == 1
    assert "1 of 2 (line 2: not JSON" in caplog.text and not store.samples(spec).exists()
    assert json.loads(store.samples(spec).with_suffix(".rejected.jsonl").read_text())["line"] == 2


# ---------------------------------------------------------------- tvg data check


def test_check_names_every_broken_line(own, capsys):
    rows({}, "broken", {"id": "0"}, {"video": "none.mp4"}, {"segments": [[1, 30]]}, {"duration": 30},
         {"segments": [[4, 1]]}, {"segments": [[1, 10.1]], "source": "x"}, {"segments": [[1, 2], [3, 4]]})  # fmt: skip
    assert cli.main(["data", "check", "my_train.jsonl", "--videos", "my videos"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said if line.startswith("line ")] == [
        "line 2", "line 3", "line 4", "line 5", "line 6", "line 7", "line 8 (not broken)",
    ]  # fmt: skip
    assert "not read: the key 'source' in 1 rows" in said
    assert "my_train.jsonl: 6 of 9 lines broken, as a train split" in said
    assert "  rows to use       4, of 1 videos (4.0 a video)" in said


def test_check_as_json(own, capsys):
    rows({}, {"video": "a b:c@d+e_é.mp4", "duration": "gone", "segments": [[1, 2], [3, 5]]}, {"segments": [[1, 1.2]]})
    assert cli.main(["data", "check", "my_train.jsonl", "--videos", "my videos", "--split-kind", "eval", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "my_train.jsonl", "split_kind": "eval", "videos_opened": True, "lines": 3, "broken": [], "changed": [],
        "keys_not_read": [], "rows": 3, "videos": 2, "queries_per_video": 1.5, "several_segments": 1,
        "completions": 0, "captioned": 0,
        "duration_s": {"mean": 15.0, "median": 15.0}, "segment_s": {"mean": 1.55, "median": 1.5},
    }  # fmt: skip
    assert cli.main(["data", "check", "my_train.jsonl", "--json"]) == 1, "0.2 s are too short to train on"


def test_check_counts_completions_and_captions(own, capsys):
    rows({"completion": "a"}, {"completion": "b", "captions": [[1, 2, "c"]]}, {"captions": []})
    assert cli.main(["data", "check", "my_train.jsonl"]) == 0
    assert "  more              2 rows have a completion, 1 captions\n" in capsys.readouterr().out
    rows({})
    assert cli.main(["data", "check", "my_train.jsonl"]) == 0
    assert "  more " not in capsys.readouterr().out


def test_check_without_videos_says_so_and_checks_the_rest(own, capsys):
    rows({"video": "none.mp4", "duration": "gone"}, {"segments": [[1, 30]]})
    assert cli.main(["data", "check", "my_train.jsonl"]) == 1
    said = capsys.readouterr().out
    assert "line 2: " in said and "line 1" not in said and "give their folder with --videos" in said


def test_check_of_nothing_is_an_error(own, caplog):
    assert cli.main(["data", "check", "none.jsonl"]) == 1
    Path("empty.jsonl").write_text("")
    assert cli.main(["data", "check", "empty.jsonl"]) == 1
    rows({})
    assert cli.main(["data", "check", "my_train.jsonl", "--videos", "none"]) == 1
    assert "No such file" in caplog.text and "an empty file" in caplog.text and "no such folder" in caplog.text


def test_help_of_the_nested_verb_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        cli.main(["data", "check", "--help"])
    said = capsys.readouterr().out
    assert "example: tvg data check my_train.jsonl --videos my_videos" in said
    assert all(key in said for key in FIELDS)


@pytest.mark.parametrize("change", [change for change, _ in BROKEN])
def test_check_and_loader_agree(own, change):
    rows({"id": "first"}, change)
    assert cli.main(["data", "check", "my_train.jsonl"]) == 1
    assert [row["line"] for row in load(may_lose=1.0).rejected] == [2]
