"""A model hub on this machine: serves folders as huggingface.co does, with its addresses, headers and errors.

`root/owner/name/revision/` holds the files of one pinned revision. Whatever downloads through huggingface_hub downloads
from here under `HF_ENDPOINT=http://127.0.0.1:PORT`. Read-only; only this machine can reach it.
"""

import json
import logging
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tvg.errors import TvgError

log = logging.getLogger(__name__)
OWN = "tvg"  # owner of the repositories that are made here and that no other hub has
CHUNK = 1 << 22  # bytes
REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"
ADDRESSES = {
    "resolve": re.compile(rf"/{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    "tree": re.compile(rf"/api/models/{REPOSITORY}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?"),
    "model": re.compile(rf"/api/models/{REPOSITORY}(?:/revision/(?P<revision>[^/]+))?"),
}
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Absent(Exception):
    """What a client asks for and the hub does not have; kind and text as huggingface_hub reads them."""

    def __init__(self, kind: str, what: str):
        super().__init__(f"{what} not found")
        self.kind = kind


class Hub(ThreadingHTTPServer):
    """Serves the repositories under `root`; port 0 takes a free one. Raises TvgError without the folder or the port."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0, handler: type["Handler"] | None = None):
        if not root.is_dir():
            raise TvgError(
                root, "no repositories here", got="no such folder", expected="owner/name/revision/, with files in it",
                hint=f"`tvg replica {root}` writes one with random weights",
            )  # fmt: skip
        self.root = root.resolve()
        try:
            super().__init__(("127.0.0.1", port), handler or Handler)
        except OSError as error:
            raise TvgError(
                f"port {port}", "cannot listen", got=error, expected="a free port", hint="choose another with --port"
            ) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle of a file comes back for the rest."""
        if isinstance(sys.exception(), ConnectionError):
            log.info("a client went away")
        else:
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def folder(self, repository: str, revision: str | None) -> Path:
        """Of one revision; of the newest without it, and as `main`: the library asks for that too (5.17)."""
        place = _inside(self.root, repository)
        if not place.is_dir():
            raise Absent("RepoNotFound", f"repository {repository}")
        found = {path.name: path for path in place.iterdir() if path.suffix != ".partial"}
        if revision in (None, "main") and found:
            return max(found.values(), key=lambda path: path.stat().st_mtime)
        if revision not in found:
            raise Absent("RevisionNotFound", f"revision {revision}")
        return found[revision]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self.commit = None
        address = unquote(urlsplit(self.path).path)
        for name, pattern in ADDRESSES.items():
            if found := pattern.fullmatch(address):
                try:
                    getattr(self, name)(**found.groupdict())
                except Absent as error:
                    said = {"X-Error-Code": error.kind, "X-Error-Message": str(error)}
                    self.reply(HTTPStatus.NOT_FOUND, {"error": str(error)}, said)
                return
        self.reply(HTTPStatus.NOT_FOUND, {"error": f"{address} is no address of this hub"})

    do_HEAD = do_GET  # `send` leaves the content out

    def resolve(self, repository: str, revision: str, path: str) -> None:
        """A file, or the bytes of it that `Range` asks for."""
        folder = self.server.folder(repository, revision)
        file = _inside(folder, path)
        self.commit = folder.name
        if not file.is_file():
            raise Absent("EntryNotFound", path)
        status = file.stat()
        headers = {
            "ETag": f'"{status.st_size:x}-{status.st_mtime_ns:x}"',  # cheap: a hash of gigabytes outlasts a patience
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        start, end = 0, status.st_size
        if asked := RANGE.fullmatch(self.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2] or end) + 1, end)
            if start >= end:
                headers["Content-Range"] = f"bytes */{status.st_size}"
                self.send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, 0)
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
        self.send(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, headers, end - start)
        if self.command == "GET":
            self.stream(file, start, end)

    def stream(self, file: Path, start: int, end: int) -> None:
        with file.open("rb") as opened:
            self.connection.sendfile(opened, start, end - start)

    def tree(self, repository: str, revision: str, path: str | None) -> None:
        """The files below a folder of the repository, which a client lists before it downloads all."""
        folder = self.server.folder(repository, revision)
        below = _inside(folder, path or "")
        if not below.is_dir():
            raise Absent("EntryNotFound", path or "")
        listed = [
            {
                "type": "file",
                "path": file.relative_to(folder).as_posix(),
                "size": file.stat().st_size,
                "oid": folder.name,
            }
            for file in _files(below)
        ]
        self.reply(HTTPStatus.OK, listed)

    def model(self, repository: str, revision: str | None) -> None:
        """What is known of the repository."""
        folder = self.server.folder(repository, revision)
        files = [{"rfilename": str(file.relative_to(folder))} for file in _files(folder)]
        told = {"id": repository, "modelId": repository, "sha": folder.name, "private": False, "gated": False}
        self.reply(HTTPStatus.OK, {**told, "disabled": False, "tags": [], "siblings": files})

    def reply(self, status: HTTPStatus, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send(status, {"Content-Type": "application/json", **(headers or {})}, len(body))
        if self.command == "GET":
            self.wfile.write(body)

    def send(self, status: HTTPStatus, headers: dict[str, str], length: int) -> None:
        """Status line and headers. X-Repo-Commit: the client stores by it, also that a file is absent."""
        self.send_response(status)
        commit = {"X-Repo-Commit": self.commit} if self.commit else {}
        for name, value in {**headers, **commit, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, form: str, *values: object) -> None:
        log.debug(form, *values)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _inside(folder: Path, path: str) -> Path:
    """A path under the folder; never one outside of it."""
    found = (folder / path).resolve()
    if not found.is_relative_to(folder):
        raise Absent("EntryNotFound", path)
    return found
