"""What a run leaves behind, and what a resumed run does with it."""

import json
import signal

import pandas
import pytest

from tvg.train import signals
from tvg.train.arguments import rows_per_pass
from tvg.train.record import Completions, Metrics, Run
from tvg.train.watch import ours


def test_rows_past_the_checkpoint_are_cut_and_a_torn_last_line_is_forgiven(tmp_path):
    metrics = Metrics(tmp_path)
    for step in range(1, 6):
        metrics.append(step, {"train/loss": 0.5, "train/kl": None})
    with metrics.path.open("a") as out:
        out.write('{"step": 6, "tim')
    metrics.cut(3)
    assert [row["step"] for row in metrics.rows()] == [1, 2, 3]
    assert set(metrics.rows()[0]) == {"step", "time", "train/loss"}


def test_library_names_become_ours():
    logs = {"loss": 1.0, "rewards/format/mean": 0.5, "rewards/format/std": 0.1, "reward_std": 9, "train/length": 3}
    assert ours(logs) == {"train/loss": 1.0, "train/rewards/format": 0.5, "train/length": 3}


def test_completions_of_every_step_are_kept_and_cut_with_it(tmp_path):
    completions = Completions(tmp_path)
    for step in (1, 2, 10, 11):
        completions.write(step, [{"id": "a", "completion": "text", "reward": 1.0}])
    names = sorted(path.name for path in completions.folder.iterdir())
    assert names == [f"step-{n:06d}.parquet" for n in (1, 2, 10, 11)]
    assert pandas.read_parquet(completions.folder / names[2])["step"].tolist() == [10]
    completions.cut(2)
    assert len(list(completions.folder.iterdir())) == 2


@pytest.mark.parametrize(("error", "code"), [(signals.Interrupted(signal.SIGTERM), 143), (ValueError(), 1)])
def test_run_says_how_it_ended(tmp_path, error, code):
    with pytest.raises(type(error)), Run(tmp_path, "cpu", "float32", "plain"):
        raise error
    assert json.loads((tmp_path / "run.json").read_text())["exit"] == code


def test_run_goes_on_counting_after_a_stop(tmp_path):
    run = Run(tmp_path, "cpu", "float32", "plain")
    first = json.loads(run.path.read_text()) | {"seconds": 100.0}
    run.path.write_text(json.dumps(first))
    with Run(tmp_path, "cpu", "float32", "plain") as again:
        again.update(7)
    facts = json.loads(run.path.read_text())
    assert facts["started"] == first["started"] and facts["seconds"] >= 100.0
    assert facts["exit"] == 0 and facts["steps"] == 7 and facts["ended"]
    assert {"host", "device", "precision", "policy", "commit", "dirty", "peak_memory_gb"} <= set(facts)
    assert "torch" in facts["versions"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_is_noted_and_raised_only_where_asked(signum, code, monkeypatch):
    monkeypatch.setenv("TVG_GRACE_SECONDS", "7")
    before = signal.getsignal(signum)
    with signals.caught() as stop:
        stop.check()
        signal.raise_signal(signum)
        with pytest.raises(signals.Interrupted) as stopped:
            stop.check()
    assert stopped.value.code == code
    assert stopped.value.grace == (0 if code == 130 else 7)
    assert signal.getsignal(signum) is before


def test_a_second_ctrl_c_is_in_earnest():
    with signals.caught(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("total", "at_most", "group", "rows"),
    [(64, 8, 8, 8), (64, 24, 8, 16), (64, 4, 8, 8), (64, 1000, 8, 64), (48, 32, 8, 24), (64, 48, 1, 32), (7, 4, 1, 1)],
)
def test_rows_of_a_pass_are_whole_groups_and_divide_the_step(total, at_most, group, rows):
    assert rows_per_pass(total, at_most, group) == rows
