"""`tvg plan`: what is shared and done, what the rest costs, and that every number says where it is from."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.results_folder import World
from tvg import cli
from tvg.overview.cost.counts import Counts
from tvg.overview.cost.figures import Reference
from tvg.overview.cost.seconds import Costs, units
from tvg.overview.forecast import forecast, totals
from tvg.overview.forecast_text import as_json, as_text
from tvg.overview.selection import Selection
from tvg.plan import Plan
from tvg.spec import GrpoSpec, Lora, TrainedModel, nested
from tvg.store import identify

EXPERIMENTS = ["zero_shot", "time_r1", "invert4tvg"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """make(scale, **dials) -> a plan of the shipped experiments, in a working folder of its own."""
    shutil.copytree(REPO / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return lambda scale="mini", **dials: Plan.load({"scale": scale, "experiments": EXPERIMENTS, **dials})


def grpo(plan, experiment="invert4tvg", arm="main", seed=0):
    return plan.runs[experiment, arm, seed].stages["grpo"]


def base(plan):
    return grpo(plan, "time_r1").init.stage


def by_id(found):
    return {one.id: one for one in (*found.trainings, *found.evaluations)}


# ---------------------------------------------------------------- what is there, what is shared


def test_an_empty_store_trains_everything_once(make):
    plan = make()
    found = forecast(plan)
    stages = {ident for ident in plan.specs if ident.startswith(("sft-", "grpo-"))}
    assert {one.id for one in found.trainings} == stages and len(found.trainings) == len(stages)
    assert {one.state for one in found.trainings} == {"to train"}
    assert totals(found)["trainings_shared"] == sum(one.arms > 1 for one in found.trainings) > 0
    assert found.trainings[0].id == identify(base(plan)), "a stage stands after what it starts from"
    main = by_id(found)[identify(grpo(plan))]
    assert main.serves.startswith(f"{main.arms} arms share it: invert4tvg-main, invert4tvg-ground_0.8")


def test_states_of_trainings(make):
    plan = make()
    world = World(plan.store.root)
    done, half, running, failed, fresh = (
        base(plan), grpo(plan), grpo(plan, arm="vd"), grpo(plan, arm="ar"), grpo(plan, arm="vc")
    )  # fmt: skip
    world.train(done, steps=300)
    (world.train(half, steps=33, code=143) / "checkpoints" / "checkpoint-30").mkdir(parents=True)
    world.train(running, steps=12, code=None)
    (world.train(failed, steps=25, code=1) / "checkpoints" / "checkpoint-20").mkdir(parents=True)
    world.train(fresh, steps=4, code=143)  # stopped before its first checkpoint
    found = by_id(forecast(plan))
    jobs = [found[identify(spec)] for spec in (done, half, running, failed, fresh)]
    assert [(job.state, job.step) for job in jobs] == [
        ("done", 300),
        ("half done", 30),
        ("running", 12),
        ("failed", 20),
        ("to train", 0),
    ]


def test_what_remains_of_a_half_done_training_is_counted(make):
    plan = make()
    folder = World(plan.store.root).train(grpo(plan), steps=30, code=143)  # 3 s a step
    (folder / "checkpoints" / "checkpoint-30").mkdir(parents=True)
    estimate = by_id(forecast(plan))[identify(grpo(plan))].estimate
    assert estimate.low == estimate.high == pytest.approx(30 * 3.0, abs=0.1)


def test_a_finished_evaluation_needs_its_weights_no_more(make):
    plan = make(experiments=["time_r1"])
    world = World(plan.store.root)
    for run in plan.runs.values():
        for spec in run.evaluations.values():
            world.score(spec)
    found = forecast(plan)
    assert {one.state for one in found.trainings} == {"not needed"}
    assert not found.downloads and not found.kept and found.checkpoints is None
    assert "nothing to download and nothing to keep" in " ".join(as_text(found).split())


def test_a_stage_behind_a_done_one_is_not_needed(make):
    plan = make(experiments=["time_r1"])
    World(plan.store.root).train(grpo(plan, "time_r1"))
    states = {one.kind: one.state for one in forecast(plan, ["time_r1-main"]).trainings}
    assert states == {"sft": "not needed", "grpo": "done"}


def test_named_arms_only_but_whom_they_share_with_is_said(make):
    plan = make()
    found = forecast(plan, ["invert4tvg-main"])
    assert {one.kind for one in found.trainings} == {"sft", "grpo"} and len(found.evaluations) == 1
    assert by_id(found)[identify(grpo(plan))].arms > 1
    whole, runs = forecast(plan, ["time_r1"]), [run for run in plan.runs.values() if run.experiment == "time_r1"]
    arms = {identify(spec) for run in runs for spec in run.evaluations.values()}
    assert {one.id for one in whole.evaluations} == arms, "an experiment's name is all its arms"


def test_seeds_are_told_apart(make):
    plan = make(seeds=[0, 1])
    found = by_id(forecast(plan, ["time_r1-main"]))
    assert found[identify(grpo(plan, "time_r1", seed=1))].serves == "time_r1-main; seed 1"
    assert "seed" not in found[identify(base(plan))].serves, "the base is one for both"


def test_nested_specs_come_innermost_first(make):
    plan = make()
    order = [identify(spec) for spec in nested(grpo(plan)) if hasattr(spec, "prompt")]
    assert order == [identify(base(plan)), identify(grpo(plan))]
    assert len(Selection(plan).evaluations) == len(plan.metrics())


# ---------------------------------------------------------------- what it costs


def test_small_models_are_unknown_until_one_has_run(make):
    found = forecast(make())
    assert all(one.estimate.low is None for one in found.to_train())
    assert all("unknown until one has run here" in one.estimate.source for one in found.to_train())
    assert totals(found)["seconds"] == {"GPU": None, "CPU": None}


def test_the_reference_is_scaled_and_named(make):
    plan = make("3b")
    spec = grpo(plan)
    costs = Costs(plan.store, plan.scale.runtime, Counts(plan.store))
    one, double = costs.training(spec, 10), costs.training(spec, 20)
    assert one.device == "GPU" and one.low < one.high and double.high == pytest.approx(2 * one.high)
    wider = costs.training(spec.model_copy(update={"prompts_per_step": 2 * spec.prompts_per_step}), 10)
    assert wider.low == pytest.approx(2 * one.low)
    as_measured = spec.model_copy(update={"prompts_per_step": 1, "max_completion_tokens": 256})
    seconds = Reference.generation + Reference.scoring + Reference.learning
    step = costs.training(as_measured, 1)
    assert step.low == step.high == pytest.approx(seconds, rel=0.02), "3,584 visual tokens, 3,600 were measured"
    without = costs.training(as_measured.model_copy(update={"beta": 0.0}), 1)
    assert step.low - without.low == pytest.approx(Reference.scoring, rel=0.02), "no reference, no pass of it"
    text = as_text(forecast(plan))
    assert "one NVIDIA H200" in text and "scaled from the reference below" in " ".join(text.split())


def test_larger_models_take_longer_by_their_parameters(make):
    small, large = (grpo(make(scale), "time_r1") for scale in ("3b", "7b"))
    ends = []
    for scale, spec in (("3b", small), ("7b", large)):
        plan = make(scale)
        ends.append(Costs(plan.store, plan.scale.runtime, Counts(plan.store)).training(spec, 1).low)
    assert ends[1] / ends[0] == pytest.approx(8_292_166_656 / 3_754_622_976)


def test_a_measured_stage_wins_over_the_reference_for_its_like(make):
    plan = make("3b")
    World(plan.store.root).train(grpo(plan, "time_r1"), steps=20, code=None)  # 3 s a step
    found = by_id(forecast(plan))
    other = found[identify(grpo(plan))]
    rollouts = units(grpo(plan)) / units(grpo(plan, "time_r1"))
    assert other.estimate.low == other.estimate.high == pytest.approx(3.0 * rollouts * other.steps.value, rel=1e-3)
    assert "measured in this store" in other.estimate.source and "reference" not in other.estimate.source


def test_another_kind_or_model_is_not_its_like(make):
    plan = make("3b")
    spec = grpo(plan)
    adapters = spec.model_copy(update={"lora": Lora(r=4)})
    elsewhere = spec.model_copy(update={"init": spec.init.model_copy(update={"hub": "Qwen/Qwen2.5-VL-7B-Instruct"})})
    costs = Costs(plan.store, plan.scale.runtime, Counts(plan.store))
    World(plan.store.root).train(spec, steps=20)
    for other in (adapters, elsewhere):
        assert "reference" in costs.training(other, 1).source
    started = spec.model_copy(update={"init": TrainedModel(stage=spec)})
    assert "measured" in costs.training(started, 1).source, "the same model, some steps later"


def test_an_evaluation_that_snakemake_timed_speaks_for_the_others(make):
    plan = make()
    World(plan.store.root).train(base(plan), steps=300)
    (spec,) = plan.runs["zero_shot", "main", 0].evaluations.values()
    World(plan.store.root).score(spec, rows=120)
    plan.store.freeze(spec)
    path = plan.store.root / "benchmarks" / "evaluate" / f"{identify(spec)}.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("s\th:m:s\tmax_rss\n60.0\t0:01:00\t500\n")
    found = [one for one in forecast(plan).to_evaluate() if one.questions.value == 480]
    assert {round(one.estimate.high, 3) for one in found} == {480 * 0.5}
    assert all("measured in this store" in one.estimate.source for one in found)


def test_every_number_says_where_it_is_from(make):
    for scale in ("mini", "3b", "7b", "rehearsal"):
        found = forecast(make(scale))
        items = [*found.downloads, *found.kept, found.checkpoints]
        estimates = [one.estimate for one in (*found.trainings, *found.evaluations)]
        counts = [one.steps for one in found.trainings] + [one.questions for one in found.evaluations]
        assert all(one.source.strip() for one in (*items, *estimates, *counts))
        told = " ".join(as_text(found).split())
        for one in (*items, *counts):
            assert " ".join(one.source.split()) in told


def test_steps_are_those_of_the_training_itself(make):
    from tvg.train import schedule

    plan, counts = make("3b"), Counts(make("3b").store)
    spec = grpo(plan)
    assert isinstance(spec, GrpoSpec) and counts.steps(spec).value == schedule.steps(spec, 12408) == 6204
    small = make()
    assert Counts(small.store).steps(base(small)).value == schedule.steps(base(small), 10**6) == 300
    epochs = base(small).model_copy(update={"steps": None, "epochs": 2.5})
    samples = counts.samples(epochs.data).value
    assert counts.steps(epochs).value == schedule.steps(epochs, samples)


def test_a_limit_caps_samples_and_videos(make):
    plan = make("3b", limit=64)
    spec = grpo(plan, "time_r1")
    counts = Counts(plan.store)
    assert counts.samples(spec.data).value == 64 and counts.steps(spec).value == 8
    assert counts.videos(spec.data.frames).value == 64


# ---------------------------------------------------------------- on a terminal


@pytest.mark.parametrize("scale", ["mini", "3b", "7b", "rehearsal"])
def test_it_fits_a_terminal(make, scale):
    text = as_text(forecast(make(scale)))
    assert max(map(len, text.splitlines())) <= 100
    assert "Where each estimate comes from:" in text
    assert "nan" not in text and "None" not in text


def test_json_holds_the_same(make):
    found = forecast(make("3b"))
    content = json.loads(json.dumps(as_json(found)))
    assert content["totals"]["trainings"] == len(content["trainings"]) == len(found.trainings)
    assert content["totals"]["choices"] == len(content["choices"]) == len(found.choices)
    assert content["totals"]["download"] == sum(item["size"] for item in content["downloads"])
    assert content["sources"] and content["trainings"][0]["estimate"]["source"]


def test_the_verb_plans_experiments_that_are_not_configured(make, capsys):
    Path("config/config.yaml").write_text("experiments: [zero_shot]\n")
    assert cli.main(["plan", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trainings"]) == 1
    assert cli.main(["plan", "time_r1-main", "--json"]) == 0
    kinds = [one["kind"] for one in json.loads(capsys.readouterr().out)["trainings"]]
    assert kinds == ["sft", "grpo"]
    assert not Path("results").exists(), "asking writes nothing"


def test_an_arm_that_is_not_planned_is_an_error_with_a_hint(make, caplog):
    assert cli.main(["plan", "released"]) == 1 and "not planned at scale mini" in caplog.text
    assert cli.main(["plan", "time_r1-finetun"]) == 1 and "did you mean 'finetune'?" in caplog.text
