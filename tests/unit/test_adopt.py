"""Videos that lie on a cluster already: adopted after a check, listed where it fails, never written to."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.video_maker import Track, make_video, steady
from tvg import cli, datasets
from tvg.datasets.adopt import AGREES, Claim, Stock, take_stock, unwritable
from tvg.errors import TvgError
from tvg.spec import DatasetIdentity
from tvg.store import Store
from tvg.video.lengths import measure

CSV = "id,length\n" + "".join(f"V{k},10.0\n" for k in range(4))
LINES = "".join(f"V{k} 1.0 2.0##a person sits\n" for k in range(4))


@pytest.fixture
def cluster(tmp_path):
    """data_root as a cluster has it: Charades-STA of four videos of 10 s, and a video that nobody asks about."""
    folder = tmp_path / "cluster" / "small"
    for name, text in (("annotations/a.txt", LINES), ("annotations/d.csv", CSV), ("videos/OTHER.mp4", "other")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for k in range(4):
        video(folder / "videos" / f"V{k}.mp4", 10)
    return folder


def video(path: Path, seconds: int) -> Path:
    return make_video(path, Track(steady(2 * seconds, 2), rate=2, last=500))


def small(**changes) -> DatasetIdentity:
    settings = {
        "licence": "ours",
        "splits": {"test": {"annotations": "a.txt", "durations": "d.csv", "clean": False}},
        "files": {name: {"url": f"http://127.0.0.1:1/{name}"} for name in ("a.txt", "d.csv")},
        "videos": {"url": "http://127.0.0.1:1/none.zip"},
        "least": 0.5,
        "may_lose": 0.0,
    }
    return DatasetIdentity(name="small", kind="charades_sta", version=1, settings={**settings, **changes})


def fetch(identity: DatasetIdentity, folder: Path) -> datasets.Fetched:
    return datasets.fetch(identity, folder, 2, measure, folder.parents[1] / "store" / "problems.jsonl")


def everything(folder: Path) -> dict[Path, tuple]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def read_only(monkeypatch):
    """No file system can be written to, as far as trying tells; root may write through any permission."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)


def test_what_is_there_is_adopted_and_never_written_to(cluster, read_only):
    before = everything(cluster.parent)
    fetched = fetch(small(), cluster)
    assert fetched == datasets.Fetched(tuple(f"V{k}.mp4" for k in range(4)), downloaded=0, adopted=4, problems={})
    assert everything(cluster.parent) == before
    assert (cluster.parents[1] / "store" / "problems.jsonl").read_text() == ""


def test_the_download_job_lists_and_counts_in_the_store(cluster, tmp_path, caplog):
    store = Store(tmp_path / "results" / "mini")
    path = store.spec(store.freeze(small()))
    before = everything(cluster.parent)
    assert cli.main(["download", str(path), "--data", str(cluster.parent), "--jobs", "2"]) == 0
    assert json.loads(store.fetched(small()).read_text()) == {
        "dataset": "small", "videos": 4, "downloaded": 0, "adopted": 4, "problems": 0,
        "files": ["V0.mp4", "V1.mp4", "V2.mp4", "V3.mp4"],
    }  # fmt: skip
    assert "OTHER.mp4" not in store.files(small())
    assert "small: 4 videos, 0 downloaded, 4 adopted, 0 problems" in caplog.text
    assert everything(cluster.parent) == before


