"""Two processes that train together (gloo, on the CPU): the same training as in one, stopped and failing together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
import torch

from tests.conftest import REPO
from tests.training import QUICK, graded, grpo_spec, make_store, sft_spec, untrained, weights_of
from tests.unit import test_awbc
from tvg.cli import main
from tvg.errors import TvgError
from tvg.settings import Lora
from tvg.store import Store
from tvg.train import awbc, grpo, launch, processes, sft
from tvg.train.record import Metrics

MIXED = {"ground": 0.5, "complete_verb": 0.25, "describe": 0.25}  # an inversion task sees fewer frames: less work
RUNTIME = QUICK.model_copy(update={"fixed_set_every": 2, "fixed_set_count": 3, "evaluate_batch": 2})
FEW = {"prompts_per_step": 4, "learning_rate": 1e-4}
WHOLE = {"freeze_vision": False}  # of `plain` the vision tower runs outside the wrapped module's forward
WORK = {  # name -> (kind, spec, policy): what is trained in one process and in two
    "grpo": (grpo, grpo_spec(**FEW, tasks=MIXED, loss_type="bnpo"), "shared"),
    "grpo, plain": (grpo, grpo_spec(**FEW, **WHOLE, loss_type="dr_grpo", steps=2), "plain"),
    "grpo by batch": (
        grpo,
        grpo_spec(**FEW, loss_type="grpo", scale_rewards="batch", lora=Lora(r=4), steps=1),
        "plain",
    ),
    "sft": (sft, sft_spec(**WHOLE, tasks=MIXED, learning_rate=1e-4), "plain"),
    "awbc": (awbc, test_awbc.spec_of(**FEW, **WHOLE, steps=1, scale_rewards="batch"), "shared"),
}
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(REPO / "src"), str(REPO), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}
"""Of the child processes."""


def command(then: str, *arguments: object) -> list[str]:
    """A process that imports this module and does `then`; arguments: sys.argv[1:]."""
    return [sys.executable, "-c", f"import sys; from tests.unit.test_processes import *; {then}", *map(str, arguments)]


def store_of(root: Path, name: str) -> Store:
    return Store(root / name / "results", root / name / "data")


def train(root: Path, name: str, runtime=RUNTIME) -> Path:
    kind, spec, policy = WORK[name]
    grpo.score = graded
    return kind.train(spec, store_of(root, name), runtime.model_copy(update={"policy": policy}), "cpu")


def all_of(root: Path) -> None:
    with processes.joined("cpu"):
        for name in WORK:
            train(root, name)


@pytest.fixture(autouse=True)
def children(monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of every training, in one process and in two."""
    roots = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    for root in roots:
        for name in WORK:
            (test_awbc.store_of if name == "awbc" else make_store)(root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "score", graded)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in WORK:
            train(roots[0], name)
        assert launch.launch(command("all_of(Path(sys.argv[1]))", roots[1]), 2) == 0
    return {name: [store_of(root, name).stage(spec) for root in roots] for name, (_, spec, _) in WORK.items()}


@pytest.mark.parametrize("name", WORK)
def test_two_processes_train_what_one_does(trained, name):
    one, two = trained[name]
    rows = [Metrics(folder).rows() for folder in (one, two)]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    for mine, theirs in zip(*rows, strict=True):
        for key in mine:
            if not (key == "time" or key.endswith(("seconds", "per_second"))):
                assert theirs[key] == pytest.approx(mine[key], rel=2e-5, abs=2e-7), key
    before, after = untrained(WORK[name][1]), [weights_of(folder) for folder in (one, two)]
    moved = sum((after[0][key] - before[key]).square().sum() for key in before).sqrt()
    apart = sum((after[0][key] - after[1][key]).square().sum() for key in before).sqrt()
    assert moved > 0 and apart <= 1e-3 * moved, "Adam divides by gradients, the smallest of which are rounding"


@pytest.mark.parametrize("name", [name for name in WORK if name != "sft"])
def test_the_completions_file_has_the_rows_of_all_in_the_same_order(trained, name):
    for step in range(1, WORK[name][1].steps + 1):
        tables = [pandas.read_parquet(folder / "completions" / f"step-{step:06d}.parquet") for folder in trained[name]]
        pandas.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-5)


def test_the_run_says_how_many_processes_it_had(trained):
    one, two = (json.loads((folder / "run.json").read_text()) for folder in trained["grpo"])
    assert (one["processes"], two["processes"]) == (1, 2) and two["exit"] == 0 and two["steps"] == one["steps"]
    assert two["device"].startswith("2 x cpu")
    assert not (trained["grpo"][1] / "checkpoints").exists() and (trained["grpo"][1] / "model.done").exists()


