"""The plan: equal specs are one training, an edit changes what it touches and nothing else."""

import json
import re
import shutil

import pytest

from tests.conftest import REPO
from tests.unit.test_config import edit
from tvg.errors import TvgError
from tvg.plan import Plan
from tvg.report.layout import load
from tvg.spec import HubModel, PathModel, canonical, digest
from tvg.store import identify, read_stage

ALL = ["zero_shot", "time_r1", "invert4tvg"]


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(REPO / "config", tmp_path / "config")
    return tmp_path / "config"


def plan(folder, tmp_path, **dials):
    return Plan.load({"experiments": ALL, "results_root": str(tmp_path / "results"), **dials}, folder)


def stages(made):
    """(experiment, arm, stage) -> id, for seed 0."""
    return {
        (run.experiment, run.arm, name): identify(spec)
        for run in made.runs.values() if run.seed == 0 for name, spec in run.stages.items()
    }  # fmt: skip


def test_a_spec_reads_back_from_its_json(folder, tmp_path):
    made = plan(folder, tmp_path)
    made.freeze()
    for ident, spec in made.specs.items():
        if ident.startswith(("sft-", "grpo-")):
            assert read_stage(made.store.spec(ident)) == spec
    other = plan(folder, tmp_path)
    other.specs = {}
    for ident, spec in made.specs.items():
        assert other.spec(ident) == spec, "a job that outlives an edit reads its spec from the store"


def test_only_grounding_and_p_1_are_one_training(folder, tmp_path):
    found = stages(plan(folder, tmp_path))
    assert found["invert4tvg", "tvg_only", "grpo"] == found["invert4tvg", "ground_1.0", "grpo"]
    assert found["invert4tvg", "main", "grpo"] == found["invert4tvg", "ground_0.8", "grpo"]
    assert found["invert4tvg", "main", "grpo"] != found["invert4tvg", "vd", "grpo"]


def test_a_reward_that_no_task_reads_drops_out(folder, tmp_path):
    runs = plan(folder, tmp_path).runs
    assert set(runs["invert4tvg", "tvg_only", 0].stages["grpo"].rewards) == {"format", "tiou"}
    assert set(runs["invert4tvg", "ground_0.0", 0].stages["grpo"].rewards) == {"format", "verbs"}


def test_a_task_that_only_the_last_step_asks_has_its_prompt_its_verbs_and_its_reward(folder, tmp_path):
    edit(
        folder / "experiments" / "invert4tvg.yaml",
        arms__tvg_only={"stages.grpo.tasks": {"ground": 1.0}, "stages.grpo.tasks_end": {"describe": 1.0}},
    )
    spec = plan(folder, tmp_path).runs["invert4tvg", "tvg_only", 0].stages["grpo"]
    assert spec.tasks == {"ground": 1.0} and set(spec.prompt.texts) == {"ground", "describe"}
    assert "verbs" in spec.rewards and "reward.verbs" in spec.versions and spec.data.samples.verbs == "standin"


def test_all_arms_share_one_base(folder, tmp_path):
    made = plan(folder, tmp_path, seeds=[0, 1])
    base = made.runs["zero_shot", "main", 0].evaluations["charades_test"].model.stage
    inits = [
        run.stages["grpo"].init.stage
        for run in made.runs.values()
        if run.experiment == "invert4tvg" and "invert_sft" not in run.stages
    ]
    assert (
        inits
        and all(init == base for init in inits)
        and base == made.runs["zero_shot", "main", 1].evaluations["charades_test"].model.stage
    )


def test_an_edit_in_one_arm_changes_that_arm_only(folder, tmp_path):
    before = stages(plan(folder, tmp_path))
    path = folder / "experiments" / "invert4tvg.yaml"
    path.write_text(
        path.read_text().replace("cosine: {rewards.verbs.match: cosine}", "cosine: {rewards.verbs.weight: 0.5}")
    )
    after = stages(plan(folder, tmp_path))
    assert {key for key in before if before[key] != after[key]} == {("invert4tvg", "cosine", "grpo")}


def test_an_edit_of_the_base_changes_its_descendants(folder, tmp_path):
    before = stages(plan(folder, tmp_path))
    edit(folder / "experiments" / "mini_base.yaml", stages__sft__steps=7)
    after = stages(plan(folder, tmp_path))
    assert all(before[key] != after[key] for key in before)


