"""What a person writes wrongly is refused with file, key, value got and nearest word."""

import shutil

import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO
from tvg import datasets
from tvg.config import Config, Scale, read, read_dataset, read_prompt, read_yaml
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
    here = [arm for arm in shipped.arms(name) if shipped.exists_here(name, arm)]
    if not here:
        pytest.skip(f"{name} exists at other scales only")
    for arm in here:
        assert shipped.run(name, arm, 0).evaluations


PINNED = {"beta", "epsilon", "loss_type", "scale_rewards", "learning_rate", "num_generations", "temperature",
          "max_completion_tokens", "prompts_per_step"}  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_shipped_grpo_stage_pins_what_libraries_have_changed(name):
    stages = read_yaml(REPO / "config" / "experiments" / f"{name}.yaml").get("stages") or {}
    for stage, written in stages.items():
        assert written["kind"] != "grpo" or written.keys() >= PINNED, stage


def test_every_shipped_yaml_is_read():
    """By its class, whether anything names it or not."""
    for path in (REPO / "config" / "prompts").glob("*.yaml"):
        assert read_prompt(path.parent, path.stem).texts
    for path in (REPO / "config" / "datasets").glob("*.yaml"):
        identity = read_dataset(path.parent, path.stem)
        with pytest.raises(TvgError, match="no such split"):
            datasets.load(identity, "no_such", path.parent)  # its own module has taken the settings


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


def place_of(error):
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    ("edits", "place", "got", "hint"),
    [
        ({"stages__grpo__kind": "gpro"}, "stages.grpo.kind: no such kind", "gpro", "did you mean 'grpo'?"),
        ({"stages__grpo__beta": "much"}, "stages.grpo.beta: cannot take this value", "much", "config/README.md"),
        (
            {"stages__grpo__tasks": {"grund": 1}},
            "stages.grpo.tasks.grund: not one of",
            "grund",
            "did you mean 'ground'?",
        ),
        ({"base": {"hub": "a/b", "revison": "x"}}, "base.revison: unknown key", "x", "did you mean 'revision'?"),
        ({"base": {"hub": "a/b"}}, "base.revision: key missing", "only hub", "config/README.md"),
        ({"base": "a/b"}, "base: cannot take this value", "a/b", "config/README.md"),
        ({"rewards": {"format": 1.0}}, "rewards.format: not a mapping", "1.0", "config/README.md"),
        ({"rewards__format": {"wieght": 1.0}}, "rewards.format.wieght: unknown key", "1.0", "did you mean 'weight'?"),
        ({"benchmarks": "charades_test"}, "benchmarks: not a list", "charades_test", "config/README.md"),
        ({"benchmarks": ["../x"]}, "benchmarks.0: not a name", "../x", "another name"),
        ({"benchmarks": ["x; rm -rf ~"]}, "benchmarks.0: not a name", "x; rm -rf ~", "another name"),
        ({"arms": {"a-b": {}}}, "arms.a-b: not a name", "a-b", "another name"),
        ({"evalute": "grpo"}, "evalute: unknown key", "grpo", "did you mean 'evaluate'?"),
        ({"prompt": "time_r2"}, "no such prompt", "time_r2", "did you mean 'time_r1'?"),
        ({"evaluate": "gpro"}, "no such stage", "gpro", "did you mean 'grpo'?"),
        ({"stages__grpo__data": "mini.trian"}, "no such split", "mini.trian: trian", "did you mean 'train'?"),
    ],
)
def test_bad_experiments_are_refused_in_five_parts(folder, edits, place, got, hint):
    edit(folder / "experiments" / "time_r1.yaml", **edits)
    with pytest.raises(TvgError) as error:
        resolver(folder).run("time_r1", "main", 0)
    assert place in place_of(error) and ".yaml" in place_of(error)
    assert str(error.value.got) == got and hint in error.value.hint and error.value.expected


@pytest.mark.parametrize(
    ("edits", "place", "got"),
    [
        ({"may_set": ["steps", "rewards"]}, "may_set.1: not one of", "rewards"),
        ({"set": {"grpo": {"tasks": {"ground": 1}}}}, "set.grpo.tasks: a scale may not set this", "tasks"),
        ({"base": "scrtch"}, "base: cannot take this value", "scrtch"),
        ({"data__timerft": {"dataset": "mini", "splt": "train"}}, "data.timerft.splt: unknown key", "train"),
        ({"data__timerft": {"dataset": "mnii", "split": "train"}}, "no such data set", "mnii"),
    ],
)
def test_bad_scales_are_refused(folder, edits, place, got):
    edit(folder / "scales" / "mini.yaml", **edits)
    with pytest.raises(TvgError) as error:
        resolver(folder).run("time_r1", "main", 0)
    assert place in place_of(error) and str(error.value.got) == got


@pytest.mark.parametrize(
    ("dials", "place"),
    [
        ({"sedes": [0]}, "config.yaml: sedes: unknown key"),
        ({"seeds": 0}, "seeds: not a list"),
        ({"seeds": []}, "seeds: cannot take"),
        ({"seeds": [1, 1]}, "seeds: cannot take"),
        ({"limit": 0}, "limit: cannot take"),
        ({"experiments": "al"}, "experiments: cannot take"),
        ({"experiments": ["time_r1", "time_r1"]}, "experiments: cannot take"),
        ({"experiments": ["time_r2"]}, "no such experiment"),
        ({"scale": "8b"}, "no such scale"),
    ],
)
def test_bad_dials_are_refused(dials, place):
    with pytest.raises(TvgError) as error:
        Plan.load(dials, REPO / "config")
    assert place in place_of(error)


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("format: fmt_ta", "format: fmt_at", "answer.format: no such format check", "did you mean 'fmt_ta'?"),
        ("reward: ans_last", "reward: ans_lst", "answer.reward: no such parser", "did you mean 'ans_last'?"),
        ("legacy: whole_last", "legacy: last", "answer.legacy: no such parser", "did you mean"),
        ("{query}", "{qery}", "texts.ground: nothing to fill in", "correct"),
        ("{query}", "this", "texts.ground: the question does not hold the query", "where it stands"),
    ],
)
def test_bad_prompts_are_refused(folder, old, new, place, hint):
    path = folder / "prompts" / "time_r1.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TvgError) as error:
        resolver(folder).run("time_r1", "main", 0)
    assert place in place_of(error) and hint in error.value.hint


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("time_r1.yml", "two experiments of one name"),
        ("other.yml", "not a .yaml file"),
        ("$(reboot).yaml", "not the name of an experiment"),
        ("my experiment.yaml", "not the name of an experiment"),
        ("a-b.yaml", "not the name of an experiment"),
        ("stages.yaml", "not the name of an experiment"),
    ],
)
def test_file_names_of_experiments_are_names_once(folder, name, what):
    shutil.copy(folder / "experiments" / "time_r1.yaml", folder / "experiments" / name)
    with pytest.raises(TvgError, match=what):
        Plan.load({}, folder)


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