# ------------------------------------------------------------ stopping


def stopped(root: Path, name: str) -> None:
    """Train, and have the launcher asked to stop once the second step is written."""
    append = Metrics.append

    def asked(self, step, values):
        append(self, step, values)
        if step == 2:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.5)

    Metrics.append = asked
    train(root, name)


def test_a_signal_to_the_launcher_stops_all_and_the_resumed_run_is_the_same_run(tmp_path, trained, capfd):
    make_store(tmp_path / "grpo")
    assert launch.launch(command("stopped(Path(sys.argv[1]), 'grpo')", tmp_path), 2) == 143
    assert "Traceback" not in capfd.readouterr().err
    folder = store_of(tmp_path, "grpo").stage(WORK["grpo"][1])
    run = json.loads((folder / "run.json").read_text())
    assert run["exit"] == 143 and [row["step"] for row in Metrics(folder).rows()] == [1, 2]
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}
    assert not (folder / "checkpoints" / "partial").exists()

    train(tmp_path, "grpo")  # in one process: how many there are is no part of a training
    straight = trained["grpo"][0]
    for mine, theirs in zip(Metrics(straight).rows(), Metrics(folder).rows(), strict=True):
        assert theirs["train/grad_norm"] == pytest.approx(mine["train/grad_norm"], rel=2e-5)
    after = [weights_of(path) for path in (straight, folder)]
    assert all(torch.allclose(after[0][key], after[1][key], rtol=1e-4, atol=1e-5) for key in after[0])


def broken(root: Path, name: str) -> None:
    """Train, and have the second process's loss be no number in the second step."""
    loss = grpo.VideoGrpo._loss

    def bad(self, model, inputs):
        found = loss(self, model, inputs)
        return found * float("nan") if self.state.global_step == 1 and processes.rank() == 1 else found

    grpo.VideoGrpo._loss = bad
    train(root, name)


def test_a_loss_that_is_no_number_in_one_process_stops_all_at_the_same_step(tmp_path, capfd):
    make_store(tmp_path / "grpo")
    assert launch.launch(command("broken(Path(sys.argv[1]), 'grpo')", tmp_path), 2) == 1
    said, folder = capfd.readouterr().err, store_of(tmp_path, "grpo").stage(WORK["grpo"][1])
    assert said.count("got:      loss nan on samples toy-") == 1, "the first process tells it, once"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert json.loads((folder / "run.json").read_text())["exit"] == 1


FAILS = """
import os, sys, time
if os.environ["RANK"] == "1":
    {how}
time.sleep(60)
"""


@pytest.mark.parametrize(("how", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_where_one_fails_the_others_are_stopped_and_the_status_is_its_own(monkeypatch, how, status):
    monkeypatch.setattr(launch, "TO_FOLLOW", 0.2)
    began = time.monotonic()
    assert launch.launch([sys.executable, "-c", FAILS.format(how=how)], 2) == status
    assert time.monotonic() - began < 30


STAYS = """
import os, sys, time
from pathlib import Path
from tvg.train import processes
with processes.joined("cpu"):
    Path(sys.argv[1], str(processes.rank())).write_text(str(os.getpid()))
    time.sleep(60)
"""


def test_a_killed_launcher_takes_its_processes_with_it(tmp_path):
    inner = [sys.executable, "-c", STAYS, str(tmp_path)]
    code = "import sys; from tvg.train.launch import launch; launch(eval(sys.argv[1]), 2)"
    launcher = subprocess.Popen([sys.executable, "-c", code, repr(inner)])
    while len(found := [path for path in tmp_path.iterdir() if path.read_text()]) < 2:
        assert launcher.poll() is None
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    pids, end = [int(path.read_text()) for path in found], time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < end, "still there"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


# ------------------------------------------------------------ what a person may have asked wrongly


def test_fewer_gpus_than_asked_for_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TvgError, match="fewer GPUs"):
        launch.check_gpus(2)
    launch.check_gpus(1)


def test_the_verb_says_so_before_anything_is_started(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    store = make_store(tmp_path)
    path = str(store.spec(store.freeze(WORK["grpo"][1])))
    assert main(["train", path, "--gpus", "3"]) == 1 and "prompts_per_step: 4 on 3 GPUs" in caplog.text
    assert main(["train", path, "--gpus", "2"]) == 1 and "fewer GPUs than asked for" in caplog.text


def test_alone_nothing_is_told():
    assert (processes.count(), processes.rank(), processes.most(3), processes.gathered([1])) == (1, 0, 3, [1])
    with processes.joined("cpu"), processes.first_goes_first():
        assert processes.from_first("value") == "value"
