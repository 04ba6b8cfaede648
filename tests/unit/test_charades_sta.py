"""Charades-STA lines, durations, cleaning; the published files where the folder of real data is there."""

import json
import logging
import math
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.unit.video_maker import Track, make_video, steady
from tvg import datasets
from tvg.config import read_dataset
from tvg.datasets.charades_sta import clean, parse
from tvg.errors import TvgError
from tvg.sample import Sample, read_samples, write_samples
from tvg.segment import Segment
from tvg.spec import DatasetIdentity
from tvg.video.lengths import measure

REAL = read_dataset(REPO / "config" / "datasets", "charades_sta")
DURATIONS = 'id,script,length\nAAAAA,"two\nlines, quoted",30.5\nBBBBB,x,10.0\nZZZZZ,x,\n'


def small(folder: Path, lines: str | bytes, **changes) -> DatasetIdentity:
    """A data set of one file `lines`, in split `train` cleaned and in split `test` not."""
    annotations = folder / "annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    (annotations / "a.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    (annotations / "d.csv").write_text(DURATIONS)
    split = {"annotations": "a.txt", "durations": "d.csv"}
    settings = {
        "licence": "ours",
        "splits": {"train": {**split, "clean": True}, "test": {**split, "clean": False}},
        "files": {},
        "videos": {"url": "http://127.0.0.1:1/none.zip"},
        "least": 0.5,
        "may_lose": 1.0,
    }
    return DatasetIdentity(name="small", kind="charades_sta", version=1, settings={**settings, **changes})


def linked(real_data, tmp_path, *names: str) -> Path:
    (tmp_path / "annotations").mkdir()
    for name in names:
        (tmp_path / "annotations" / name).symlink_to(real_data(f"annotations/charades-sta/{name}"))
    return tmp_path


# ---------------------------------------------------------------- the published files


def test_real_test_split_is_whole_and_untouched(real_data, tmp_path):
    folder = linked(real_data, tmp_path, "charades_sta_test.txt", "Charades_v1_test.csv")
    loaded = datasets.load(REAL, "test", folder)
    assert len(loaded.samples) == 3720
    assert loaded.rejected == loaded.clipped == []
    assert len({sample.id for sample in loaded.samples}) == 3720
    assert len({sample.video for sample in loaded.samples}) == 1334
    assert sum(s.segments[0].end > s.duration for s in loaded.samples) == 562
    assert next(s for s in loaded.samples if s.video == "OHOFG.mp4").duration == 35.04


def test_real_train_lines_all_parse(real_data):
    lines = real_data("annotations/charades-sta/charades_sta_train.txt").read_text(encoding="utf-8").splitlines()
    parsed = [parse(line) for line in lines]
    assert len(parsed) == 12408
    assert None not in parsed
    assert len({line.video for line in parsed}) == 5338
    assert [line.video for line in parsed if line.segment.end <= line.segment.start] == [
        "LEOL6", "IOL8Q", "AKKWU", "AKKWU",
    ]  # fmt: skip
    assert sum("#" in line.query for line in parsed) > 0


def test_real_train_split_is_cleaned(real_data, tmp_path):
    folder = linked(real_data, tmp_path, "charades_sta_train.txt", "Charades_v1_train.csv")
    loaded = datasets.load(REAL, "train", folder)
    assert len(loaded.samples) == 12404
    assert [row["line"] for row in loaded.rejected] == [8252, 8440, 9623, 9624]
    assert len(loaded.clipped) == 1802  # the other 3 of the 1,805 that overrun are reversed as well
    assert all(0 <= s.segments[0].start < s.segments[0].end <= s.duration for s in loaded.samples)


def test_pinned_files_are_recognised(real_data, tmp_path):
    folder = linked(real_data, tmp_path, "Charades_v1_test.csv")
    path = folder / "annotations" / "charades_sta_test.txt"
    path.write_bytes(real_data("annotations/charades-sta/charades_sta_test.txt").read_bytes() + b"\n")
    with pytest.raises(TvgError, match="not the file that was expected"):
        datasets.load(REAL, "test", folder)


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("3MSZA 24.3 30.4##person turn a light on.", "person turn a light on."),
        ("3MSZA 24 30##person #1 smiled at person #2.", "person #1 smiled at person #2."),
        ("3MSZA 24 30##a ## b", "a ## b"),
        ("3MSZA 24 30####", "##"),
        ("3MSZA  24\t30##  'quoted' \"twice\" {x} [y] %s ", "  'quoted' \"twice\" {x} [y] %s "),
        ("3MSZA 24 30##from 5 to 10", "from 5 to 10"),
        ("3MSZA 24 30##a\u2028b\x0bc\x85d", "a\u2028b\x0bc\x85d"),
        ("3MSZA -1.5 30##early", "early"),
    ],
)
def test_lines_that_parse(text, query):
    assert parse(text).query == query


