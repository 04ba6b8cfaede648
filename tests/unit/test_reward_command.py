"""`tvg reward`: the vectors, which stage and which rewards, groups."""

import pytest

from tests.commands import answers, completion, rollout, tvg, vectors, with_experiment


@pytest.mark.parametrize(("experiment", "reward", "field"), [("time_r1", "timed_iou", "tiou_clamped"),
                                                             ("time_r1-finetune", "tiou", "iou")])  # fmt: skip
def test_reward_on_the_overlap_vectors(experiment, reward, field):
    cases = vectors("overlap")["cases"]
    rows = [rollout("{} to {}".format(*case["p"]), segment=case["g"], duration=case["t"]) for case in cases]
    for row, given_, case in zip(answers("reward", experiment, rows=rows), rows, cases, strict=True):
        assert row["rewards"] == {"format": 1.0, reward: pytest.approx(case[field], abs=1e-6)}
        assert row["reward"] == pytest.approx(1 + case[field], abs=1e-6)
        assert given_.items() <= row.items() and "advantage" not in row


ANY = """
paper: ours
prompt: time_r1
rewards: {format: {weight: 1.0}, verbs: {weight: 1.0, describe: any}}
stages: {grpo: {kind: grpo, data: charades_train}}
evaluate: grpo
benchmarks: [charades_test]
"""


@pytest.mark.parametrize(("rule", "task", "experiment"), [
    ("VC", "complete_verb", "invert4tvg"), ("AR", "recognise_action", "invert4tvg"),
    ("VD_all", "describe", "invert4tvg"), ("VD_any", "describe", "any"),
])  # fmt: skip
def test_reward_on_the_verb_vectors(rule, task, experiment, tmp_path):
    cases = vectors("verb_sets")["rewards"][rule]["cases"]
    rows = [rollout(", ".join(case["pred"]), task=task, verbs=case["gt"]) for case in cases]
    out = answers("reward", experiment, rows=rows, config=with_experiment(tmp_path, "any", ANY))
    assert [row["rewards"]["verbs"] for row in out] == [case["reward"] for case in cases]
    assert [row["reward"] for row in out] == [1 + case["reward"] for case in cases]


GRPO = """
paper: ours
prompt: time_r1
rewards: {format: {weight: 2.0}, tiou: {weight: 2.0}}
stages: {grpo: {kind: grpo, data: charades_train}}
evaluate: grpo
benchmarks: [charades_test]
arms: {centred: {stages.grpo.scale_rewards: none}, over_all: {stages.grpo.scale_rewards: batch}}
"""


@pytest.mark.parametrize(
    ("arm", "case"), [("", "sample_eps1e-4"), ("-centred", "no_std"), ("-over_all", "sample_eps1e-4")]
)
def test_advantages_on_the_grpo_vectors(arm, case, tmp_path):
    """Rewards 2, 3, 2.5, 3.5 by overlaps of 0, 0.5, 0.25 and 0.75, beside a row of no group and a group of one."""
    case = next(one for one in vectors("grpo")["cases"] if one["id"] == case)
    rows = [rollout(f"0 to {end}", segment=[0, 20], group="g") for end in (0, 10, 5, 15)]
    rows.insert(1, rollout("0 to 20", segment=[0, 20]))
    out = answers("reward", f"own{arm}", rows=rows, config=with_experiment(tmp_path, "own", GRPO))
    grouped = [row for row in out if "group" in row]
    assert "advantage" not in out[1]
    assert [row["reward"] for row in grouped] == pytest.approx(case["rewards"])
    assert [row["advantage"] for row in grouped] == pytest.approx(case["advantages"], abs=1e-6)


def test_equal_rewards_and_a_group_of_one_have_no_advantage():
    out = answers(
        "reward", "time_r1", rows=[rollout("3 to 8", group=k % 3) for k in range(7)] + [rollout(group="alone")]
    )
    assert [row["advantage"] for row in out] == [0.0] * 8


def test_a_reward_that_reads_nothing_of_the_task_is_null_and_none_is_left_out():
    """The stage of `tvg_only` never sees an inversion task, but its `rewards:` name the verbs all the same."""
    rows = [rollout(), rollout("opens", task="complete_verb"), rollout("a person", task="caption")]
    for experiment in ("invert4tvg", "invert4tvg-tvg_only"):
        out = answers("reward", experiment, rows=rows)
        assert [row["rewards"] for row in out] == [
            {"format": 1.0, "tiou": 1.0, "verbs": None},
            {"format": 1.0, "tiou": None, "verbs": 1.0},
            {"format": 1.0, "tiou": None, "verbs": None},
        ]


