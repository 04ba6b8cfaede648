"""Versions stand in pyproject.toml; what repeats them must agree."""

import tomllib

from tests.conftest import REPO
from tvg.config import read_yaml

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def test_conda_environment_has_the_same_pins():
    *_, pip = read_yaml(REPO / "envs" / "tvg.yaml")["dependencies"]
    assert pip["pip"] == PROJECT["dependencies"]


def test_every_dependency_is_pinned_and_torch_stands_first():
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        assert "==" in line, line
    assert PROJECT["dependencies"][0].startswith("torch==")
