"""What a person writes wrongly is refused with file, key, value got and nearest word."""

import shutil

import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO
from tvg.config import Config, Scale, read, read_yaml
from tvg.errors import TvgError
from tvg.plan import Plan
from tvg.resolve import Resolver

EXPERIMENTS = sorted(path.stem for path in (REPO / "config" / "experiments").glob("*.yaml"))
SCALES = sorted(path.stem for path in (REPO / "config" / "scales").glob("*.yaml"))


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped config/ to break."""
    shutil.copytree(REPO / "config", tmp_path / "config")
    return tmp_path / "config"


def edit(path, **changes):
    yaml = YAML()
    content = yaml.load(path.read_text())
    for dotted, value in changes.items():
        *parents, leaf = dotted.split("__")
        node = content
        for part in parents:
            node = node[part]
        node[leaf] = value
    yaml.dump(content, path)


def resolver(folder, scale="mini", **dials):
    return Resolver(Config(scale=scale, experiments=("time_r1",), **dials), folder)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_shipped_arm_resolves(name, scale):
    shipped = Resolver(Config(scale=scale, experiments=(name,)), REPO / "config")
    if scale not in (shipped.read_raw(name).get("scales") or [scale]):
        pytest.skip(f"{name} exists at other scales only")
    for arm in shipped.arms(name):
        assert shipped.run(name, arm, 0).evaluations


def test_unknown_key_names_file_arm_key_and_nearest_word(folder):
    edit(folder / "experiments" / "time_r1.yaml", arms={"g4": {"stages.grpo.num_generation": 6}})
    with pytest.raises(TvgError) as error:
        resolver(folder).run("time_r1", "g4", 0)
    text = str(error.value)
    assert "experiments/time_r1.yaml: arm 'g4'" in text and "num_generation: unknown key" in text
    assert error.value.got == 6 and error.value.hint == "did you mean 'num_generations'?"


def test_an_arm_cannot_edit_a_missing_path(folder):
    edit(folder / "experiments" / "time_r1.yaml", arms={"x": {"stages.gpro.beta": 0.1}})
    with pytest.raises(TvgError, match=r"missing path: stages\.gpro\.beta") as error:
        resolver(folder).run("time_r1", "x", 0)
    assert error.value.hint == "did you mean 'grpo'?"


def test_task_shares_must_sum_to_one(folder):
    edit(folder / "experiments" / "invert4tvg.yaml", stages__grpo__tasks={"ground": 0.8, "describe": 0.1})
    with pytest.raises(TvgError, match=r"sum to 1, they sum to 0\.9"):
        resolver(folder).run("invert4tvg", "main", 0)


def test_a_scale_sets_sizes_only(folder):
    edit(folder / "scales" / "mini.yaml", set={"grpo": {"beta": 0.5}})
    with pytest.raises(TvgError, match="a scale may not set this") as error:
        resolver(folder).run("time_r1", "main", 0)
    assert "set.grpo.beta" in str(error.value)


def test_unknown_reward(folder):
    edit(folder / "experiments" / "time_r1.yaml", rewards={"formt": {"weight": 1.0}})
    with pytest.raises(TvgError, match="no such reward") as error:
        resolver(folder).run("time_r1", "main", 0)
    assert error.value.hint == "did you mean 'format'?"


def test_missing_role(folder):
    edit(folder / "experiments" / "time_r1.yaml", stages__grpo__data="charades_trian")
    with pytest.raises(TvgError, match="maps no such role"):
        resolver(folder).run("time_r1", "main", 0)


def test_stages_that_start_from_each_other(folder):
    edit(folder / "experiments" / "time_r1.yaml", stages__grpo__init="grpo")
    with pytest.raises(TvgError, match="start from each other"):
        resolver(folder).run("time_r1", "main", 0)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "!!python/object/apply:os.system ['true']\n", "- 1\n", "a: [\n"])
def test_yaml_is_read_safely(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(TvgError):
        read_yaml(tmp_path / "x.yaml")


def test_a_name_cannot_leave_its_folder():
    with pytest.raises(TvgError):
        Plan.load({"experiments": ["../../etc/passwd"]}, REPO / "config")


def test_numbers_with_exponents_are_numbers(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1e-6\nb: 1.0e-6\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1e-6, "b": 1e-6}


def test_scales_read():
    for scale in SCALES:
        assert read(Scale, REPO / "config" / "scales", scale).shards > 0
