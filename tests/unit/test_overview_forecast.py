"""`tvg plan`: what is shared and done, what the rest costs, and that every number says where it is from."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.results_folder import World
from tests.unit.test_plan import CHAIN
from tvg import cli
from tvg.overview.cost.counts import Counts
from tvg.overview.cost.figures import TIMED, Reference
from tvg.overview.cost.seconds import NO_MODEL, Costs, units
from tvg.overview.forecast import forecast, totals
from tvg.overview.forecast_text import as_json, as_text
from tvg.overview.selection import Selection
from tvg.plan import Plan
from tvg.sample import write_lines
from tvg.settings import Lora
from tvg.spec import AwbcSpec, GrpoSpec, TrainedModel, nested
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
    assert main.serves == "4 arms share it: 4 of invert4tvg", "main, ground_0.8 and two that evaluate elsewhere"


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
    assert found[identify(grpo(plan, "time_r1", seed=1))].serves == (
        "2 arms share it: time_r1-main, time_r1-everywhere; seed 1"
    )
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


@pytest.mark.parametrize("policy", ["shared", "plain"])
def test_the_reference_is_scaled_and_named(make, policy):
    plan = make("3b")
    spec = grpo(plan)
    costs = Costs(plan.store, plan.scale.runtime.model_copy(update={"policy": policy}), Counts(plan.store))
    one, double = costs.training(spec, 10), costs.training(spec, 20)
    assert one.device == "GPU" and one.low < one.high and double.high == pytest.approx(2 * one.high)
    wider = costs.training(spec.model_copy(update={"prompts_per_step": 2 * spec.prompts_per_step}), 10)
    assert wider.low == pytest.approx(2 * one.low)
    as_measured = spec.model_copy(update={"prompts_per_step": 1, "max_completion_tokens": 256})
    timed = TIMED[policy]
    seconds = timed.generation + timed.scoring + timed.learning
    step = costs.training(as_measured, 1)
    assert step.low == step.high == pytest.approx(seconds, rel=0.02), "3,584 visual tokens, 3,600 were measured"
    without = costs.training(as_measured.model_copy(update={"beta": 0.0}), 1)
    assert step.low - without.low == pytest.approx(timed.scoring, rel=0.02), "no reference, no pass of it"
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


def test_a_mixture_baked_into_the_epoch_takes_its_repeated_samples_along(make):
    from tvg.train import schedule

    plan = make("3b")
    baked = {"draw": "static", "tasks": {"ground": 0.834, "complete_verb": 0.166}}
    spec, steps = grpo(plan).model_copy(update=baked), Counts(plan.store).steps
    assert steps(spec).value == schedule.steps(spec, round(12408 / 0.834)) > steps(grpo(plan)).value
    assert "what each epoch repeats" in steps(spec).source and "repeats" not in steps(grpo(plan)).source
    assert steps(spec.model_copy(update={"steps": 7})).value == 7


def test_rollouts_of_a_training_that_leaves_grounding_are_an_upper_bound(make):
    plan = make("3b")
    only = grpo(plan, arm="tvg_only")
    leaving = only.model_copy(update={"tasks_end": {"describe": 1.0}})
    assert [Counts(plan.store)._rollouts(spec).most for spec in (only, leaving)] == [
        Counts(plan.store).steps(only).most,
        True,
    ]


def test_a_limit_caps_samples_and_videos(make):
    plan = make("3b", limit=64)
    spec = grpo(plan, "time_r1")
    counts = Counts(plan.store)
    assert counts.samples(spec.data).value == 64 and counts.steps(spec).value == 8
    assert counts.videos(spec.data.frames).value == 64


# ---------------------------------------------------------------- choices of data


@pytest.fixture
def chain(make):
    """A plan of explore -> traces -> sft -> hard -> grpo, and its specs."""
    folder = make().folder / "experiments"
    (folder / "chain.yaml").write_text(CHAIN.replace("  theirs: {stages.grpo.data: chain2.hard}\n", ""))

    def load(scale="mini", **dials):
        plan = make(scale, experiments=["chain"], **dials)
        return plan, plan.runs["chain", "main", 0].stages

    return load


def choose(plan, spec, kept, read, answers=0):
    """A finished choice of `kept` among `read`."""
    folder = plan.store.stage(spec)
    plan.store.freeze(spec)
    write_lines(folder / "answers.jsonl", ["{}"] * answers)
    write_lines(folder / "report.json", [json.dumps({"read": read, "kept": kept})])
    write_lines(folder / "samples.jsonl", ["{}"] * kept)


def test_choices_stand_beside_the_trainings_each_once(chain):
    plan, stages = chain()
    found = forecast(plan)
    specs = {ident for ident in plan.specs if ident.startswith(("filter-", "collect-"))}
    assert {one.id for one in found.choices} == specs and len(found.choices) == len(specs) == 5
    assert {one.state for one in found.choices} == {"to choose"}
    jobs = {one.id: one for one in found.choices}
    traces, hard = jobs[identify(stages["traces"])], jobs[identify(stages["hard"])]
    assert traces.serves == "2 arms share it: chain-main, chain-easier" and traces.arms == 2
    assert (traces.reads.value, traces.answers.value) == (60 * 4 * 8, 0)
    samples = Counts(plan.store).samples(stages["explore"].data).value
    assert (hard.reads.value, hard.answers.value) == (samples, samples * 8)
    text = as_text(found)
    assert max(map(len, text.splitlines())) <= 100 and "5 choices of data (0 done)" in " ".join(text.split())
    assert traces.id in text and hard.id in text and "1,920" in text
    assert {one.id for one in forecast(plan, ["chain-one_stage"]).choices} == set()


def test_a_done_choice_needs_nothing_before_it_and_tells_how_many_samples_there_are(chain):
    plan, stages = chain("3b")
    before = {one.id: one for one in forecast(plan, ["chain-main"]).trainings}[identify(stages["sft"])]
    assert before.steps.value == 1551 and before.steps.most and before.estimate.low == 0 < before.estimate.high
    choose(plan, stages["traces"], kept=6400, read=99264)
    found = forecast(plan, ["chain-main"])
    states = {one.id: one.state for one in (*found.trainings, *found.choices)}
    assert states[identify(stages["explore"])] == "not needed" and states[identify(stages["traces"])] == "done"
    after = {one.id: one for one in found.trainings}[identify(stages["sft"])]
    assert after.steps.value == 100 and not after.steps.most and after.estimate.low > 0
    assert "6,400 kept of 99,264" in as_text(found)


def test_count_is_the_most_that_a_choice_keeps(chain):
    plan, stages = chain("3b")
    spec = stages["grpo"]
    few = spec.data.model_copy(update={"made_by": spec.data.made_by.model_copy(update={"count": 80})})
    counts = Counts(plan.store)
    assert counts.samples(few).value == 80 and counts.samples(few).most
    assert counts.samples(spec.data).value == 12408 and counts.steps(spec).most


def test_a_choice_behind_finished_evaluations_is_not_needed(chain):
    plan, _ = chain()
    for run in plan.runs.values():
        for spec in run.evaluations.values():
            World(plan.store.root).score(spec)
    assert {one.state for one in forecast(plan).choices} == {"not needed"}
    assert totals(forecast(plan))["seconds_unknown"] == 0


def test_a_killed_filter_goes_on_from_its_answers(chain):
    plan, stages = chain("3b")
    hard = stages["hard"]
    whole = {one.id: one for one in forecast(plan).choices}[identify(hard)]
    write_lines(plan.store.stage(hard) / "answers.jsonl", ["{}"] * 3102)
    begun = {one.id: one for one in forecast(plan).choices}[identify(hard)]
    assert (begun.state, begun.answered) == ("half done", 8 * 3102)
    assert begun.estimate.high == pytest.approx(whole.estimate.high * 0.75)
    assert "24,816 of ≤ 99,264" in as_text(forecast(plan))


def test_what_a_choice_costs(chain):
    plan, stages = chain("3b")
    costs = Costs(plan.store, plan.scale.runtime.model_copy(update={"policy": "plain"}), Counts(plan.store))
    assert costs.choice(stages["traces"], 0).high == 0 and "seconds" in costs.choice(stages["traces"], 0).source
    hard = stages["hard"].model_copy(update={"max_completion_tokens": 256})
    answer = costs.choice(hard, Reference.rollouts)
    assert answer.low == answer.high == pytest.approx(TIMED["plain"].generation, rel=0.01)
    evaluation = plan.runs["chain", "main", 0].evaluations["charades_test"]
    settings = evaluation.settings.model_copy(update={"max_completion_tokens": 256})
    asked = costs.evaluation(evaluation.model_copy(update={"settings": settings}), Reference.rollouts)
    assert answer.high == pytest.approx(asked.high), "an answer costs what an evaluation's does"
    mere = hard.model_copy(update={"above": None, "at_most": None, "count": 5})
    assert costs.choice(mere, 0).source == NO_MODEL and Counts(plan.store).answers(mere).value == 0


def test_a_filter_that_snakemake_timed_speaks_for_the_others(chain):
    plan, stages = chain()
    choose(plan, stages["hard"], kept=40, read=50, answers=50)
    path = plan.store.root / "benchmarks" / "select" / f"{identify(stages['hard'])}.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("s\th:m:s\tmax_rss\n80.0\t0:01:20\t500\n")
    other = plan.runs["chain", "easier", 0].stages["hard"]
    found = {one.id: one for one in forecast(plan).choices}[identify(other)]
    assert found.estimate.high == pytest.approx(found.answers.value * 80 / (50 * 8))
    assert "measured in this store" in found.estimate.source and "per answer" in found.estimate.source


def test_cloning_has_no_measured_speed(make):
    plan = make("3b")
    spec = grpo(plan)
    costs = Costs(plan.store, plan.scale.runtime, Counts(plan.store))
    shared = {name: getattr(spec, name) for name in AwbcSpec.model_fields if name in type(spec).model_fields}
    cloning = AwbcSpec(**shared | {"kind": "awbc"})
    found, alike = costs.training(cloning, 10), costs.training(spec.model_copy(update={"beta": 0.0}), 10)
    assert (found.low, found.high) == (alike.low, alike.high)
    assert found.source.startswith("no stage of kind awbc was ever measured; as a grpo stage without a reference: ")
    assert units(cloning) == units(spec) and Counts(plan.store).steps(cloning) == Counts(plan.store).steps(spec)


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
    Path("config/config.yaml").write_text("experiments: [time_r1-main]\n")
    assert cli.main(["plan", "--json"]) == cli.main(["plan", "time_r1-finetune", "--json"]) == 0
    alone, named = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(alone["evaluations"]) == len(named["evaluations"]) == 1 and alone["evaluations"] != named["evaluations"]
    assert not Path("results").exists(), "asking writes nothing"


def test_an_arm_that_is_not_planned_is_an_error_with_a_hint(make, caplog):
    assert cli.main(["plan", "released"]) == 1 and "not planned at scale mini" in caplog.text
    assert cli.main(["plan", "time_r1-finetun"]) == 1 and "did you mean 'finetune'?" in caplog.text
