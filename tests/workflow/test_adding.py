"""docs/adding.md, typed command by command on a shrunken mini scale: what a newcomer adds turns up in the tables."""

import re

import pytest

from tests import transcript
from tests.conftest import REPO
from tests.workflow.small import shrink

pytestmark = pytest.mark.workflow
PAGE = (REPO / "docs" / "adding.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """command -> what it printed; every one must end well."""
    folder = shrink(transcript.workplace(tmp_path_factory.mktemp("adding") / "tvg"))
    printed = {}
    for block in transcript.BLOCK.findall(PAGE):
        for command in transcript.commands(block[1]):
            done = transcript.typed(command, folder)
            log = folder / "run.log"
            assert done.returncode == 0, f"{command}\n{done.stdout}{log.read_text() if log.exists() else ''}"
            printed[command] = done.stdout
    return printed


def row(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(label))


def test_the_arm_and_the_data_set_stand_in_the_tables(session):
    for command, text in session.items():
        if command.startswith("tvg show"):
            labels = ["main", "finetune", "g4"] + (["mine"] if "my_videos" in command else [])
            for label in labels:
                assert re.search(r"\d\.\d", row(text, label)) and "not run" not in row(text, label), text
            if "my_videos" in command:
                assert "every arm on my_videos.test" in text and "drawn videos" in text


def untimed(text: str) -> str:
    """Without the hour and without how long something took."""
    return re.sub(r"\d\d:\d\d:\d\d |, \d+\.\d s", "", text).strip()


def test_the_page_shows_what_is_printed(session):
    """Numbers differ on a shrunken scale; explanations and errors do not."""
    shown = {
        command: block.split(f"$ {command}\n", 1)[1].split("\n$ ", 1)[0]
        for _, block, _ in transcript.BLOCK.findall(PAGE)
        for command in transcript.commands(block)
        if f"$ {command}\n" in block
    }
    for start in ("tvg explain time_r1-g4", "tvg data check", "tvg reward", 'echo \'{"text"', "tvg new"):
        (command,) = (one for one in session if one.startswith(start))
        assert untimed(shown[command]) == untimed(session[command]), start


def test_a_slip_is_an_error_with_the_nearest_word(session):
    (text,) = (text for command, text in session.items() if "oops || true" in command)
    assert "arm 'oops'" in text and "did you mean 'num_generations'?" in text
