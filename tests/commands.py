"""`tvg` with rows on stdin, in this process; the shipped configuration with an experiment more; the vectors."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from tests.conftest import REPO
from tvg import cli
from tvg.cli import shared

GROUND = {"segment": [3, 9], "duration": 30, "task": "ground", "query": "person opens the door."}


def tvg(*argv, rows=(), text=None, config=REPO / "config"):
    """(exit status, objects on stdout) of `tvg ARGV` with these rows on stdin; every line out must be strict JSON."""
    text = "".join(json.dumps(row) + "\n" for row in rows) if text is None else text
    stdin = io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else text.encode()))
    out = io.StringIO()
    with mock.patch("sys.stdin", stdin), mock.patch.object(shared, "CONFIG", config), contextlib.redirect_stdout(out):
        code = cli.main([str(arg) for arg in argv])
    return code, [json.loads(line, parse_constant=pytest.fail) for line in out.getvalue().split("\n")[:-1]]


def answers(*argv, rows, **more):
    """The rows that come out, none of them broken."""
    code, out = tvg(*argv, rows=rows, **more)
    assert code == 0, out
    assert len(out) == len(rows)
    return out


def completion(body, think="x"):
    return f"<think>{think}</think> <answer>{body}</answer>"


def rollout(body="3 to 9", **more):
    return {"completion": completion(body), **GROUND, **more}


def with_experiment(folder: Path, name: str, text: str) -> Path:
    """A copy of the shipped configuration in `folder`, with one experiment more."""
    shutil.copytree(REPO / "config", folder / "config")
    (folder / "config" / "experiments" / f"{name}.yaml").write_text(text)
    return folder / "config"


def vectors(name: str) -> dict:
    return json.loads((REPO / "tests" / "vectors" / f"{name}.json").read_text())