def test_comments_and_order_change_nothing(folder, tmp_path):
    before = stages(plan(folder, tmp_path))
    path = folder / "experiments" / "time_r1.yaml"
    lines = path.read_text().replace("    beta: 0.04 ", "    beta:   4.0e-2   # moved \n    #").splitlines()
    head = [line for line in lines if line.startswith("paper:")]
    path.write_text("\n".join(["# new comment", *(line for line in lines if not line.startswith("paper:")), *head]))
    assert stages(plan(folder, tmp_path)) == before


def test_a_default_spelled_out_changes_nothing(folder, tmp_path):
    before = stages(plan(folder, tmp_path))
    edit(folder / "experiments" / "time_r1.yaml", stages__grpo__draw="prompt")
    assert stages(plan(folder, tmp_path)) == before


def test_prompts_of_tasks_never_asked_change_nothing(folder, tmp_path):
    before = stages(plan(folder, tmp_path))
    path = folder / "prompts" / "inversion.yaml"
    path.write_text(path.read_text().replace("Fill in", "Please fill in"))
    after = stages(plan(folder, tmp_path))
    assert all(before[key] != after[key] for key in before), "the mini base asks every task"
    at_3b = plan(folder, tmp_path, scale="3b").runs
    assert "complete_verb" not in at_3b["time_r1", "main", 0].stages["grpo"].prompt.texts
    assert "complete_verb" in at_3b["invert4tvg", "main", 0].stages["grpo"].prompt.texts


def test_pointers_change_only_when_their_run_does_and_take_stale_tables_away(folder, tmp_path):
    made = plan(folder, tmp_path)
    made.freeze()
    pointers = sorted((tmp_path / "results" / "mini").glob("*/*/seed-0.json"))
    times = {path: path.stat().st_mtime_ns for path in pointers}
    tables = tmp_path / "results" / "mini" / "tables"
    tables.mkdir()
    (tables / "invert4tvg_3.md").write_text("old")
    (tables / "unknown.md").write_text("old")
    made.freeze()
    assert {path: path.stat().st_mtime_ns for path in pointers} == times and (tables / "invert4tvg_3.md").exists()
    edit(folder / "experiments" / "invert4tvg.yaml", arms__cosine={"rewards.verbs.weight": 0.25})
    plan(folder, tmp_path).freeze()
    changed = {path.parent.name for path in pointers if path.stat().st_mtime_ns != times[path]}
    assert changed == {"cosine"}
    assert not (tables / "invert4tvg_3.md").exists() and (tables / "unknown.md").exists()


def test_a_seed_that_is_no_longer_configured_leaves_no_pointer(folder, tmp_path):
    plan(folder, tmp_path, seeds=[0, 1]).freeze()
    left = plan(folder, tmp_path, experiments=["time_r1"])
    left.freeze()
    assert left.store.pointer("time_r1", "main", 0).exists() and not left.store.pointer("time_r1", "main", 1).exists()
    assert left.store.pointer("invert4tvg", "main", 1).exists(), (
        "an experiment that was not asked for keeps its pointers"
    )


def test_seeds_multiply_arms_and_limit_enters_the_spec(folder, tmp_path):
    one = plan(folder, tmp_path)
    two = plan(folder, tmp_path, seeds=[0, 1])
    assert len(two.runs) == 2 * len(one.runs)
    assert stages(plan(folder, tmp_path, limit=8)) != stages(one)


def test_steps_cut_every_training_but_those_that_state_their_scales(folder, tmp_path):
    made = plan(folder, tmp_path, experiments=["taro"], steps=4)
    kinds = ("sft-", "grpo-", "awbc-")
    trained = {ident: spec.steps for ident, spec in made.specs.items() if ident.startswith(kinds)}
    base = identify(made.runs["taro", "base", 0].evaluations["charades_test"].model.stage)
    assert trained.pop(base) == 300 and set(trained.values()) == {4}
    assert plan(folder, tmp_path, experiments=["taro"], steps=999, scale="mini").specs.keys() == (
        plan(folder, tmp_path, experiments=["taro"]).specs.keys()
    )


def test_every_input_of_a_job_is_the_output_of_another(folder, tmp_path):
    made = plan(folder, tmp_path)
    outputs = set()
    for ident in made.specs:
        root = made.store.root
        outputs |= {str(root / "fetched" / f"{ident}.json"), str(root / "samples" / f"{ident}.jsonl"),
                    *(str(root / "stages" / ident / last) for last in ("model.done", "samples.jsonl"))}  # fmt: skip
        outputs |= {str(root / "frames" / ident / f"{k:02d}-of-04.json") for k in range(4)}
    for ident in made.specs:
        assert set(made.inputs(ident)) <= outputs