@pytest.mark.parametrize(
    "text",
    [
        "", "##", "3MSZA 24.3 30.4", "3MSZA 24.3 30.4#single", "3MSZA 24.3 30.4##", "3MSZA 24.3 30.4##  ",
        "3MSZA 24.3##one number", "3MSZA a b##no numbers", "3MSZA nan 3##nan", "3MSZA 1 inf##inf", "3MSZA 1_0 30##x",
        "3MSZA 1 2 3##three", "../up 1 2##leaves the folder", "a/b 1 2##leaves the folder", "3MSZA １ ２##full width",
        f"3MSZA 1 {'9' * 400}##beyond a float", "24.3 30.4##no video", " 3MSZA 1 2##indented",
    ],
)  # fmt: skip
def test_lines_that_do_not_parse(text):
    assert parse(text) is None


@given(st.text())
def test_any_text_parses_or_not_but_never_raises(text):
    line = parse(text)
    assert line is None or all(map(math.isfinite, line.segment))


@given(
    st.from_regex(r"[A-Z0-9]{5}", fullmatch=True),
    st.decimals(0, 200, places=1),
    st.decimals(0, 200, places=1),
    st.text(min_size=1).filter(str.strip),
)
def test_a_line_comes_back_as_it_was_written(video, start, end, query):
    line = parse(f"{video} {start} {end}##{query}")
    assert line == (video, Segment(float(start), float(end)), query)


@given(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1).filter(str.strip))
def test_a_query_survives_file_and_samples(tmp_path_factory, query):
    folder = tmp_path_factory.mktemp("data")
    loaded = datasets.load(small(folder, f"AAAAA 1.0 2.0##{query}\n"), "test", folder)
    write_samples(folder / "samples.jsonl", loaded.samples)
    assert [s.query for s in read_samples(folder / "samples.jsonl")] == [query]


# ---------------------------------------------------------------- loading


def test_what_gives_no_sample_is_listed(tmp_path):
    text = "AAAAA 1.0 2.0##fine\r\n\nbroken\nCCCCC 1 2##not in the csv\nZZZZZ 1 2##no length in the csv"
    loaded = datasets.load(small(tmp_path, text), "test", tmp_path)
    assert loaded.samples == [Sample("AAAAA-1", "AAAAA.mp4", 30.5, "fine", (Segment(1.0, 2.0),))]
    assert [(row["file"], row["line"], row["text"]) for row in loaded.rejected] == [
        ("a.txt", 3, "broken"),
        ("a.txt", 4, "CCCCC 1 2##not in the csv"),
        ("a.txt", 5, "ZZZZZ 1 2##no length in the csv"),
    ]
    reasons = [row["reason"] for row in loaded.rejected]
    assert reasons == ["not `VIDEO start end##query`", "no duration of CCCCC in d.csv", "no duration of ZZZZZ in d.csv"]
    json.dumps(loaded.rejected)


SPANS = """\
BBBBB 8 7##reversed
BBBBB 3 3##empty
BBBBB 2 12##too long
BBBBB 9.6 14##a rest of 0.4 s
BBBBB 9.5 14##0.5 s
BBBBB 11 12##outside
BBBBB -1 4##early
"""


def test_training_is_cleaned(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    loaded = datasets.load(small(tmp_path, SPANS), "train", tmp_path)
    assert [(s.query, s.segments[0]) for s in loaded.samples] == [
        ("too long", (2, 10)), ("0.5 s", (9.5, 10)), ("early", (0, 4)),
    ]  # fmt: skip
    assert [row["line"] for row in loaded.rejected] == [1, 2, 4, 6]
    assert [row["line"] for row in loaded.clipped] == [3, 5, 7]
    assert "7 lines, 3 samples (3 clipped to the video), 4 rejected" in caplog.text


def test_evaluation_is_never_cleaned(tmp_path):
    loaded = datasets.load(small(tmp_path, SPANS), "test", tmp_path)
    assert [tuple(s.segments[0]) for s in loaded.samples] == [
        (8, 7), (3, 3), (2, 12), (9.6, 14), (9.5, 14), (11, 12), (-1, 4),
    ]  # fmt: skip
    assert loaded.rejected == loaded.clipped == []


@given(st.floats(-100, 200), st.floats(-100, 200), st.floats(0.1, 100))
def test_a_cleaned_segment_lies_in_the_video(start, end, duration):
    segment, problem = clean(Segment(start, end), duration, 0.5)
    assert segment is not None or problem is not None
    if segment is not None:
        assert 0 <= segment.start < segment.end <= duration
        assert (segment == (start, end)) == (problem is None)


def test_durations_come_from_quoted_csv_with_a_mark(tmp_path):
    identity = small(tmp_path, "\ufeffAAAAA 1 2##fine\n")
    (tmp_path / "annotations" / "d.csv").write_text("\ufeff" + DURATIONS)
    assert datasets.load(identity, "test", tmp_path).samples[0].duration == 30.5


def test_too_many_rejected_stops(tmp_path):
    text = "AAAAA 1 2##fine\n" * 98 + "broken\n" * 2
    assert len(datasets.load(small(tmp_path, text, may_lose=0.02), "test", tmp_path).rejected) == 2
    with pytest.raises(TvgError, match=r"2 of 100 \(line 99: not `VIDEO"):
        datasets.load(small(tmp_path, text, may_lose=0.01), "test", tmp_path)


def test_missing_lines_stop(tmp_path):
    split = {"annotations": "a.txt", "durations": "d.csv", "rows": 3, "clean": False}
    with pytest.raises(TvgError, match=r"(?s)got: +2.*expected: +3"):
        datasets.load(small(tmp_path, "AAAAA 1 2##a\nAAAAA 1 2##b\n", splits={"test": split}), "test", tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "d.csv"])
