"""`tvg explain` says what every shipped arm is at every scale, and what its numbers rest on."""

import re
import shutil
from functools import cache

import pytest

from tests.conftest import REPO
from tests.unit.test_config import EXPERIMENTS, SCALES
from tvg import cli
from tvg.config import Config
from tvg.errors import TvgError
from tvg.overview.explain import explain
from tvg.overview.explain.stages import TOLD_APART
from tvg.overview.text import WIDTH, value
from tvg.resolve import Resolver
from tvg.store import Store, identify


@cache
def shipped(scale="mini"):
    return Resolver(Config(scale=scale), REPO / "config")


def arms():
    return [(name, arm) for name in EXPERIMENTS for arm in shipped().arms(name)]


def told(name, scale="mini"):
    """The explanation on one line, so that wrapping hides nothing."""
    return " ".join(" ".join(explain(name, shipped(scale))).split())


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(REPO / "config", tmp_path / "config")
    return tmp_path / "config"


def write(folder, text):
    """An experiment of our own; its explanation on one line."""
    (folder / "experiments" / "own.yaml").write_text(text)
    resolver = Resolver(Config(experiments=("own",), results_root=str(folder.parent / "results")), folder)
    return lambda arm="own": " ".join(" ".join(explain(arm, resolver)).split())