def test_where_nothing_applies_reward_is_null_and_advantage_zero(tmp_path):
    text = ANY.replace("format: {weight: 1.0}, ", "tiou: {weight: 1.0}, ")
    rows = [rollout("3 to 9", group=1), rollout("x", task="caption", group=1), rollout("3 to 6", group=1)]
    out = answers("reward", "own", rows=rows, config=with_experiment(tmp_path, "own", text))
    assert out[1]["rewards"] == {"tiou": None, "verbs": None} and out[1]["reward"] is None
    assert [row["advantage"] for row in out] == pytest.approx([0.7069, 0.0, -0.7069], abs=1e-4)


def test_absent_verbs_are_extracted_as_the_sampler_does_and_none_is_a_truth():
    query = {"query": "person begins to eat food."}
    rows = [
        rollout("eats", task="complete_verb", **query),
        rollout("begins to eat", task="complete_verb", **query),
        rollout("eats", task="complete_verb", verbs=["begin", "eat"], **query),
        rollout("eats", task="complete_verb", verbs=[], **query),
        rollout("", task="complete_verb", query="a red chair"),
    ]
    out = answers("reward", "invert4tvg", rows=rows)
    assert [row["rewards"]["verbs"] for row in out] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert "verbs" not in out[0] and out[3]["verbs"] == []


@pytest.mark.parametrize("word", ["Drink", "drinks.", "Drinking", "**drink**", '"drank"', "drink!", "drink\n"])
def test_a_one_word_action_is_a_verb_whatever_a_tagger_calls_it(word):
    [row] = answers("reward", "invert4tvg", rows=[rollout(word, task="recognise_action", query="person drinks water.")])
    assert row["rewards"]["verbs"] == 1.0


@pytest.mark.parametrize("truth", [[3, 900], [-4, 9], [5, 5], [9, 3], [400, 500]])
@pytest.mark.parametrize("body", ["9 to 3", "3 to 900", "-3.0 to 9.0", "5 to 5", "unsure"])
def test_odd_truths_and_answers_are_legal(truth, body):
    for experiment, name in (("time_r1", "timed_iou"), ("time_r1-finetune", "tiou")):
        [row] = answers("reward", experiment, rows=[rollout(body, segment=truth)])
        assert 0 <= row["rewards"][name] <= 1


def test_the_truth_is_not_clipped():
    [row] = answers("reward", "time_r1-finetune", rows=[rollout("20 to 30", segment=[20, 40])])
    assert row["rewards"]["tiou"] == 0.5


def test_several_segments_the_best_counts():
    row = {key: value for key, value in rollout().items() if key != "segment"}
    [out] = answers("reward", "time_r1", rows=[row | {"segments": [[20, 30], [3, 9]]}])
    assert out["reward"] == 2.0
    code, _ = tvg("reward", "time_r1", rows=[rollout(segments=[[20, 30]])])
    assert code == 1


def test_task_is_ground_where_absent_and_the_rest_is_passed_on():
    given_ = {
        "completion": completion("3 to 9"),
        "segment": [3, 9],
        "duration": 30,
        "logprob_drop": [0.5],
        "x": {"é": None},
    }
    [row] = answers("reward", "time_r1", rows=[given_])
    assert row == given_ | {"rewards": {"format": 1.0, "timed_iou": 1.0}, "reward": 2.0}


def test_scales_do_not_matter_for_overlaps():
    """At 7b and 3b neither weights nor data are needed, nor spaCy for rows of grounding."""
    for scale in ("mini", "3b"):
        [row] = answers("reward", "invert4tvg", "--config", f"scale={scale}", rows=[rollout()])
        assert row["rewards"] == {"format": 1.0, "tiou": 1.0, "verbs": None}


