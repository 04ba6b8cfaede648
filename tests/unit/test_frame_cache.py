"""The frame cache: resumes where it was killed, lists what it lost, and gives back what was decoded."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.unit.video_maker import Track, make_video, steady
from tvg.errors import TvgError
from tvg.segment import Segment
from tvg.settings import FramesSettings
from tvg.video.cache import FrameCache, shard_of, write_shard
from tvg.video.decode import sample
from tvg.video.workers import decode_all

SETTINGS = FramesSettings()
VIDEOS = [f"v{i}.mp4" for i in range(6)]

WRITER = """
import resource, sys
from pathlib import Path
from tvg.errors import TvgError
from tvg.settings import FramesSettings
from tvg.video.cache import write_shard

if __name__ == "__main__":
    index, folder, most_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        write_shard(index, [path.name for path in folder.iterdir()], FramesSettings(), 1, folder)
    except TvgError as error:
        sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six short videos, each with its own numbers."""
    folder = tmp_path_factory.mktemp("videos")
    for i, name in enumerate(VIDEOS):
        make_video(folder / name, Track(steady(40 + i, 20), first=100 * i))
    return folder


def assert_equals_samples(cache, folder, videos=VIDEOS):
    assert sorted(cache) == sorted(videos) and len(cache) == len(videos)
    for name in videos:
        got, expected = cache[name], sample(folder / name, SETTINGS)
        np.testing.assert_array_equal(got.pixels, expected.pixels)
        np.testing.assert_array_equal(got.times, expected.times)
        assert (got.fps, got.duration, got.backend) == (expected.fps, expected.duration, expected.backend)


def test_shards_are_stable_and_share_all_videos():
    assert [shard_of(f"v{i}.mp4", 4) for i in range(6)] == [2, 0, 3, 3, 3, 2]
    names = [f"{i:05d}.mp4" for i in range(6400)]
    counts = np.bincount([shard_of(name, 64) for name in names], minlength=64)
    assert counts.sum() == 6400 and counts.min() > 60 and counts.max() < 140


def test_what_was_decoded_comes_back(folder, tmp_path):
    shards = [tmp_path / "cache" / f"{k:02d}-of-03.json" for k in range(3)]
    for k, path in enumerate(shards):
        if k == 2:
            with pytest.raises(TvgError, match="not complete"):
                FrameCache(path.parent)
        write_shard(path, VIDEOS, SETTINGS, 2, folder)
    cache = FrameCache(tmp_path / "cache")
    assert_equals_samples(cache, folder)
    assert cache.failures == {}
    frames = pickle.loads(pickle.dumps(cache))["v3.mp4"]
    assert isinstance(frames.pixels, np.memmap) and not frames.pixels.flags.writeable
    assert isinstance(frames.crop(Segment(0.5, 1.5)).pixels, np.memmap)
    with pytest.raises(KeyError, match=r"other.mp4: not in this cache"):
        cache["other.mp4"]


def _with_bad(folder, tmp_path, good: int, bad: int):
    """Hard links of one video under `good` names, and `bad` files that are none; returns (folder, names)."""
    many = tmp_path / "many"
    many.mkdir()
    for i in range(good):
        os.link(folder / VIDEOS[0], many / f"good{i:02d}.mp4")
    for i in range(bad):
        (many / f"bad{i}.mp4").write_bytes(b"no video")
    return many, sorted(path.name for path in many.iterdir())


def test_few_bad_videos_are_listed_and_many_are_an_error(folder, tmp_path):
    many, names = _with_bad(folder, tmp_path, good=6, bad=1)
    index = tmp_path / "cache" / "00-of-01.json"
    with pytest.raises(TvgError, match=r"too many videos(.|\n)*2 of 8 in this shard"):
        write_shard(index, [*names, "absent.mp4"], SETTINGS, 2, many)
    assert not index.exists(), "the job has failed"
    rows = [json.loads(line) for line in (tmp_path / "cache" / "00-of-01.failures.jsonl").read_text().splitlines()]
    assert [row["video"] for row in rows] == ["absent.mp4", "bad0.mp4"]
    write_shard(index, [*names, "absent.mp4"], SETTINGS, 2, many, max_failures=0.25)
    cache = FrameCache(tmp_path / "cache")
    assert len(cache) == 6 and set(cache.failures) == {"absent.mp4", "bad0.mp4"}
    assert "damaged" in cache.failures["bad0.mp4"] and "no such video" in cache.failures["absent.mp4"]
    with pytest.raises(KeyError, match="no such video"):
        cache["absent.mp4"]


def test_one_bad_video_does_not_fail_its_small_shard(folder, tmp_path):
    """The share counts over the data set: 1 of 40 is not more than 5 %, though it is a third of its shard."""
    names = [f"v{i}.mp4" for i in range(40)]
    shard = [name for name in names if shard_of(name, 16) == 9]
    assert len(shard) == 3
    (tmp_path / shard[0]).write_bytes(b"no video")
    for name in shard[1:]:
        os.link(folder / VIDEOS[0], tmp_path / name)
    index = tmp_path / "cache" / "09-of-16.json"
    write_shard(index, names, SETTINGS, 1, tmp_path)
    assert list(json.loads(index.read_text())["failures"]) == shard[:1]
    for k in (0, 1):  # nothing there: the folder is missing, or not mounted
        with pytest.raises(TvgError, match="too many videos"):
            write_shard(tmp_path / "cache" / f"{k:02d}-of-16.json", names, SETTINGS, 1, tmp_path / "absent")


def test_bad_videos_are_tried_again_and_replaced_ones_too(folder, tmp_path):
    many, names = _with_bad(folder, tmp_path, good=2, bad=1)
    index = tmp_path / "cache" / "00-of-01.json"
    with pytest.raises(TvgError):
        write_shard(index, names, SETTINGS, 1, many)
    shutil.copy(folder / VIDEOS[1], many / "bad0.mp4")
    (many / "good00.mp4").unlink()
    shutil.copy(folder / VIDEOS[2], many / "good00.mp4")
    (many / "good01.mp4").unlink()  # decoded already: its source may go
    write_shard(index, names, SETTINGS, 1, many)
    cache = FrameCache(tmp_path / "cache")
    assert cache.failures == {} and len(cache) == 3
    np.testing.assert_array_equal(cache["bad0.mp4"].pixels, sample(folder / VIDEOS[1], SETTINGS).pixels)
    np.testing.assert_array_equal(cache["good00.mp4"].pixels, sample(folder / VIDEOS[2], SETTINGS).pixels)
    np.testing.assert_array_equal(cache["good01.mp4"].pixels, sample(folder / VIDEOS[0], SETTINGS).pixels)


def _writer(index, folder, most_bytes=0) -> subprocess.Popen:
    script = index.parent.parent / "writer.py"
    script.write_text(WRITER)
    return subprocess.Popen(
        [sys.executable, str(script), str(index), str(folder), str(most_bytes)], stderr=subprocess.PIPE, text=True
    )


def _journal(index) -> list[str]:
    path = index.with_suffix(".journal.jsonl")
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_a_killed_writer_keeps_what_it_decoded(folder, tmp_path):
    many, names = _with_bad(folder, tmp_path, good=40, bad=0)
    index = tmp_path / "cache" / "00-of-01.json"
    writer = _writer(index, many)
    while len(_journal(index)) < 3:
        assert writer.poll() is None, writer.stderr.read()
        time.sleep(0.002)
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    kept = _journal(index)
    assert 3 <= len(kept) < 40 and not index.exists()
    with index.with_suffix(".bin").open("ab") as pixels, index.with_suffix(".journal.jsonl").open("a") as lines:
        pixels.write(b"torn")
        lines.write(kept[0][: len(kept[0]) // 2])
    write_shard(index, names, SETTINGS, 1, many)
    assert _journal(index)[: len(kept)] == kept, "nothing is decoded twice"
    assert_equals_samples(FrameCache(index.parent), many, names)
    size = sum(frames.pixels.nbytes for frames in FrameCache(index.parent).values())
    assert index.with_suffix(".bin").stat().st_size == size


def test_lost_pixels_are_decoded_again(folder, tmp_path):
    """A line of the journal counts only as far as the pixels reach, and never for pixels written later."""
    index = tmp_path / "cache" / "00-of-01.json"
    write_shard(index, VIDEOS, SETTINGS, 1, folder)
    os.truncate(index.with_suffix(".bin"), index.with_suffix(".bin").stat().st_size // 2)
    with pytest.raises(TvgError, match="not all there"):
        FrameCache(index.parent)
    write_shard(index, VIDEOS, SETTINGS, 1, folder)
    assert_equals_samples(FrameCache(index.parent), folder)


def test_other_settings_start_anew(folder, tmp_path):
    index = tmp_path / "cache" / "00-of-01.json"
    write_shard(index, VIDEOS[:2], FramesSettings(fps=1), 1, folder)
    write_shard(index, VIDEOS, SETTINGS, 1, folder)
    assert_equals_samples(FrameCache(index.parent), folder)


def test_a_full_disk_says_so_and_loses_nothing(folder, tmp_path):
    pixels = sample(folder / VIDEOS[0], SETTINGS).pixels.nbytes
    index = tmp_path / "cache" / "00-of-01.json"
    writer = _writer(index, folder, most_bytes=int(2.5 * pixels))
    message = writer.communicate()[1]
    assert writer.returncode == 1 and "no room for the frames" in message and "run again" in message
    kept = _journal(index)
    assert len(kept) == 2 and not index.exists()
    write_shard(index, VIDEOS, SETTINGS, 1, folder)
    assert _journal(index)[:2] == kept
    assert_equals_samples(FrameCache(index.parent), folder)


def test_a_decoder_that_hangs_costs_one_video(folder, tmp_path):
    many, names = _with_bad(folder, tmp_path, good=30, bad=0)
    os.mkfifo(many / "hangs.mp4")  # opening it waits for a writer for ever
    index = tmp_path / "cache" / "00-of-01.json"
    write_shard(index, [*names, "hangs.mp4"], SETTINGS, 1, many, time_limit=3.0)
    cache = FrameCache(tmp_path / "cache")
    assert len(cache) == 30 and cache.failures == {"hangs.mp4": "decoding took more than 3 s"}


def test_a_decoder_that_dies_costs_one_video(folder, tmp_path):
    os.mkfifo(tmp_path / "hangs.mp4")
    results = {}
    videos = {"hangs": tmp_path / "hangs.mp4", "good": folder / VIDEOS[0]}
    thread = threading.Thread(target=lambda: results.update(decode_all(videos, SETTINGS, 1, 60.0)))
    thread.start()
    while not multiprocessing.active_children():
        time.sleep(0.01)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    thread.join(timeout=30)
    assert results["hangs"] == "the decoder crashed (exit status -9)"
    assert results["good"].duration == pytest.approx(2.0, abs=0.05)


def test_a_wrong_name_is_no_shard(folder, tmp_path):
    with pytest.raises(TvgError, match="NN-of-MM"):
        write_shard(tmp_path / "3.json", VIDEOS, SETTINGS, 1, folder)
