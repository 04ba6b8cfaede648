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
from tvg.overview.explain.choices import STRICT, collect_rules, filter_rules
from tvg.overview.explain.stages import TOLD_APART
from tvg.overview.text import WIDTH, value
from tvg.resolve import Resolver
from tvg.settings import CollectSettings, FilterSettings
from tvg.store import Store, identify


@cache
def shipped(scale="mini"):
    return Resolver(Config(scale=scale), REPO / "config")


def arms():
    return [(name, arm) for name in EXPERIMENTS for arm in shipped().arms(name)]


def told(name, scale="mini"):
    """The explanation on one line, so that wrapping hides nothing."""
    return " ".join(" ".join(explain(name, shipped(scale))).split())


def cases():
    """Each arm at each scale that runs it."""
    return [(name, arm, scale) for scale in SCALES for name, arm in arms() if shipped(scale).exists_here(name, arm)]


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


@pytest.mark.parametrize(("name", "arm", "scale"), cases())
def test_every_shipped_arm_is_explained_at_every_scale(name, arm, scale):
    resolver = shipped(scale)
    lines = explain(f"{name}-{arm}", resolver)
    long = [line for line in lines if len(line) > WIDTH and len(max(line.split(), key=len)) < WIDTH // 2]
    assert not long, "wrapped at the page's width"
    text = " ".join(" ".join(lines).split())
    run = resolver.run(name, arm, 0)
    for spec in (*run.stages.values(), *run.evaluations.values()):
        assert identify(spec) in text
    for stage in run.stages:
        written = resolver.experiment(name, arm).stages[stage]
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


CHAIN = """\
# Chain: stages that make models and data.

paper: arXiv:1
prompt: time_r1
rewards: {format: {weight: 1.0}, tiou: {weight: 1.0}}   # paper
stages:
  explore: {kind: grpo, data: charades_train}
  traces:
    kind: collect
    model: explore
    min_reward: 1.5   # paper, strict
    min_anchors: 2   # paper
    min_soft_iou: [0.5, 0.7]   # App. A
    min_tiou: 0.25   # ours
    count: 50   # ours
  sft: {kind: sft, data: traces}
  hard: {kind: filter, model: sft, data: charades_train, above: 0.0, at_most: 0.7, gaussian: {centre: 0.3, width: 0.2},
         fallback: force2}   # code
  grpo: {kind: grpo, init: sft, data: hard}
evaluate: grpo
benchmarks: [charades_test]
arms:
  # Table 2
  greedy: {stages.hard.num_generations: 1, stages.hard.temperature: 0.0, stages.hard.gaussian: null,
           stages.hard.spread_above: 0.1, stages.hard.at_least: 0.2, stages.hard.count: 9, stages.hard.pick: evenly}
  drawn: {stages.hard.above: null, stages.hard.at_most: null, stages.hard.gaussian: null}
  given: {stages.traces: {kind: collect, data: timerft}}
  bare: {evaluate: sft}
"""


def section(text, stage):
    """Of one stage, to the next heading of its level."""
    return text.partition(f"## Stage `{stage}`: ")[2].split(" ## ")[0]


def test_stages_that_make_data_stand_among_the_others(folder):
    text = write(folder, CHAIN)()
    places = [text.index(f"## Stage `{name}`") for name in ("explore", "traces", "sft", "hard", "grpo")]
    assert places == sorted(places)
    assert (
        "is trained by supervised fine-tuning (SFT) on the completions that the stage `traces` keeps, then by "
        "group-relative policy optimisation (GRPO) on the samples that the stage `hard` keeps, and scored on "
        "`charades_test`. What it trains on is made by 3 other stages: `explore` (grpo), `traces` (collect) and `hard` "
        "(filter)." in text
    )
    assert "Trains on the samples that the stage `hard` keeps." in section(text, "grpo")
    assert "Each sample's own completion, which was kept for it." in section(text, "sft")
    assert "As in the stage `explore`." in section(text, "grpo") and "Find the moment" not in section(text, "grpo")
    assert re.search(r"seed 0 traces collect-\w{12} to be chosen", text)
    alone = write(folder, CHAIN)("own-bare")
    assert "made by 2 other stages: `explore` (grpo) and `traces` (collect)." in alone and "`hard`" not in alone


def test_what_a_filter_asks_and_keeps(folder):
    text = section(write(folder, CHAIN)(), "hard")
    assert text.startswith("choice of samples by difficulty (filter) Reads `charades_train`: split `train`")
    assert "The stage `sft` answers each sample 8 times, at temperature 1. The mean tIoU of a sample's answers" in text
    assert "- its mean tIoU is above 0 (equal is not enough) [code] - its mean tIoU is at most 0.7 [code] " in text
    assert "Where that reads nothing, `force2`: " in text
    assert (
        "Of these at most 80, drawn without replacement, each in proportion to exp(-(difficulty - 0.3)^2 / (2 x 0.2^2))"
        " [code] [at mini; none by default]. One that is never answered right is not kept." in text
    )
    text = section(write(folder, CHAIN)("own-greedy"), "hard")
    assert "answers each sample once, greedily." in text and "is at least 0.2 [of this arm]" in text
    assert "standard deviation above 0.1 (equal is not enough) [of this arm]" in text
    assert "spread evenly along the difficulty [at mini; 9 in the file: of this arm]." in text


def test_a_mere_draw_asks_no_model(folder):
    text = write(folder, CHAIN)("own-drawn")
    assert "No model is asked: none of its rules reads a difficulty." in section(text, "hard")
    assert "At most 80, drawn without replacement, all alike" in section(text, "hard")
    assert "answers each sample" not in text


def test_what_a_collect_stage_reads_and_keeps(folder):
    text = section(write(folder, CHAIN)(), "traces")
    assert (
        "Reads every grounding rollout that the stage `explore` has made, with its reward. No model is asked." in text
    )
    for rule in (
        "- a reward above 1.5 (equal is not enough) [paper, strict]",
        "- at least 2 readable anchors in its reasoning [paper]",
        "is above 0.5 (anchor 1), 0.7 (anchor 2) (equal is not enough) [App. A]",
        "- an answer whose tIoU is at least 0.25 [ours]",
        "Of these at most 50, those of the highest reward [ours].",
    ):
        assert rule in text
    assert "Segment, `ans_last`" in text and "Find the moment" not in text
    text = section(write(folder, CHAIN)("own-given"), "traces")
    assert "Reads the completions that the samples of `timerft` carry" in text and "Every completion is kept." in text


@pytest.mark.parametrize(
    ("tell", "kind", "values"),
    [(filter_rules, FilterSettings, {"above": 0.5, "at_least": 0.5, "at_most": 0.5, "spread_above": 0.5}),
     (collect_rules, CollectSettings, {"min_reward": 0.5, "min_anchors": 2, "min_soft_iou": (0.5,), "min_tiou": 0.5})],
)  # fmt: skip
def test_strict_or_not_as_the_settings_say_of_themselves(tell, kind, values):
    for name, given in values.items():
        ((said, rule),) = tell(kind(**{name: given}))
        meaning = kind.model_fields[name].description
        assert said == name
        for words in ("above", "at least", "at most"):
            assert (words in meaning) == (words in rule), (name, meaning, rule)
        assert ("above" in meaning) == (STRICT in rule)
    assert not list(tell(kind()))


def test_cloning_of_constructed_rollouts(folder):
    warm = OWN.replace("prompt: time_r1", "prompt: taro").replace("kind: sft\n    data", "kind: awbc\n    data")
    text = write(folder, warm)()
    assert "by advantage-weighted behaviour cloning (AWBC) on `charades_train`" in text
    text = section(text, "cold")
    assert "the loss is -max(advantage, 0) x log-probability over all response tokens, the prefix included." in text
    assert "Every prompt whose sample has dense captions gets one." in text
    assert "<think>I look for the moment when this happens: {query} {captions}" in text
    assert "reward = 1.0 x format + 0.5 x tiou" in text
    some = write(folder, warm.replace("    learning_rate", "    constructed: 0.5   # ours\n    learning_rate"))
    assert "A share of 0.5 of the prompts whose sample" in some()
    none = write(folder, warm.replace("    learning_rate", "    constructed: 0.0   # ours\n    learning_rate"))
    assert "all rollouts are the model's own (`constructed` 0)" in none()
    assert "prompts/time_r1.yaml has no `prefix`" in write(folder, warm.replace("prompt: taro", "prompt: time_r1"))()


def test_a_mixture_that_moves_is_baked_or_is_ordered(folder):
    def cold(settings, kind="sft"):
        with_settings = OWN.replace("kind: sft\n    data", f"kind: {kind}\n    {settings}\n    data")
        return section(write(folder, with_settings)(), "cold")

    text = told("invert4tvg-p_schedule")
    assert "drawn for each prompt: ground 0.6, complete_verb 0.133333," in text
    assert "move linearly to those of the last: ground 1 (of this arm)." in text
    assert "`stages.grpo.tasks_end`: added, ground 1" in text
    rising = cold("tasks_end: {ground: 0.5, describe: 0.5}   # ours", "grpo")
    assert (
        "for each prompt: ground 1. These are" in rising and "of the last: ground 0.5, describe 0.5 (ours)." in rising
    )
    assert "`describe`, prompts/inversion.yaml" in rising and "drops out of its sum" in rising
    baked = cold("draw: static\n    tasks: {ground: 0.8, describe: 0.2}   # ours")
    assert "Every epoch grounds each sample, and repeats those of the same few videos under the other tasks" in baked
    assert "as whole videos allow to: ground 0.8, describe 0.2 (ours)." in baked
    ordered = cold("order: hard_to_easy")
    assert "Every prompt asks `ground`. Each epoch goes from the hard samples to the easy ones, by the" in ordered


def test_a_share_of_constructed_prompts_that_moves():
    text = section(told("taro-falling_construction", "3b"), "warm")
    assert "Every prompt at the first step, moving linearly to a share of 0 at the last, whose sample" in text


def test_a_comment_on_a_whole_stage_is_not_about_the_names_in_it(folder):
    text = write(folder, CHAIN.replace("fallback: force2}   # code", "fallback: force2}   # ours"))()
    text = text.partition("## What differs from the paper")[2]
    assert "`stages.hard.at_most`: 0.7 [ours]" in text
    assert "stages.hard.kind" not in text and "stages.hard.data" not in text and "stages.hard.model" not in text


def test_arms_may_be_configured_alone(folder):
    resolver = Resolver(Config(experiments=("invert4tvg-main",)), folder)
    text = " ".join(" ".join(explain("time_r1", resolver)).split())
    assert "invert4tvg" not in text.partition("## Results")[2]


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