OWN = """\
# Own: two stages.

paper: arXiv:1
prompt: time_r1
rewards:
  format: {weight: 1.0}   # paper
  tiou: {weight: 0.5}   # paper 1.0; ours
stages:
  cold:
    kind: sft
    data: charades_train
    learning_rate: 1.0e-5   # paper, App. C
  idle: {kind: sft, data: timerft}
  rl:
    kind: grpo
    init: cold
    data: mini.val
    rewards: {tiou: {weight: 2.0}}   # article
    temperature: 0.7   # paper 1.0
evaluate: rl
benchmarks: [charades_test]
arms:
  # Table 9
  short: {stages.cold.weight_decay: 0.1, evaluate: cold}
  same: {stages.rl.temperature: 0.7}   # paper
"""


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "arm"), arms())
def test_every_shipped_arm_is_explained_at_every_scale(name, arm, scale):
    resolver = shipped(scale)
    lines = explain(f"{name}-{arm}", resolver)
    long = [line for line in lines if len(line) > WIDTH and len(max(line.split(), key=len)) < WIDTH // 2]
    assert not long, "wrapped at the page's width"
    text = " ".join(" ".join(lines).split())
    here = resolver if resolver.exists_here(name, arm) else shipped(resolver.experiment(name, arm).scales[0])
    run = here.run(name, arm, 0)
    for spec in (*run.stages.values(), *run.evaluations.values()):
        assert identify(spec) in text
    for stage in run.stages:
        written = here.experiment(name, arm).stages[stage]
        for field in set(type(written).model_fields) - TOLD_APART:
            assert re.search(rf"^    {field} +{re.escape(value(getattr(written, field)))}( |$)", "\n".join(lines), re.M)
    assert "no source" not in text


def test_an_arm_is_told_as_edits_of_the_main_arm():
    text = told("invert4tvg-cosine")
    assert "Table 3: the verbs' reward." in text and "`rewards.verbs.match`: from binary to cosine" in text
    text = told("time_r1-finetune", "3b")
    assert "`rewards.timed_iou`: left out; in the main arm weight 1, clamp true" in text
    assert "`rewards.tiou`: added, weight 1" in text and "`stages.grpo.beta`: from 0.04 to 0" in text
    assert "beta 0 of this arm" in text and "## The arm" not in told("time_r1")


def test_what_differs_from_the_paper():
    text = told("invert4tvg", "3b").partition("## What differs from the paper")[2]
    assert "`stages.grpo.learning_rate`: 1e-06 here, 5e-5 in the paper [paper 5e-5, code's log" in text
    assert "`stages.grpo.freeze_vision`: true [our default" in text and "num_generations" not in text


def test_what_the_scale_changes_says_both_values():
    text = told("invert4tvg").partition("## What this scale changes")[2]
    assert "`stages.grpo.learning_rate`: 1e-06 in the file, 0.0001 at mini" in text
    assert "`stages.grpo.steps`: none by default, 60 at mini" in text
    assert "charades_train split train of the data set mini" in text and "base the stage sft of mini_base" in text
    assert "It changes no size" in told("invert4tvg", "3b")


def test_rewards_are_a_formula_with_their_meaning_and_source():
    text = told("invert4tvg-cosine")
    assert "reward = 1.0 x format + 1.0 x tiou + 1.0 x verbs" in text
    assert (
        "With match cosine and describe all. [paper, r_x; all: our default, systems.md 8 row 10; match: of this arm]"
        in text
    )
    assert "none of these tasks has it: verbs" in told("invert4tvg-tvg_only")


def test_one_training_under_several_names_is_said():
    assert "At mini this arm equals `invert4tvg-ground_1.0`: one and the same run" in told("invert4tvg-tvg_only")
    assert "No other configured arm" in told("invert4tvg-cosine")


def test_an_experiment_that_is_not_at_this_scale_is_explained_at_its_own():
    assert explain("mini_base", shipped("3b"))[2] == "It does not exist at the scale 3b, only at mini: this is mini."
    assert "zhengmh/TaRO-7B" in told("released-taro_7b")


def test_without_stages_nothing_is_trained():
    assert "is scored on `charades_test` as it is: nothing is trained." in told("zero_shot", "3b")
    text = told("zero_shot-constant_window")
    assert "no video is seen" in text and "greedily" not in text and "max_frames" not in text


def test_unknown_names_get_the_nearest():
    for wrong, hint in (("invert4tgv", "did you mean 'invert4tvg'?"), ("invert4tvg-cosin", "did you mean 'cosine'?")):
        with pytest.raises(TvgError) as error:
            explain(wrong, shipped())
        assert error.value.hint == hint


def test_stages_in_order_with_their_own_rewards_and_starts(folder):
    text = write(folder, OWN)()
    assert text.index("## Stage `cold`") < text.index("## Stage `rl`") and "## Stage `idle`" not in text
    assert "(SFT) on `charades_train`, then by group-relative policy optimisation (GRPO) on `mini.val`" in text
    assert "Starts from the stage `cold`. Trains on `mini.val`: split `val` of the data set `mini`." in text
    assert "reward = 2.0 x tiou" in text and "[article]" in text
    assert "`stages.rl.temperature`: 0.7 here, 1.0 in the paper [paper 1.0]" in text
    assert "<think>I look through the video.</think> <answer>3.20 to 9.75</answer>" in text


def test_sharing_of_stages_and_of_runs(folder):
    explained = write(folder, OWN)
    assert "The training `cold` also serves" not in explained("own-short")
    assert "At mini this arm equals `own`" in explained("own-same")
    shared = write(folder, OWN.replace("stages.cold.weight_decay: 0.1, ", ""))
    assert "The training `cold` also serves `own` and `own-same`." in shared("own-short")


def test_a_number_without_a_source_is_said(folder):
    assert "no source" in write(folder, OWN.replace("   # paper, App. C", ""))()


def test_what_is_done_is_said(folder):
    explained = write(folder, OWN)
    assert explained().count("to be trained") == 3  # base, cold, rl
    resolver = Resolver(Config(experiments=("own",)), folder)
    done = Store(folder.parent / "results" / "mini").stage(resolver.stage("own", "main", "cold", 0))
    done.mkdir(parents=True)
    (done / "model.done").touch()
    assert re.search(r"cold sft-\w{12} trained", explained()) and explained().count("to be trained") == 2


def test_every_seed_is_listed(folder):
    resolver = Resolver(Config(experiments=("time_r1",), seeds=(3, 4), limit=8), folder)
    text = " ".join(" ".join(explain("time_r1", resolver)).split())
    assert "seed 3 grpo" in text and "seed 4 grpo" in text and "only the first 8 samples" in text


def test_the_verb(monkeypatch, capsys, caplog):
    monkeypatch.chdir(REPO)
    assert cli.main(["explain", "time_r1-finetune", "--config", "scale=3b"]) == 0
    assert capsys.readouterr().out.startswith("# time_r1-finetune, scale 3b\n")
    assert cli.main(["explain", "tiem_r1"]) == 1 and "did you mean 'time_r1'?" in caplog.text