STAGES = """
paper: ours
prompt: time_r1
scales: [7b]
rewards: {format: {weight: 1.0}}
stages:
  hard: {kind: filter, model: base, data: no_such_role, num_generations: 4}
  first: {kind: grpo, data: no_such_role, rewards: {tiou: {weight: 1.0}}}
  cold: {kind: sft, init: first, data: charades_train}
  last: {kind: grpo, init: cold, data: charades_train, prompt: time_r1_no_think}
  after: {kind: sft, init: last, data: charades_train}
evaluate: after
benchmarks: [no_such_benchmark]
arms:
  cold: {evaluate: cold}
  base: {evaluate: base}
  filtered: {evaluate: hard}
  elsewhere: {stages.cold.init: time_r1.grpo, evaluate: cold}
  round: {stages.first.kind: sft, stages.first.init: cold, stages.first.rewards: null, evaluate: cold}
"""


def test_the_stage_is_the_nearest_with_rewards(tmp_path):
    """...and it needs no scale that runs the experiment, no role and no benchmark."""
    folder = with_experiment(tmp_path, "own", STAGES)
    named = {
        ("own",): ["format"],
        ("own-cold",): ["tiou"],
        ("own-elsewhere",): ["format", "timed_iou"],
        ("own", "--stage", "first"): ["tiou"],
        ("own-base", "--stage", "last"): ["format"],
    }
    for argv, names in named.items():
        [row] = answers("reward", *argv, rows=[rollout()], config=folder)
        assert list(row["rewards"]) == names, argv
    [row] = answers("reward", "own", rows=[rollout() | {"completion": "<answer>3 to 9</answer>"}], config=folder)
    assert row["rewards"] == {"format": 1.0}  # the contract of the stage's own prompt, which asks for no reasoning


COLLECTED = """
paper: ours
prompt: time_r1
rewards: {format: {weight: 1.0}}
stages:
  explore: {kind: grpo, data: no_such_role, rewards: {tiou: {weight: 1.0}}}
  traces: {kind: collect, model: explore, min_reward: 0.5}
  easy: {kind: filter, model: base, data: traces, above: 0.1}
  cold: {kind: sft, data: traces}
  colder: {kind: sft, init: cold, data: no_such_role}
  warm: {kind: awbc, data: no_such_role, rewards: {soft_iou: {weight: 1.0}}}
  given: {kind: collect, data: no_such_role}
evaluate: cold
benchmarks: [no_such_benchmark]
arms:
  after: {evaluate: colder}
  easy: {stages.cold.data: easy}
  both: {stages.cold.init: warm}
  warm: {evaluate: warm}
  theirs: {stages.cold.data: other.traces}
  brought: {stages.cold.data: given}
"""


def test_completions_lead_to_the_stage_that_rewarded_them(tmp_path, caplog):
    folder = with_experiment(tmp_path, "own", COLLECTED)
    other = COLLECTED.replace("{tiou: {weight: 1.0}}", "{soft_iou: {weight: 1.0}}")
    (tmp_path / "config" / "experiments" / "other.yaml").write_text(other)
    named = {"": "tiou", "-after": "tiou", "-easy": "tiou", "-both": "tiou", "-warm": "soft_iou", "-theirs": "soft_iou"}
    for arm, name in named.items():
        [row] = answers("reward", f"own{arm}", rows=[rollout()], config=folder)
        assert list(row["rewards"]) == [name], arm
    assert (
        tvg("reward", "own-brought", rows=[rollout()], config=folder)[0] == 1 and "no stage with rewards" in caplog.text
    )


@pytest.mark.parametrize(("argv", "what", "hint"), [
    (["zero_shot"], "no stage with rewards", "trains with rewards"),
    (["own-base"], "no stage with rewards", "--stage first"),
    (["own-round"], "no stage with rewards", "--stage last"),
    (["own", "--stage", "cold"], "no such stage with rewards", "--stage first"),
    (["own", "--stage", "hard"], "no such stage with rewards", "--stage first"),
    (["own-filtered"], "no stage with rewards", "--stage first"),
    (["own", "--stage", "lats"], "no such stage with rewards", "--stage first"),
    (["own-basis"], "no such arm", "did you mean 'base'"),
    (["time_r2"], "no such experiment", "did you mean 'time_r1'"),
])  # fmt: skip
def test_no_stage_with_rewards_is_an_error_in_five_parts(argv, what, hint, tmp_path, caplog):
    code, out = tvg("reward", *argv, rows=[rollout()], config=with_experiment(tmp_path, "own", STAGES))
    assert code == 1 and out == []
    assert what in caplog.text and hint in caplog.text and "expected:" in caplog.text