@pytest.mark.parametrize(("name", "arm"), [("time_r1", "main"), ("time_r1", "finetune"), ("invert4tvg", "main")])
def test_hashes_are_golden(folder, tmp_path, name, arm):
    """A changed default or a renamed field would retrain everything that anyone ever trained."""
    ident = identify(plan(folder, tmp_path, scale="3b").runs[name, arm, 0].stages["grpo"])
    golden = json.loads((REPO / "tests" / "unit" / "golden_specs.json").read_text())
    assert ident == golden[f"3b/{name}-{arm}/grpo"], (
        "this spec hashes differently; if that is intended, update tests/unit/golden_specs.json and say so in CHANGELOG"
    )


def test_canonical_json_holds_no_default(folder, tmp_path):
    text = json.dumps(canonical(plan(folder, tmp_path).runs["time_r1", "main", 0].stages["grpo"]))
    assert '"top_p"' not in text and '"lora"' not in text and '"learning_rate"' in text


def test_a_new_field_with_a_default_changes_no_hash(folder, tmp_path):
    spec = plan(folder, tmp_path).runs["time_r1", "main", 0].stages["grpo"]

    class More(type(spec)):
        novel: int = 3

    assert digest(More(**{name: getattr(spec, name) for name in type(spec).model_fields})) == digest(spec)


NEW = """
paper: ours
prompt: time_r1
rewards: {format: {weight: 1.0}, tiou: {weight: 1.0}}
stages:
  more: {kind: grpo, init: INIT, data: charades_train}
evaluate: more
benchmarks: [charades_test]
arms:
  cold: {stages.more.init: base}
  theirs: {evaluate: invert4tvg.grpo}
"""


def test_a_new_experiment_adds_exactly_its_own_trainings(folder, tmp_path):
    before = plan(folder, tmp_path)
    (folder / "experiments" / "mine.yaml").write_text(NEW.replace("INIT", "time_r1.grpo"))
    after = plan(folder, tmp_path, experiments=[*ALL, "mine"])
    added = set(after.specs) - set(before.specs)
    trained = {ident for ident in added if ident.startswith(("sft-", "grpo-"))}
    found = stages(after)
    assert trained == {found["mine", "main", "more"], found["mine", "cold", "more"]}
    assert set(before.specs) <= set(after.specs) and stages(before).items() <= found.items()


def test_a_stage_starts_from_and_an_arm_evaluates_another_experiments_stage(folder, tmp_path):
    (folder / "experiments" / "mine.yaml").write_text(NEW.replace("INIT", "time_r1.grpo"))
    made = plan(folder, tmp_path, experiments=["mine"])
    others = plan(folder, tmp_path).runs
    assert made.runs["mine", "main", 0].stages["more"].init.stage == others["time_r1", "main", 0].stages["grpo"]
    theirs = made.runs["mine", "theirs", 0]
    assert theirs.evaluations["charades_test"] == others["invert4tvg", "main", 0].evaluations["charades_test"]
    assert any(ident in made.specs for ident in [identify(others["invert4tvg", "main", 0].stages["grpo"])])


def test_experiments_that_start_from_each_other_are_refused(folder, tmp_path):
    (folder / "experiments" / "one.yaml").write_text(NEW.replace("INIT", "two.more"))
    (folder / "experiments" / "two.yaml").write_text(NEW.replace("INIT", "one.more"))
    with pytest.raises(TvgError, match="start from each other"):
        plan(folder, tmp_path, experiments=["one"])


def test_all_takes_every_file_and_says_what_a_scale_leaves_out(folder, tmp_path):
    made = plan(folder, tmp_path, experiments="all")
    systems = {"invert4tvg", "time_r1", "tar_tvg", "tvg_r1", "taro"}
    assert {name for name, _, _ in made.runs} == {*systems, "mini_base", "zero_shot"}
    assert made.notice == "left out at scale mini: released (only at 3b, 7b)"
    large = plan(folder, tmp_path, experiments="all", scale="3b")
    assert ("released", "taro_3b", 0) in large.runs and ("released", "taro_7b", 0) not in large.runs
    assert large.notice == "left out at scale 3b: mini_base (only at mini); 6 arms of released (only at 7b)"


