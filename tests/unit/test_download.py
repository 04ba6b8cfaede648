"""Downloads, against a real server on this machine that breaks off, refuses, and knows ranges or does not."""

import hashlib
import re
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tvg.datasets import download as module
from tvg.datasets.download import download, unpack
from tvg.errors import TvgError

BODY = bytes(range(256)) * 20_000  # 5 MB: several chunks
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves BODY. The server's `plan` holds, for each coming request, what goes wrong: a status, or bytes to send."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        trouble = self.server.plan.pop(0) if self.server.plan else None
        if isinstance(trouble, tuple):
            return self.send_error(trouble[0])
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start >= len(BODY):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(BODY)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            begin = 0 if self.server.wrong_part else start
            self.send_header("Content-Range", f"bytes {begin}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start + self.server.claims_more))
        self.end_headers()
        self.wfile.write(BODY[start:] if trouble is None else BODY[start : start + trouble])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.plan, running.seen, running.ranges, running.wrong_part, running.claims_more = [], [], True, False, 0
        running.url = f"http://127.0.0.1:{running.server_port}/file.zip"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server, path: Path, sha256: str | None = SHA256, **options) -> Path:
    return download(server.url, path, sha256, pause=0.0, timeout=5.0, **options)


def test_whole_file(server, tmp_path):
    path = get(server, tmp_path / "deep" / "file.zip")
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["file.zip"]


def test_a_file_that_is_there_is_not_asked_for_again(server, tmp_path):
    path = tmp_path / "file.zip"
    path.write_bytes(BODY)
    get(server, path)
    assert server.seen == []


def test_another_file_in_its_place_is_not_overwritten(server, tmp_path):
    path = tmp_path / "file.zip"
    path.write_bytes(b"mine")
    with pytest.raises(TvgError, match="not the file that was expected"):
        get(server, path)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_are_resumed(server, tmp_path, ranges):
    server.plan, server.ranges = [1_000_000, 2_000_000], ranges
    assert get(server, tmp_path / "file.zip").read_bytes() == BODY
    assert len(server.seen) == 3
    assert server.seen[0] is None
    assert server.seen[1].startswith("bytes=")


def test_a_later_call_resumes_an_earlier_one(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(BODY[:123_456])
    assert get(server, tmp_path / "file.zip").read_bytes() == BODY
    assert server.seen == ["bytes=123456-"]


def test_progress_earns_new_attempts_and_standing_still_does_not(server, tmp_path):
    server.plan = [100_000] * 10
    assert get(server, tmp_path / "one.zip", attempts=2).read_bytes() == BODY
    server.plan = [0] * 10
    with pytest.raises(TvgError, match="no download after 2 attempts"):
        get(server, tmp_path / "two.zip", attempts=2)
    assert len(server.plan) == 8


def test_a_server_without_ranges_cannot_hold_us_forever(server, tmp_path):
    server.ranges, server.plan = False, [2_000, 1_000] * 20
    with pytest.raises(TvgError, match="no download after 3 attempts"):
        get(server, tmp_path / "file.zip", attempts=3)


def test_partial_that_is_whole_already(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(BODY)
    assert get(server, tmp_path / "file.zip").read_bytes() == BODY


def test_partial_longer_than_the_file_is_fetched_anew(server, tmp_path):
    (tmp_path / "file.zip.partial").write_bytes(BODY + b"stale")
    assert get(server, tmp_path / "file.zip").read_bytes() == BODY


def test_wrong_part_is_never_appended(server, tmp_path):
    server.wrong_part = True
    (tmp_path / "file.zip.partial").write_bytes(BODY[:1000])
    assert get(server, tmp_path / "file.zip").read_bytes() == BODY


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
    server.plan = [(status,)]
    assert get(server, tmp_path / "file.zip").read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_final_and_says_where_to_put_the_file(server, tmp_path, status):
    server.plan = [(status,)] * 3
    with pytest.raises(TvgError, match=f"HTTP {status}") as refused:
        get(server, tmp_path / "file.zip")
    assert len(server.seen) == 1
    assert str(tmp_path / "file.zip") in refused.value.hint


def test_unreachable_host(tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(TvgError, match="no download after 2 attempts") as broken:
        get(server, tmp_path / "file.zip", attempts=2)
    assert "refused" in str(broken.value.got)


@pytest.mark.parametrize("url", ["no address", "http://127.0.0.1:1/with space", ""])
def test_not_an_address(url, tmp_path):
    with pytest.raises(TvgError, match="not a web address"):
        download(url, tmp_path / "file", pause=0.0)


def test_other_content_is_deleted(server, tmp_path):
    with pytest.raises(TvgError, match="not the file that was expected"):
        get(server, tmp_path / "file.zip", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_noticed_before_the_first_byte(server, tmp_path):
    server.claims_more = 1 << 60
    with pytest.raises(TvgError, match="cannot write this file") as full:
        get(server, tmp_path / "file.zip")
    assert "MB free" in str(full.value.got)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device that is always full")
def test_disk_that_fills_up_on_the_way(server, tmp_path):
    (tmp_path / "file.zip.partial").symlink_to("/dev/full")
    with pytest.raises(TvgError, match="No space left"):
        get(server, tmp_path / "file.zip")


# ---------------------------------------------------------------- archives


def make_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, f"content of {name}")
    return path


def test_unpack_takes_the_wanted_files_flat_and_keeps_what_is_there(tmp_path):
    archive = make_zip(tmp_path / "a.zip", "Charades_v1_480/A.mp4", "Charades_v1_480/B.mp4", "Charades_v1_480/C.mp4")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "B.mp4").write_text("mine")
    unpack(archive, videos, ["A.mp4", "B.mp4", "D.mp4"])
    assert {p.name: p.read_text() for p in videos.iterdir()} == {
        "A.mp4": "content of Charades_v1_480/A.mp4",
        "B.mp4": "mine",
    }


@pytest.mark.parametrize("name", ["../A.mp4", "x/../../A.mp4", "/tmp/A.mp4", "..\\A.mp4"])
def test_unpack_refuses_an_archive_that_leaves_its_folder(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", "good/B.mp4", name)
    with pytest.raises(TvgError, match="would leave its folder"):
        unpack(archive, tmp_path / "videos", ["A.mp4", "B.mp4"])
    assert list((tmp_path / "videos").iterdir()) == []


def test_unpack_refuses_links(tmp_path):
    link = zipfile.ZipInfo("A.mp4")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/hostname")
    with pytest.raises(TvgError, match="would leave its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "videos", ["A.mp4"])


def test_broken_archives(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(TvgError, match="cannot unpack"):
        unpack(tmp_path / "a.zip", tmp_path / "videos", ["A.mp4"])
    whole = bytearray(make_zip(tmp_path / "b.zip", "A.mp4").read_bytes())
    whole[whole.index(b"content")] ^= 255  # the checksum of the entry no longer fits
    (tmp_path / "b.zip").write_bytes(whole)
    with pytest.raises(TvgError, match="cannot unpack"):
        unpack(tmp_path / "b.zip", tmp_path / "videos", ["A.mp4"])
    assert not (tmp_path / "videos" / "A.mp4").exists()


def test_module_waits_longer_each_time(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.plan = [(503,)] * 3
    download(server.url, tmp_path / "file.zip", pause=2.0, timeout=5.0)
    assert waits == [2.0, 4.0, 8.0]
