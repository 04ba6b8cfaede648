"""`kill -9` of a real `tvg train` at random moments: what is resumed is, bit for bit, the run that nobody killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas
import pytest

from tests.conftest import REPO
from tests.training import grpo_spec, make_store, same_rows, sft_spec
from tvg.settings import Lora
from tvg.train.record import Metrics

STEPS = 6
MIXED = {"ground": 0.5, "complete_verb": 0.25, "describe": 0.25}
ADAPTERS = {"lora": Lora(r=4, alpha=8, dropout=0.1), "learning_rate": 1e-2}
# Loads the libraries once, then runs `tvg train` in a process of its own for every line: folder and spec.
RUNNER = """
import os, sys
import torch
from tests.training import graded
from tvg import cli
from tvg.train import awbc, grpo, sft
torch.set_num_threads(1)
grpo.score = graded
for line in sys.stdin:
    folder, spec = line.split()
    child = os.fork()
    if not child:
        os.chdir(folder)
        os._exit(cli.main(["train", spec, "--threads", "1"]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def runner():
    here = [str(REPO / "src"), str(REPO), os.environ.get("PYTHONPATH", "")]
    alone = {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", RUNNER], env=os.environ | alone, text=True, **pipes) as process:
        yield process
        process.stdin.close()


class Training:
    """A stage of its own store, trained by `tvg train` of the runner."""

    def __init__(self, runner, root, spec, **runtime):
        self.runner, self.root = runner, root
        store = make_store(root)
        self.folder, self.spec = store.stage(spec), store.spec(store.freeze(spec))
        shutil.copytree(REPO / "config", root / "config")
        scales = root / "config" / "scales"  # a scale's name is that of the folder of its results
        text = (scales / "mini.yaml").read_text().split("\nruntime:")[0]
        dials = {"gradient_checkpointing": False, "fixed_set_every": 4, "fixed_set_count": 2, **runtime}
        (scales / "results.yaml").write_text(f"{text}\nruntime: {json.dumps(dials)}\n")

    def start(self):
        """Its process id."""
        self.runner.stdin.write(f"{self.root} {self.spec}\n")
        self.runner.stdin.flush()
        return int(self.runner.stdout.readline())

    def ended(self):
        """Its exit status, once it has one."""
        return int(self.runner.stdout.readline())

    def steps(self):
        return len(Metrics(self.folder).rows())

    def killed_at(self, moment, step_seconds):
        """Start it, and kill it when it is `moment` steps far, a broken number; whether it was alive."""
        child, until = self.start(), time.monotonic() + 60
        while self.steps() < int(moment) and time.monotonic() < until and not (self.folder / "model.done").exists():
            time.sleep(0.002)
        time.sleep(moment % 1 * step_seconds)
        os.kill(child, signal.SIGKILL)
        return self.ended() == -signal.SIGKILL


def left(folder):
    """All that a training leaves and that does not hang on the clock."""
    files = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    files |= {name: (folder / name).read_bytes() for name in ("verbs.jsonl",) if (folder / name).exists()}
    tables = [pandas.read_parquet(path) for path in sorted((folder / "completions").glob("*.parquet"))]
    return same_rows(Metrics(folder).rows()), files, tables


@pytest.mark.parametrize(
    ("policy", "seed", "save_every", "spec"),
    [("plain", 0, 1, grpo_spec(steps=STEPS, tasks=MIXED)), ("shared", 3, 2, grpo_spec(steps=STEPS, tasks=MIXED)),
     ("shared", 1, 2, grpo_spec(steps=STEPS, tasks=MIXED, **ADAPTERS)), ("plain", 2, 4, sft_spec(steps=STEPS))],
    ids=["plain", "shared", "adapters", "sft"],
)  # fmt: skip
def test_a_killed_run_is_the_run_that_nobody_killed(tmp_path, runner, policy, seed, save_every, spec):
    draw = random.Random(seed)
    straight = Training(runner, tmp_path / "straight", spec, policy=policy, save_every=save_every)
    straight.start()
    assert straight.ended() == 0
    rows, files, tables = left(straight.folder)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    seconds = max(row["train/step_seconds"] for row in Metrics(straight.folder).rows())

    training = Training(runner, tmp_path / "killed", spec, policy=policy, save_every=save_every)
    for moment in sorted(draw.uniform(0, STEPS - 1) for _ in range(2)):
        assert training.killed_at(moment, seconds)
        assert not (training.folder / "model.done").exists()
        assert moment < save_every + 1 or list((training.folder / "checkpoints").glob("checkpoint-*"))
    training.start()
    assert training.ended() == 0
    again, kept, completions = left(training.folder)
    assert again == rows
    assert kept.keys() == files.keys() and all(kept[name] == files[name] for name in files)
    assert len(completions) == len(tables)
    for one, other in zip(completions, tables, strict=True):
        pandas.testing.assert_frame_equal(one, other, check_exact=True)
