"""Files from the web: resumed, checked, moved into place when whole; and zip archives, unpacked inside one folder."""

import errno
import hashlib
import http.client
import logging
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tvg.errors import TvgError
from tvg.progress import progress
from tvg.settings import Closed

log = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may be gone at the next try
BY_HAND = "or get the file by hand and put it there"


class Source(Closed):
    """Where a file comes from; without sha256 (hexadecimal) any content is taken."""

    url: str
    sha256: str | None = None


class _BrokenOff(Exception):
    """No connection, or one that ended before the file did: worth another try."""


def download(
    url: str, path: Path, sha256: str | None = None, *, attempts: int = 5, pause: float = 2.0, timeout: float = 60.0
) -> Path:
    """Fetch `url` (http, https) into `path` by way of `path`.partial, which a later call resumes; returns `path`.

    A file that is there already is kept. sha256: hexadecimal; without it, a file that changes at its source between
    two tries is not noticed. attempts: tries in a row that bring no new byte; pause: seconds after the first, doubled
    each time; timeout: seconds of silence. Raises TvgError: refused, unreachable, no room, other content.
    """
    if path.exists():
        verify(path, sha256, "delete it and run `tvg download` again, or set its sha256 in the data set's YAML")
        return path
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _persist(url, partial, attempts, pause, timeout)
        try:
            verify(partial, sha256, "it is deleted; run again: if this comes back, the file has changed at its source")
        except TvgError:
            partial.unlink()
            raise
        partial.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def verify(path: Path, sha256: str | None, hint: str) -> None:
    """Raises TvgError if the file's SHA-256 is another; None: anything goes."""
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise TvgError(path, "not the file that was expected", got=f"sha256 {found}", expected=sha256, hint=hint)


def _persist(url: str, partial: Path, attempts: int, pause: float, timeout: float) -> None:
    failures, most = 0, _size(partial)
    while True:
        try:
            return _continue(url, partial, timeout)
        except _BrokenOff as error:
            failures = failures + 1 if _size(partial) <= most else 1
            most = max(most, _size(partial))
            if failures >= attempts:
                raise TvgError(
                    url, f"no download after {attempts} attempts", got=error, expected="the whole file",
                    hint=f"run again on a machine with network: {partial} is resumed; {BY_HAND}",
                ) from error  # fmt: skip
            wait = pause * 2 ** (failures - 1)
            log.warning("%s: %s; again in %.0f s", url, error, wait)
            time.sleep(wait)


def _continue(url: str, partial: Path, timeout: float) -> None:
    """One try: append what `partial` lacks. Raises _BrokenOff, TvgError, or the OSError of a file that cannot grow."""
    have = _size(partial)
    reply = _ask(url, partial, have, timeout)
    if reply is None:
        return
    with reply, partial.open("ab" if reply.status == 206 else "wb") as out:
        length = reply.headers.get("Content-Length")
        left = int(length) if length else None
        free = shutil.disk_usage(partial.parent).free
        if left is not None and left > free:
            raise OSError(errno.ENOSPC, f"{left / 1e6:.1f} MB to come, {free / 1e6:.1f} MB free")
        total = None if left is None else -(-left // CHUNK)
        got = sum(out.write(chunk) for chunk in progress(_chunks(reply), partial.stem, unit="MB", total=total))
    if left is not None and got < left:
        raise _BrokenOff(f"the connection ended {left - got} bytes too early")


def _ask(url: str, partial: Path, have: int, timeout: float) -> http.client.HTTPResponse | None:
    """The reply with the bytes from `have` on, or (status 200) with all of them; None if there are no more."""
    headers = {"User-Agent": "tvg", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(url, partial, have, error)
    except (ValueError, http.client.InvalidURL) as error:
        raise TvgError(
            url, "not a web address", got=url, expected="http://... or https://...",
            hint="correct it in the data set's YAML",
        ) from error  # fmt: skip
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"no connection: {getattr(error, 'reason', error)}") from error
    if reply.status == 206 and not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        reply.close()
        partial.unlink()
        raise _BrokenOff("the server sent another part than was asked for")
    return reply


def _refused(url: str, partial: Path, have: int, error: urllib.error.HTTPError) -> None:
    """Returns where the refusal only says that nothing is left to fetch."""
    if error.code == 416:
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        partial.unlink()
        raise _BrokenOff("what was got is longer than the file, and is deleted") from error
    if error.code in PASSING:
        raise _BrokenOff(f"HTTP {error.code} {error.reason}") from error
    raise TvgError(
        url, "the server refuses", got=f"HTTP {error.code} {error.reason}", expected="HTTP 200",
        hint=f"correct the address in the data set's YAML, {BY_HAND}: {partial.with_suffix('')}",
    ) from error  # fmt: skip


def _chunks(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = reply.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(f"the connection broke: {error!r}") from error
        if not chunk:
            return
        yield chunk


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cannot_write(path: Path, error: OSError) -> TvgError:
    return TvgError(
        path, "cannot write this file", got=error, expected="a folder to write to, with room for the file",
        hint="make room or set data_root in config.yaml, then run again: what was got so far is kept",
    )  # fmt: skip


# ---------------------------------------------------------------- archives


def unpack(archive: Path, folder: Path, wanted: Iterable[str]) -> None:
    """Put the wanted files of a zip, by their base names, flat into `folder`; what is there already is kept.

    Raises TvgError: not a whole zip, no room, or an entry (any entry) that would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file:
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
            for entry in entries:
                _stay_inside(archive, entry)
            by_name = {PurePosixPath(entry.filename).name: entry for entry in entries}
            new = [by_name[name] for name in wanted if name in by_name and not (folder / name).exists()]
            for entry in progress(new, f"unpacking {archive.name}", unit="files"):
                _unpack_one(file, entry, folder / PurePosixPath(entry.filename).name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise TvgError(
            archive, "cannot unpack this archive", got=error, expected="a whole zip file without a password",
            hint="delete it and run `tvg download` again: files unpacked so far are kept",
        ) from error  # fmt: skip
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _stay_inside(archive: Path, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    link = stat.S_ISLNK(entry.external_attr >> 16)
    if link or path.is_absolute() or ".." in path.parts:
        raise TvgError(
            archive, "an entry of this archive would leave its folder", got=entry.filename,
            expected="plain files under relative names", hint="do not use this archive: it is not the data set's",
        )  # fmt: skip


def _unpack_one(file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    with file.open(entry) as source, partial.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
    partial.replace(path)