def test_released_weights_are_evaluated_with_two_prompts_and_nothing_is_trained(folder, tmp_path):
    made = plan(folder, tmp_path, experiments=["released"], scale="7b")
    assert not [ident for ident in made.specs if ident.startswith(("sft-", "grpo-"))]
    own, ours = (made.runs["released", arm, 0].evaluations["charades_test"] for arm in ("taro_7b", "taro_7b_ours"))
    assert own.model == ours.model == HubModel(hub="zhengmh/TaRO-7B", revision="main") and own.prompt != ours.prompt
    base = made.runs["released", "main", 0].evaluations["charades_test"]
    assert base.model == made.scale.base and base.prompt == ours.prompt


def test_a_folder_of_weights_may_stand_where_the_base_model_does(folder, tmp_path):
    edit(folder / "experiments" / "time_r1.yaml", base={"path": "my/weights"})
    made = plan(folder, tmp_path, experiments=["time_r1"])
    assert made.runs["time_r1", "main", 0].stages["grpo"].init == PathModel(path="my/weights")


def test_every_arm_has_a_row_in_the_table_of_its_experiment(folder, tmp_path):
    edit(folder / "experiments" / "time_r1.yaml", arms__g4={"stages.grpo.num_generations": 4})
    made = plan(folder, tmp_path)
    table = made.tables["arms_time_r1_charades_test"]
    arms = [arm for experiment, arm, _ in made.runs if experiment == "time_r1"]
    there = [arm for arm in arms if "charades_test" in made.runs["time_r1", arm, 0].evaluations]
    assert [row.arm for row in table.rows] == there and {"main", "finetune", "g4"} <= set(there) < set(arms)
    assert "arms_time_r1_charades_test" in made.table_names()
    assert made.table_source("arms_time_r1_charades_test") == str(folder / "experiments" / "time_r1.yaml")
    made.freeze()
    assert load(made.store.table("arms_time_r1_charades_test")) == table


def test_single_arms_may_be_asked_for(folder, tmp_path):
    plan(folder, tmp_path, experiments=["time_r1"]).freeze()
    made = plan(folder, tmp_path, experiments=["time_r1-main", "time_r1-finetune", "zero_shot-main"])
    made.freeze()
    assert {run[:2] for run in made.runs} == {("time_r1", "main"), ("time_r1", "finetune"), ("zero_shot", "main")}
    assert [row.arm for row in made.tables["arms_time_r1_charades_test"].rows] == ["main", "finetune"]
    assert "demo" not in made.table_names(), "it needs arms that were not asked for"
    assert made.store.pointer("time_r1", "timezero", 0).exists(), "what was not asked for is left alone"
    with pytest.raises(TvgError, match="no such arm"):
        plan(folder, tmp_path, experiments=["time_r1-finetun"])


def test_a_table_cannot_name_an_arm_that_is_not_there(folder, tmp_path):
    path = folder / "tables" / "demo.yaml"
    path.write_text(path.read_text().replace("arm: finetune", "arm: fintune"))
    with pytest.raises(TvgError, match="a row of an arm that time_r1 does not have") as error:
        plan(folder, tmp_path)
    assert error.value.hint == "did you mean 'finetune'?"


def test_a_data_set_needs_no_role(folder, tmp_path):
    edit(folder / "experiments" / "time_r1.yaml", stages__grpo__data="mini.val", benchmarks=["mini.val"])
    made = plan(folder, tmp_path, experiments=["time_r1"])
    spec = made.runs["time_r1", "main", 0].stages["grpo"]
    assert (spec.data.samples.dataset.name, spec.data.samples.split) == ("mini", "val")
    ident = identify(made.runs["time_r1", "main", 0].evaluations["mini.val"])
    assert re.fullmatch(r"[a-z0-9_]+-[0-9a-f]{12}", ident) and made.spec(ident)
    assert "arms_time_r1_mini_val" in made.tables


def test_a_limit_decodes_only_the_videos_of_its_samples(folder, tmp_path):
    whole, few = plan(folder, tmp_path), plan(folder, tmp_path, limit=8)
    spec = few.runs["time_r1", "main", 0].stages["grpo"].data
    assert (spec.limit, spec.frames.limit, spec.frames.split) == (8, 8, "train")
    assert str(few.store.samples(spec.frames.samples)) in few.inputs(identify(spec.frames))
    assert whole.runs["time_r1", "main", 0].stages["grpo"].data.frames.samples is None


