"""Transcripts in documentation: the commands of a page's ```console blocks, typed again.

`python -m tests.transcript docs/adding.md` runs them in a fresh copy of the repository and writes down what they print.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPO
from tests.workflow.small import ENVIRONMENT

BLOCK = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)


def commands(block: str) -> Iterator[str]:
    """The commands of a block: lines after `$ `, with what belongs to a here-document."""
    lines = iter(block.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = [line.removeprefix("$ ")]
            if "<<'END'" in line:
                command += [next(lines)]
                while command[-1] != "END":
                    command.append(next(lines))
            yield "\n".join(command)


def typed(command: str, folder: Path) -> subprocess.CompletedProcess:
    """One command in bash, output and errors together."""
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def workplace(folder: Path) -> Path:
    """What of the repository a run needs, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config", "rules", "envs"):
        shutil.copytree(REPO / name, folder / name)
    for name in ("Snakefile", "Makefile", "pyproject.toml"):
        shutil.copy(REPO / name, folder / name)
    return folder


def rewrite(page: Path, folder: Path) -> None:
    """Every block of the page with what its commands print in `folder`."""

    def filled(found: re.Match) -> str:
        lines = []
        for command in commands(found[2]):
            done = typed(command, folder)
            if done.returncode:
                raise SystemExit(f"{command}\n{done.stdout}")
            lines += [f"$ {command}", *done.stdout.rstrip().splitlines()]
        return found[1] + "\n".join(lines) + "\n" + found[3]

    page.write_text(BLOCK.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        rewrite(Path(sys.argv[1]), workplace(Path(temporary) / "tvg"))
