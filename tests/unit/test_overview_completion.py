"""Shell completion, in a real bash with the printed script sourced."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_overview_forecast import make  # noqa: F401 - a fixture
from tvg import cli
from tvg.cli.completion import dials, experiments

BASH = """
eval "$(tvg completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_python_argcomplete tvg
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(line):
    """The words that bash would offer after Tab, in the folder where we are."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", line], capture_output=True, text=True, env={"PATH": path}, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tvg pl", ["plan"]),
        ("tvg plan time_r1-finetune_a", ["time_r1-finetune_activitynet"]),
        ("tvg status ze", ["zero_shot"]),
        ("tvg plan time_r1 --config sc", ["scale="]),
        ("tvg plan --config scale=m", ["mini"]),
        ("tvg check --config seeds=[0] scale=re", ["rehearsal"]),
        ("tvg parse --format stri", ["strict_answer"]),
        ("tvg table invert4tvg_figure_5", ["invert4tvg_figure_5"]),
        ("tvg completion z", ["zsh"]),
    ],
)
def test_bash_offers(make, line, words):  # noqa: F811
    assert offered(line) == words


def test_experiments_come_before_their_arms(make):  # noqa: F811
    assert "time_r1" in experiments("") and not [name for name in experiments("") if "-" in name]
    arms = make(experiments=["time_r1"]).resolver.arms("time_r1")
    assert experiments("time_r1") == ["time_r1", *(f"time_r1-{arm}" for arm in arms)]
    Path("config/experiments/time_r1_long.yaml").write_text("a: 1\n")
    assert "time_r1_long" in experiments("time_r1"), "the name may go on"
    Path("config/experiments/broken.yaml").write_text("a: [\n")
    assert experiments("broken-") == ["broken", "broken-main"]


def test_dials(make):  # noqa: F811
    assert {"scale=", "experiments=", "seeds=", "limit="} <= set(dials(""))
    assert dials("scale=") == [f"scale={name}" for name in ("3b", "7b", "mini", "rehearsal")]
    assert "experiments=all" in dials("experiments=") and dials("limit=") == []
    assert "experiments=[time_r1,zero_shot]" in dials("experiments=[time_r1,z")
    assert "experiments=[time_r1,time_r1]" not in dials("experiments=[time_r1,z")


def test_nowhere_near_a_checkout_nothing_is_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiments("") == [] and dials("scale=") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "_ARGCOMPLETE" in capsys.readouterr().out


def test_completing_loads_no_heavy_library(make):  # noqa: F811
    code = (
        "import os, sys, atexit\n"
        "from tvg import cli\n"
        "class Stop(Exception): pass\n"
        "def stop(code=0): raise Stop\n"
        "os._exit = stop\n"
        "try: cli.main([])\n"
        "except Stop: print(sorted({'torch', 'transformers', 'spacy', 'mlflow', 'pandas'} & set(sys.modules)))\n"
    )
    line = "tvg plan time_r1-f"
    environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\x0b"}
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" 8>&1 9>/dev/null', sys.executable, code],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert "time_r1-finetune" in done.stdout and "[]" in done.stdout
