"""The command line: errors have five parts and an exit code, and land in the job's log too."""

import argparse
import errno

import pytest
from safetensors import SafetensorError

from tvg import cli


def test_an_absent_spec_is_an_error_with_a_hint(tmp_path, caplog):
    assert cli.main(["tasks", str(tmp_path / "specs" / "x.json"), "--log", str(tmp_path / "log" / "x.log")]) == 1
    for part in ("x.json: cannot read this spec", "got:", "expected:", "hint:"):
        assert part in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch, caplog, number):
    def full(_):
        raise OSError(number, "No space left on device", str(tmp_path / "metrics.jsonl"))

    full.__name__ = "tasks"
    monkeypatch.setattr(cli.jobs, "tasks", full)
    assert cli.main(["tasks", str(tmp_path / "x.json")]) == 1
    assert "metrics.jsonl: no room left" in caplog.text and "run the same command again" in caplog.text


def test_a_full_disk_is_also_known_from_a_library_of_another_language(tmp_path, monkeypatch, caplog):
    def full(_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    full.__name__ = "tasks"
    monkeypatch.setattr(cli.jobs, "tasks", full)
    assert cli.main(["tasks", str(tmp_path / "x.json")]) == 1
    assert "disk: no room left" in caplog.text and "Error while serializing" in caplog.text


def test_any_other_os_error_is_not_hidden(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "input/output error")

    broken.__name__ = "tasks"
    monkeypatch.setattr(cli.jobs, "tasks", broken)
    with pytest.raises(OSError, match="input/output"):
        cli.main(["tasks", str(tmp_path / "x.json")])


def verbs_of(parser):
    """Every verb as it is typed, verbs of verbs too, with its own parser."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        return [(parser.prog, parser)]
    return [found for action in inner for one in action.choices.values() for found in verbs_of(one)]


@pytest.mark.parametrize(
    ("typed", "parser"), verbs_of(cli.parser()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_verb_shows_an_example_that_it_takes(typed, parser):
    example = parser.format_help().split("example: ")[1]
    words = " ".join(example.split()).replace('"', "").split()
    assert " ".join(words).startswith(typed), "the example is of this verb"
    assert len(words) > len(typed.split()) or not any(action.required for action in parser._actions)