def test_an_absent_file_names_itself_and_the_way_out(tmp_path, name):
    identity = small(tmp_path, "AAAAA 1 2##a\n")
    (tmp_path / "annotations" / name).unlink()
    with pytest.raises(TvgError, match="tvg download") as absent:
        datasets.load(identity, "test", tmp_path)
    assert absent.value.where == str(tmp_path / "annotations" / name)


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(TvgError, match="not UTF-8"):
        datasets.load(small(tmp_path, b"AAAAA 1 2##\xff\xfe\n"), "test", tmp_path)
    identity = small(tmp_path, "AAAAA 1 2##a\n")
    (tmp_path / "annotations" / "d.csv").write_text("<html>")
    with pytest.raises(TvgError, match="columns missing"):
        datasets.load(identity, "test", tmp_path)


def test_unknown_split_kind_and_key(tmp_path):
    identity = small(tmp_path, "")
    with pytest.raises(TvgError, match="did you mean 'train'"):
        datasets.load(identity, "trian", tmp_path)
    with pytest.raises(TvgError, match="unknown kind of data set"):
        datasets.load(identity.model_copy(update={"kind": "charades"}), "test", tmp_path)
    with pytest.raises(TvgError, match="did you mean 'licence'"):
        datasets.load(small(tmp_path, "", license="x"), "test", tmp_path)


# ---------------------------------------------------------------- fetching, from a real server


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def pack(site: Path, *names: str) -> None:
    with zipfile.ZipFile(site / "videos.zip", "w") as file:
        for name in names:
            file.write(site.parent / f"{name}.mp4", f"Charades_v1_480/{name}.mp4")
        file.writestr("Charades_v1_480/UNUSED.mp4", "unused")


@pytest.fixture
def published(tmp_path):
    """What the publishers serve, under an address."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.txt").write_text("AAAAA 1 2##a\nBBBBB 1 2##b\nbroken\n")
    (site / "d.csv").write_text(DURATIONS)
    make_video(tmp_path / "AAAAA.mp4", Track(steady(61, 2), rate=2, last=500))
    make_video(tmp_path / "BBBBB.mp4", Track(steady(20, 2), rate=2, last=500))
    pack(site, "AAAAA", "BBBBB")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def remote(folder: Path, url: str, **changes) -> DatasetIdentity:
    identity = small(folder / "unused", "")
    files = {name: {"url": f"{url}/{name}"} for name in ("a.txt", "d.csv")}
    changes = {"files": files, "videos": {"url": f"{url}/videos.zip"}, **changes}
    return identity.model_copy(update={"settings": {**identity.settings, **changes}})


def fetch(identity: DatasetIdentity, tmp_path: Path) -> datasets.Fetched:
    return datasets.fetch(identity, tmp_path / "data", 1, measure, tmp_path / "problems.jsonl")


def test_fetch_then_load(published, tmp_path):
    folder = tmp_path / "data"
    identity = remote(tmp_path, published[1])
    fetched = fetch(identity, tmp_path)
    assert fetched.files == ("AAAAA.mp4", "BBBBB.mp4") and (fetched.downloaded, fetched.adopted) == (2, 0)
    assert sorted(p.name for p in (folder / "videos").iterdir()) == ["AAAAA.mp4", "BBBBB.mp4"]
    assert len(datasets.load(identity, "test", folder).samples) == 2
    assert (tmp_path / "problems.jsonl").read_text() == ""


def test_videos_that_are_there_need_no_archive(published, tmp_path):
    videos = tmp_path / "data" / "videos"
    videos.mkdir(parents=True)
    for name in ("AAAAA.mp4", "BBBBB.mp4"):
        shutil.copy(tmp_path / name, videos)
    identity = remote(tmp_path, published[1], videos={"url": "http://127.0.0.1:1/gone.zip"}, may_lose=0)
    assert fetch(identity, tmp_path).adopted == 2
    assert not list(videos.parent.glob("*.zip"))


def test_absent_videos_are_listed_and_too_many_stop(published, tmp_path):
    site, url = published
    pack(site, "AAAAA")
    fetch(remote(tmp_path, url, may_lose=0.5), tmp_path)
    assert (tmp_path / "problems.jsonl").read_text() == '{"video": "BBBBB.mp4", "problem": "absent"}\n'
    with pytest.raises(TvgError, match="1 of 2"):
        fetch(remote(tmp_path, url, may_lose=0.4), tmp_path)