def test_links_are_as_good_as_files(cluster, tmp_path):
    own = tmp_path / "own" / "small"
    (own / "videos").mkdir(parents=True)
    (own / "annotations").symlink_to(cluster / "annotations")
    for path in (cluster / "videos").iterdir():
        (own / "videos" / path.name).symlink_to(path)
    assert fetch(small(), own).adopted == 4
    (cluster / "videos" / "V1.mp4").unlink()
    with pytest.raises(TvgError):
        fetch(small(), own)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.unlink(), "absent"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_text("<html>"), "not a video, damaged or cut short"),
        (lambda path: (path.unlink(), path.mkdir()), "not a file"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), "absent: a link to nothing"),
        (lambda path: video(path, 7), "lasts 7.00 s, the annotations say 10.00 s"),
        (lambda path: video(path, 13), "lasts 13.00 s, the annotations say 10.00 s"),
    ],
)
def test_every_problem_is_listed_and_an_error_above_may_lose(cluster, read_only, spoil, problem):
    spoil(cluster / "videos" / "V2.mp4")
    fetched = fetch(small(may_lose=0.25), cluster)
    assert list(fetched.problems) == ["V2.mp4"] and problem in fetched.problems["V2.mp4"]
    with pytest.raises(TvgError, match="1 of 4") as error:
        fetch(small(may_lose=0.24), cluster)
    listing = cluster.parents[1] / "store" / "problems.jsonl"
    assert json.loads(listing.read_text())["video"] == "V2.mp4" and str(listing) in error.value.got
    assert problem in error.value.got


@pytest.mark.parametrize("off", [-0.9, 0.9])
def test_durations_of_one_video_may_differ(cluster, off):
    (cluster / "annotations" / "d.csv").write_text(CSV.replace("V2,10.0", f"V2,{10 + off}"))
    assert fetch(small(), cluster).problems == {}


def test_sound_that_outlasts_the_picture_is_no_problem(cluster):
    for k in range(4):
        make_video(
            cluster / "videos" / "temporary.mkv", Track(steady(20, 2), rate=2, last=500), audio_seconds=14
        ).replace(cluster / "videos" / f"V{k}.mp4")
    stated = measure([cluster / "videos" / "V0.mp4"], False)["V0.mp4"]
    assert stated > 13, "the header must mislead for this test to say anything"
    assert fetch(small(), cluster).problems == {}


def test_absent_in_a_read_only_folder_says_both(cluster, read_only):
    (cluster / "videos" / "V0.mp4").unlink()
    before = everything(cluster.parent)
    with pytest.raises(TvgError, match="cannot be written to") as error:
        fetch(small(), cluster)
    assert "V0.mp4: absent" in error.value.got and "data_root" in error.value.hint and "links" in error.value.hint
    assert everything(cluster.parent) == before


def test_absent_annotations_in_a_read_only_folder_say_which(cluster, read_only):
    (cluster / "annotations" / "d.csv").unlink()
    with pytest.raises(TvgError, match="Read-only file system") as error:
        fetch(small(), cluster)
    assert error.value.got == "no d.csv" and "data_root" in error.value.hint


def test_other_annotations_are_not_adopted(cluster):
    files = {"a.txt": {"url": "http://127.0.0.1:1/a.txt", "sha256": "0" * 64}}
    with pytest.raises(TvgError, match="not the file that was expected"):
        fetch(small(files=files), cluster)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_permissions_that_forbid_writing(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    assert unwritable(tmp_path / "closed" / "videos") == "Permission denied"


def test_a_folder_that_will_be_made_is_writable_where_its_parent_is(tmp_path):
    assert unwritable(tmp_path / "a" / "b" / "c") is None
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_not_read_only(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert unwritable(tmp_path) is None


@given(st.floats(1, 1000), st.floats(0, 2000), st.floats(0, 1000))
def test_a_claim_holds_for_the_file_and_for_what_it_was_cut_from(duration, seconds, start):
    whole, cut = Claim(duration), Claim(duration, start + duration)
    assert whole.holds(duration + AGREES / 2) and whole.holds(duration - AGREES / 2)
    assert whole.holds(seconds) <= cut.holds(seconds)
    assert cut.holds(start + duration + seconds)


def test_two_claims_must_both_hold(tmp_path):
    video(tmp_path / "v.mp4", 10)
    claims = frozenset({Claim(10.0), Claim(12.0)})
    stock = Stock(tmp_path, {"v.mp4": claims}, frozenset(), 1.0, "")
    assert take_stock(stock, measure, tmp_path / "list").problems["v.mp4"].endswith("the annotations say 12.00 s")
