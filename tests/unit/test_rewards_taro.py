"""TaRO: timed IoU on the clamped truth and the temporal reward; the vectors, groups, and what is not paid."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import GROUND, answers, tvg, vectors, with_experiment
from tests.conftest import REPO
from tests.unit.golden import check_golden
from tvg.config import read_prompt
from tvg.parse import FORMATS, PARSERS, strict_answer
from tvg.rewards import VERSIONS, Rollout, score, weighted_sum
from tvg.rewards.temporal import group_drops
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import AnswerContract, RewardSettings

VECTORS = vectors("taro")
GROUP = VECTORS["group_bonus"]
CONTRACT = AnswerContract(format="fmt_taro", reward="ans_taro", legacy="last2")
OVERLAP = RewardSettings(weight=1, clamp=False, clamp_truth=True)


def weights(**options):
    return {
        "format": RewardSettings(weight=1),
        "timed_iou": OVERLAP,
        "temporal": RewardSettings(weight=0.3, **options),
    }


def response(start, end, right_form=True):
    text = f"<think>I look for it.</think>\n<answer>\n{start}s to {end}s\n</answer>"
    return text if right_form else f"{text} Done."


def rollout(case):
    sample = Sample(id=case["id"], video="v.mp4", duration=case["t"], query="q", segments=(Segment(*case["g"]),))
    return Rollout(response(*case["p"], right_form=case["fmt"]), sample, case["d"], case["d_mean"])


def temporal(drop, group_drop=None, answer=(3, 9), truths=((3, 9),), duration=30.0, task="ground", **options):
    sample = Sample(id="s", video="v.mp4", duration=duration, query="q", task=task, segments=tuple(
        Segment(*truth) for truth in truths
    ))  # fmt: skip
    settings = {"temporal": RewardSettings(weight=0.3, **options)}
    return score(settings, Rollout(response(*answer), sample, drop, group_drop), CONTRACT)["temporal"]


# ---------------------------------------------------------------- the vectors


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_vectors(case):
    for options, field in (({}, "score_ge"), ({"strict_gate": False}, "score_ge"), ({"strict_gate": True}, "score_gt")):
        found = score(weights(**options), rollout(case), CONTRACT)
        assert found["format"] == case["fmt"] and found["timed_iou"] == pytest.approx(case["tiou"], abs=1e-6)
        assert weighted_sum(found, weights()) == pytest.approx(case[field], abs=1e-6)
    assert score({"temporal": RewardSettings(weight=1, gate=0.0)}, rollout(case), CONTRACT)["temporal"] == (
        case["d"] > case["d_mean"]
    )


def test_the_group_of_the_vectors():
    """The fifth drop is the group's mean in exact arithmetic, whatever floats make of it."""
    means = group_drops(GROUP["d"], [0] * 8)
    assert means == pytest.approx([GROUP["d_mean"]] * 8)
    for mean in (means[0], sum(GROUP["d"]) / 8, 0.04 - 1e-16):
        assert [temporal(drop, mean) for drop in GROUP["d"]] == GROUP["bonus"]


OWN = """
paper: ours
prompt: taro
rewards: {format: {weight: 1.0}, timed_iou: {weight: 1.0, clamp: false, clamp_truth: true}, temporal: {weight: 0.3}}
stages: {grpo: {kind: grpo, data: charades_train}}
evaluate: grpo
benchmarks: [charades_test]
arms:
  strict: {rewards.temporal.strict_gate: true}
  no_temporal: {rewards.temporal: null}
"""


@pytest.fixture
def folder(tmp_path):
    return with_experiment(tmp_path, "own", OWN)


def row(drop, group="g", answer=(3, 9), **more):
    given_ = {} if drop is None else {"logprob_drop": drop}
    return GROUND | {"completion": response(*answer), "group": group} | given_ | more


def bonuses(rows, folder, experiment="own"):
    return [one["rewards"]["temporal"] for one in answers("reward", experiment, rows=rows, config=folder)]


@pytest.mark.parametrize(("arm", "field"), [("own", "score_ge"), ("own-strict", "score_gt")])
def test_vectors_on_the_command_line(arm, field, folder):
    """Beside each case a row of the same group, whose drop makes the mean the case's."""
    rows = []
    for case in VECTORS["cases"]:
        one = {"segment": case["g"], "duration": case["t"]}
        text, other = response(*case["p"], right_form=case["fmt"]), 2 * case["d_mean"] - case["d"]
        rows += [row(case["d"], case["id"], completion=text, **one), row(other, case["id"], (0.1, 0.2), **one)]
    out = answers("reward", arm, rows=rows, config=folder)
    assert [one["reward"] for one in out[::2]] == pytest.approx([case[field] for case in VECTORS["cases"]], abs=1e-6)
    assert out[3]["advantage"] == pytest.approx(-out[2]["advantage"]) and out[2]["advantage"] > 0


def test_the_group_on_the_command_line(folder):
    rows = [row(drop, index=index) for index, drop in enumerate(GROUP["d"])]
    rows += [row(drop, "high", index=index) for index, drop in enumerate((9.0, 8.0), start=8)]
    expected = [*GROUP["bonus"], 1, 0]
    assert bonuses(rows, folder) == expected
    random.Random(0).shuffle(rows)
    assert bonuses(rows, folder) == [expected[one["index"]] for one in rows]


# ---------------------------------------------------------------- groups


