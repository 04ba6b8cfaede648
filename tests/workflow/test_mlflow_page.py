"""A real MLflow server: as the place that is written to, and as the page that a person looks at."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.results_folder import World
from tvg import track

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(REPO / "src"),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium"),
]


@contextmanager
def server(folder: Path, store: str, *arguments: str) -> Iterator[str]:
    """An MLflow server on a free port of this machine; 15 to 30 s to come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--port", address.rsplit(":", 1)[1], *arguments]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )  # it starts workers: all of them are stopped at the end
    try:
        _wait(address, process, folder / "server.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait(address: str, process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"no MLflow server: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A filled results/mlflow.db, its server, and what the sweep said."""
    world = World(
        tmp_path_factory.mktemp("page") / "results" / "mini", benchmarks=("charades_test", "activitynet_test")
    )
    world.full()
    summary = track.sweep(world.root)
    with server(world.root.parent, track.store_uri(world.root)) as address:
        yield address, summary, world


def dom(address: str, profile: Path, *wanted: str) -> str:
    """The page after its scripts have run; asked again while a slow machine has not shown all of `wanted`."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1200", "--dump-dom"]
    for patience in (20, 60, 120):
        command_ = [
            *command,
            f"--user-data-dir={profile}/{patience}",
            f"--virtual-time-budget={patience * 1000}",
            address,
        ]
        done = subprocess.run(command_, capture_output=True, text=True, timeout=240, check=True)
        if all(text in done.stdout for text in wanted):
            break
    return done.stdout


@pytest.mark.parametrize("mark", [pytest.param(None, marks=browser)])
def test_the_link_opens_a_table_of_arms_with_their_headline(page, tmp_path, mark):
    address, summary, world = page
    names = ["cosine · invert4tvg", "invert4tvg", "one_anchor · tar_tvg", "zero_shot", "base · sft"]
    columns = ["test/r1_at_0.5", "test/miou", "activitynet_test/r1_at_0.5"]
    shown = dom(track.url(address, summary.experiment), tmp_path, *names, *columns)
    for text in (*names, *columns):
        assert text in shown, text
    from tvg.track.read import Reader

    for run in Reader(world.root).runs():
        if "test/r1_at_0.5" in run.metrics:
            assert str(run.metrics["test/r1_at_0.5"])[:10] in shown, run.name
    assert "grpo · cosine" not in shown  # the tree is closed: one row an arm


@pytest.mark.parametrize("mark", [pytest.param(None, marks=browser)])
def test_a_stage_shows_its_training_curve(page, tmp_path, mark):
    address, summary, _ = page
    from mlflow import MlflowClient

    (run,) = MlflowClient(address).search_runs([summary.experiment], "run_name = 'grpo · cosine · invert4tvg'")
    where = f"{address}/#/experiments/{summary.experiment}/runs/{run.info.run_id}"
    shown = dom(where, tmp_path, "train/reward", "learning_rate", "git")
    assert "train/reward" in shown and "learning_rate" in shown and "0123456789" in shown


def test_a_server_is_filled_once_and_several_people_share_it(tmp_path):
    from mlflow import MlflowClient

    worlds = [World(tmp_path / person / "results" / "mini", steps=5) for person in ("one", "two")]
    for world in worlds:
        grpo = world.grpo()
        world.train(grpo)
        world.arm("time_r1", "main", {"grpo": grpo}, grpo)
    destination = ["--artifacts-destination", str(tmp_path / "artifacts")]
    with server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}", *destination) as address:
        first, again, other = (track.sweep(world.root, address) for world in (worlds[0], worlds[0], worlds[1]))
        assert first.written.created == first.runs == other.written.created and again.written.total == 0
        client = MlflowClient(address)
        found = client.search_runs([first.experiment], max_results=1000)
        assert len(found) == 2 * first.runs and first.experiment == other.experiment
        (run, _) = (run for run in found if run.info.run_name == "grpo · time_r1")
        assert len(client.get_metric_history(run.info.run_id, "train/reward")) == 5
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"spec.json", "run.json"}
        assert not (tmp_path / "one" / "results" / "mlflow.db").exists()


def test_two_at_once_make_one_database(tmp_path):
    """Without the lock, seven of eight fail in MLflow's migration and the file may stay half made."""
    from mlflow import MlflowClient

    world = World(tmp_path / "results" / "mini", steps=5)
    world.arm("zero_shot", "main", {}, world.base)
    code = "import sys; from pathlib import Path; from tvg import track; track.sweep(Path(sys.argv[1]))"
    jobs = [subprocess.Popen([sys.executable, "-c", code, world.root], env=ENVIRONMENT) for _ in range(2)]
    assert [job.wait(180) for job in jobs] == [0, 0]
    summary = track.sweep(world.root)
    assert summary.written.total == 0 and not list(world.root.parent.glob("*.partial"))
    client = MlflowClient(track.store_uri(world.root))
    assert len(client.search_runs([summary.experiment], max_results=1000)) == summary.runs
