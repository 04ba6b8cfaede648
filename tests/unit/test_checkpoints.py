"""Whole or absent: which checkpoint a job goes on from, whatever a kill left behind."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tvg.train import checkpoints


def write(folder, step):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"w": torch.ones(100)}, checkpoint / checkpoints.WEIGHTS)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    torch.save({"state": torch.ones(100)}, checkpoint / "optimizer.pt")
    torch.save({"last": step}, checkpoint / "scheduler.pt")
    return checkpoint


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_none_in_an_empty_or_absent_folder(tmp_path):
    assert checkpoints.newest(tmp_path / "absent") is None
    (tmp_path / "partial").mkdir()
    assert checkpoints.newest(tmp_path) is None


def test_newest_is_by_step_and_not_by_name(tmp_path):
    for step in (9, 100, 20):
        write(tmp_path, step)
    assert checkpoints.newest(tmp_path).name == "checkpoint-100"


@pytest.mark.parametrize("name", [checkpoints.WEIGHTS, "optimizer.pt", "scheduler.pt", "trainer_state.json"])
@pytest.mark.parametrize("damage", [cut, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, caplog, name, damage):
    write(tmp_path, 5), write(tmp_path, 10)
    damage(tmp_path / "checkpoint-10" / name)
    assert checkpoints.newest(tmp_path).name == "checkpoint-5"
    assert "checkpoint-10 is damaged" in caplog.text


def test_publish_replaces_and_rotate_keeps_two(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    new = write(tmp_path / "partial", 3)
    (new / "mark").touch()
    checkpoints.publish(new, tmp_path / "checkpoint-3")
    checkpoints.rotate(tmp_path)
    assert [c.name for c in checkpoints.all_of(tmp_path)] == ["checkpoint-3", "checkpoint-2"]
    assert (tmp_path / "checkpoint-3" / "mark").exists()