def test_rows_without_a_probe_are_null_and_not_in_the_mean(folder):
    rows = [row(0.5), row(None), row(0.1), row(None, logprob_drop=None), row(0.4)]
    assert bonuses(rows, folder) == [1.0, None, 0.0, None, 1.0]
    [one] = answers("reward", "own", rows=[row(None)], config=folder)
    assert one["reward"] == pytest.approx(2.0)


def test_a_row_alone_is_never_above_its_own_mean(folder):
    without = {key: value for key, value in row(5.0).items() if key != "group"}
    assert bonuses([without, row(5.0, "one"), without | {"logprob_drop": -1}], folder) == [0.0, 0.0, 0.0]
    assert temporal(5.0) == 0.0


def test_a_broken_row_is_not_in_the_mean(folder):
    code, out = tvg("reward", "own", rows=[row(0.2), row("0.9"), row(0.1)], config=folder)
    assert code == 1 and "logprob_drop" in out[1]["error"]
    assert [out[i]["rewards"]["temporal"] for i in (0, 2)] == [1.0, 0.0]


def test_the_drop_is_nobodys_business_where_nothing_reads_it(folder):
    [one] = answers("reward", "own-no_temporal", rows=[row([0.5])], config=folder)
    assert one["logprob_drop"] == [0.5] and list(one["rewards"]) == ["format", "timed_iou"]


drops = st.lists(st.floats(-5, 5).map(lambda d: round(d, 4)), min_size=1, max_size=12)


@given(drops, st.randoms(use_true_random=False))
def test_order_of_rows_is_irrelevant(found, order):
    groups = [index % 3 for index in range(len(found))]
    places = list(range(len(found)))
    order.shuffle(places)
    shuffled = group_drops([found[i] for i in places], [groups[i] for i in places])
    assert shuffled == [group_drops(found, groups)[i] for i in places]


@given(drops)
def test_never_all_of_a_group_is_paid(found):
    mean = group_drops(found, ["g"] * len(found))[0]
    paid = [temporal(drop, mean) for drop in found]
    assert set(paid) <= {0.0, 1.0} and sum(paid) < len(paid)
    assert [one for _, one in sorted(zip(found, paid, strict=True))] == sorted(paid)


def test_a_row_without_a_group_has_no_group_mean():
    assert group_drops([0.5, None, 0.25, None], ["a", "a", None, "b"]) == [0.5, 0.5, None, None]


# ---------------------------------------------------------------- gate, margin, truth


@pytest.mark.parametrize(
    ("options", "paid"),
    [({}, 1), ({"strict_gate": True}, 0), ({"gate": 0.71}, 0), ({"gate": 0.69, "strict_gate": True}, 1),
     ({"margin": 0.09}, 1), ({"margin": 0.1}, 0)],
)  # fmt: skip
def test_the_gate_and_the_margin(options, paid):
    assert temporal(0.3, 0.2, answer=(10, 17), truths=[(10, 25)], duration=20, **options) == paid


def test_what_is_not_paid_and_what_does_not_apply():
    assert temporal(0.3, 0.2, answer=(9, 3)) == 0.0
    assert temporal(0.3, 0.2, answer=("x", 3)) == 0.0
    assert temporal(0.3, 0.2, truths=[]) == 0.0
    assert temporal(0.3, 0.2, truths=[(20, 30), (3, 9)]) == 1.0
    assert temporal(None, 0.2) is None
    assert temporal(0.3, 0.2, task="describe") is None


def test_the_truth_is_clamped_only_where_asked():
    case = next(case for case in VECTORS["cases"] if case["id"] == "r03")
    as_is = {"timed_iou": RewardSettings(weight=1, clamp=False)}
    cut = {"timed_iou": OVERLAP}
    assert score(as_is, rollout(case), CONTRACT)["timed_iou"] == pytest.approx(7 / 15 * (1 - 8 / 20))
    assert score(cut, rollout(case), CONTRACT)["timed_iou"] == pytest.approx(0.595)
    far = rollout(case | {"p": [0.0, 90.0]})
    assert score(cut, far, CONTRACT)["timed_iou"] == pytest.approx(10 / 90 * 0.5 * (1 - 70 / 20))
    assert score({"timed_iou": RewardSettings(weight=1, clamp_truth=True)}, far, CONTRACT)["timed_iou"] == 0.0


# ---------------------------------------------------------------- prompt and versions


def test_the_prompts_example_is_in_the_form_that_is_rewarded():
    prompt = read_prompt(REPO / "config" / "prompts", "taro")
    example = prompt.texts["ground"].split("Example:\n")[1].strip()
    assert prompt.answer == CONTRACT and FORMATS["fmt_taro"](example)
    assert PARSERS["ans_taro"](example) == PARSERS["last2"](example) == strict_answer(example) == Segment(6.5, 9.2)


def test_version():
    options = [{}, {"strict_gate": True}, {"gate": 0.5}, {"margin": 0.05}]
    rows = [rollout(case) for case in VECTORS["cases"]]
    rows += [rollout(VECTORS["cases"][0] | {"p": p, "d": 0.3}) for p in ([9, 3], [0, 90], [7.1, 11.5], ["x", 3])]
    rows += [Rollout(one.completion, one.sample, drop, mean) for one in rows for drop, mean in ((None, 1), (1, None))]
    values = [score(weights(**chosen), one, CONTRACT)["temporal"] for chosen in options for one in rows]
    check_golden("reward.temporal", VERSIONS["temporal"], values)
    timed = [score({"timed_iou": OVERLAP}, one, CONTRACT)["timed_iou"] for one in rows]
    check_golden("reward.timed_iou.clamp_truth", VERSIONS["timed_iou"], [round(value, 9) for value in timed])