def test_numbers_of_an_older_plan_are_taken_away(folder, tmp_path):
    made = plan(folder, tmp_path)
    made.freeze()
    root = made.store.root
    shown = [root / "tables" / "demo.md", root / "report" / "demo.html", root / "plots" / "demo" / "curves.png"]
    kept = root / "tables" / "arms_zero_shot_charades_test.md"
    for path in (*shown, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    edit(folder / "experiments" / "invert4tvg.yaml", stages__grpo__beta=0.01)
    plan(folder, tmp_path).freeze()
    assert not any(path.exists() for path in shown) and kept.exists()


CHAIN = """
paper: ours
prompt: time_r1
rewards: {format: {weight: 1.0}, tiou: {weight: 1.0}}
stages:
  explore: {kind: grpo, data: charades_train}
  traces: {kind: collect, model: explore, min_reward: 1.5}
  sft: {kind: sft, data: traces}
  hard: {kind: filter, model: sft, data: charades_train, above: 0.0, at_most: 0.7}
  grpo: {kind: grpo, init: sft, data: hard}
evaluate: grpo
benchmarks: [charades_test]
arms:
  easier: {stages.hard.at_most: 0.9}
  more: {stages.traces.min_reward: 1.0}
  one_stage: {evaluate: explore}
  theirs: {stages.grpo.data: chain2.hard}
"""


@pytest.fixture
def chain(folder):
    (folder / "experiments" / "chain.yaml").write_text(CHAIN)
    (folder / "experiments" / "chain2.yaml").write_text(
        CHAIN.replace("  theirs: {stages.grpo.data: chain2.hard}\n", "")
    )
    return folder


def test_stages_that_make_data_are_planned_hashed_and_shared(chain, tmp_path):
    made = plan(chain, tmp_path, experiments=["chain"])
    found = stages(made)
    main = {name: found["chain", "main", name] for name in ("explore", "traces", "sft", "hard", "grpo")}
    assert {name: ident.split("-")[0] for name, ident in main.items()} == {
        "explore": "grpo", "traces": "collect", "sft": "sft", "hard": "filter", "grpo": "grpo",
    }  # fmt: skip
    changed = {name for name in main if found["chain", "easier", name] != main[name]}
    assert changed == {"hard", "grpo"}
    assert {name for name in main if found["chain", "more", name] != main[name]} == {"traces", "sft", "hard", "grpo"}
    assert [key for key in found if key[1] == "one_stage"] == [("chain", "one_stage", "explore")]
    assert found["chain", "theirs", "grpo"] == main["grpo"], "an equal stage of another experiment is the same"


def test_data_stages_read_what_they_need(chain, tmp_path):
    made = plan(chain, tmp_path, experiments=["chain"])
    root, found = made.store.root, stages(made)
    ident = {name: found["chain", "main", name] for name in ("explore", "traces", "sft", "hard", "grpo")}
    shards = {path for path in made.inputs(ident["explore"]) if "/frames/" in path}
    assert str(root / "stages" / ident["explore"] / "model.done") in made.inputs(ident["traces"])
    assert not shards & set(made.inputs(ident["traces"])), "completions are text"
    assert {str(root / "stages" / ident["traces"] / "samples.jsonl"), *shards} <= set(made.inputs(ident["sft"]))
    assert {str(root / "stages" / ident["sft"] / "model.done"), *shards} <= set(made.inputs(ident["hard"]))
    needed = set(made.inputs(ident["grpo"]))
    assert {
        str(root / "stages" / ident["hard"] / "samples.jsonl"),
        str(root / "stages" / ident["sft"] / "model.done"),
    } <= needed
    made.freeze()
    other = plan(chain, tmp_path, experiments=["chain"])
    specs, other.specs = other.specs, {}
    assert all(other.spec(one) == spec for one, spec in specs.items())


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("init: sft", "init: hard", "makes data, not a model"),
        ("data: traces", "data: explore", "makes a model, not data"),
        ("model: explore,", "model: sft,", "start from each other"),
        ("model: explore, min", "min", "either `model`"),
        ("evaluate: grpo", "evaluate: traces", "makes data, not a model"),
        ("above: 0.0", "abov: 0.0", "unknown key"),
    ],
)
def test_data_stages_that_cannot_be(chain, tmp_path, old, new, what):
    path = chain / "experiments" / "chain.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TvgError, match=what):
        plan(chain, tmp_path, experiments=["chain"])
