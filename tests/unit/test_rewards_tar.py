"""TAR-TVG: anchors, its format, soft IoU and r_TAR; the vectors, what pays and what must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import answers, vectors, with_experiment
from tests.conftest import REPO
from tests.unit.golden import check_golden
from tvg import parse
from tvg.config import read_prompt
from tvg.parse import anchors, fmt_tar, fmt_tar_free, strict_answer
from tvg.rewards import VERSIONS, Rollout, score, weighted_sum
from tvg.rewards.anchors import anchor_overlaps, refined
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import AnswerContract, RewardSettings

VECTORS = vectors("tar")
CONTRACT = AnswerContract(format="fmt_tar", reward="ans_last")
WEIGHTS = {name: RewardSettings(weight=weight) for name, weight in (("format", 3), ("soft_iou", 1), ("anchors", 1))}
COUNTS = {"tar_tvg_1": "one", "tar_tvg": "two", "tar_tvg_3": "three", "tar_tvg_4": "four"}  # anchors asked for
TRUTH = [6, 12]


def element(segment):
    return f"<timestamp>{segment[0]} to {segment[1]}</timestamp>"


def trace(found, answer=None):
    """A response with these anchors; it answers with the last of them."""
    start, end = found[-1] if answer is None else answer
    return f"<think>At first {', then '.join(map(element, found))}.</think> <answer>{start} to {end}</answer>"


def sample(*segments, duration=30.0, task="ground"):
    return Sample(id="s", video="v.mp4", duration=duration, query="q", segments=tuple(Segment(*s) for s in segments),
                  task=task)  # fmt: skip


def raw(text, *truth, contract=CONTRACT, task="ground", **options):
    settings = WEIGHTS | {"anchors": RewardSettings(weight=1, **options)}
    return score(settings, Rollout(text, sample(*(truth or [TRUTH]), task=task)), contract)


def total(text, *truth, **options):
    return weighted_sum(raw(text, *truth, **options), WEIGHTS)


# ---------------------------------------------------------------- the vectors


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_vectors(case):
    text = trace(case["anchors"], case["answer"])
    found = anchor_overlaps(text, sample(case["g"]))
    assert found == pytest.approx(case["siou"], abs=1e-6)
    expected = {"format": case["r_fmt"] / 3, "soft_iou": case["r_siou"], "anchors": case["r_tar"]}
    assert raw(text, case["g"]) == pytest.approx(expected, abs=1e-6)
    assert total(text, case["g"]) == pytest.approx(case["total"], abs=1e-6)
    assert sum(1 if better else -1 for better in refined(found)) == case["tar3"]
    parts = {"tar1": {"beta": 0, "gamma": 0}, "tar12": {"gamma": 0}, "tar123": {}}
    sums = {"tar1": case["tar1"], "tar12": case["tar1"] - 5 * case["tar2"], "tar123": case["r_tar"]}
    assert {name: raw(text, case["g"], **off)["anchors"] for name, off in parts.items()} == pytest.approx(
        sums, abs=1e-6
    )
    spelled = {"target": 2, "beta": 5, "gamma": 1, "deviation": "abs", "overlap": "soft", "at_most": 4}
    assert raw(text, case["g"], **spelled)["anchors"] == pytest.approx(case["r_tar"], abs=1e-6)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_what_the_filter_reads(case):
    """The published filter (all conditions strict) on our numbers names the same failures."""
    text = trace(case["anchors"], case["answer"])
    found, rule = anchor_overlaps(text, sample(case["g"])), VECTORS["filter"]
    fails = ["fewer_than_2_anchors"] * (len(found) < rule["min_anchors"])
    fails += ["reward"] * (total(text, case["g"]) <= rule["total_greater_than"])
    pairs = zip(found, (rule["siou1_greater_than"], rule["siou2_greater_than"]), strict=False)
    fails += [f"siou{i}" for i, (overlap, least) in enumerate(pairs, 1) if overlap <= least]
    assert fails == case["filter_fails"] and (not fails) == case["keep"]


@pytest.mark.parametrize("row", VECTORS["supremum_by_anchor_count"]["rows"], ids=lambda row: str(row["n"]))
@pytest.mark.parametrize("deviation", ["abs", "square", "indicator"])
def test_the_hack_and_its_guard(row, deviation):
    """Without a cap, more anchors pay more from six on; by default the fifth costs format and r_TAR."""
    rising = [(0, 1_000_000 - (row["n"] - i)) for i in range(1, row["n"] + 1)]
    free = AnswerContract(format="fmt_ta", reward="ans_last")
    uncapped = total(trace(rising), rising[-1], contract=free, deviation=deviation, at_most=row["n"])
    assert uncapped == pytest.approx(row[deviation], abs=1e-2)
    guarded = raw(trace(rising), rising[-1], deviation=deviation)
    if row["n"] > 4:
        assert guarded == {"format": 0.0, "soft_iou": 1.0, "anchors": 0.0}
        assert raw(trace(rising), rising[-1], contract=free)["anchors"] == 0.0
    else:
        assert weighted_sum(guarded, WEIGHTS) == pytest.approx(row[deviation], abs=1e-2)


OWN = """
paper: ours
prompt: tar_tvg
rewards: {format: {weight: 3.0}, soft_iou: {weight: 1.0}, anchors: {weight: 1.0, target: 2, beta: 5.0, gamma: 1.0}}
stages: {grpo: {kind: grpo, data: charades_train}}
evaluate: grpo
benchmarks: [charades_test]
arms:
  one_anchor: {prompt: tar_tvg_1, rewards.anchors.target: 1}
  tar1: {rewards.anchors.beta: 0.0, rewards.anchors.gamma: 0.0}
  hard: {rewards.soft_iou: null, rewards.tiou: {weight: 1.0}, rewards.anchors.overlap: hard}
"""


def test_vectors_on_the_command_line(tmp_path):
    cases, folder = VECTORS["cases"], with_experiment(tmp_path, "own", OWN)
    rows = [
        {"completion": trace(case["anchors"], case["answer"]), "segment": case["g"], "duration": 30} for case in cases
    ]
    out = answers("reward", "own", rows=rows, config=folder)
    for case, row in zip(cases, out, strict=True):
        assert row["rewards"] == pytest.approx({"format": 1, "soft_iou": case["r_siou"], "anchors": case["r_tar"]})
    assert [row["reward"] for row in out] == pytest.approx([case["total"] for case in cases], abs=1e-6)
    backwards = answers("reward", "own", rows=rows[::-1], config=folder)
    assert backwards[::-1] == out
    arms = {"own-tar1": "tar1", "own-one_anchor": None, "own-hard": None}
    found = {arm: answers("reward", arm, rows=rows, config=folder) for arm in arms}
    assert [row["rewards"]["anchors"] for row in found["own-tar1"]] == pytest.approx([case["tar1"] for case in cases])
    assert found["own-one_anchor"][0]["reward"] == pytest.approx(5.0)  # all that one anchor can earn
    assert found["own-hard"][8]["rewards"] == pytest.approx({"format": 1, "tiou": 1, "anchors": 3})


# ---------------------------------------------------------------- anchors and the format


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think><timestamp>3.5 to 9</timestamp></think>", [(3.5, 9)]),
        ("<think><timestamp> 3.5s to 9.0s </timestamp> or <timestamp>4-8</timestamp></think>", [(3.5, 9), (4, 8)]),
        ("<think>3 to 9 <timestamp>9 to 3</timestamp></think>", [(9, 3)]),  # as read: the reward punishes it
        ("<think><timestamp>3</timestamp><timestamp>1 to 2 and 3</timestamp><timestamp></timestamp></think>", []),
        ("<think><timestamp><timestamp>3 to 9</timestamp></timestamp></think>", [(3, 9)]),
        ("<think>x</think><timestamp>3 to 9</timestamp><answer><timestamp>3 to 9</timestamp></answer>", []),
        ("<think><timestamp>3 to 9</timestamp></think><think><timestamp>3 to 9</timestamp></think>", []),
        ("<think><timestamp>3 to 9</timestamp>", []),
        ("<timestamp>3 to 9</timestamp></think>", []),
        ("<think><timestep>3 to 9</timestep></think>", []),
    ],
)
def test_anchors_are_the_readable_ones_inside_the_one_think(text, expected):
    assert anchors(text) == tuple(Segment(*pair) for pair in expected)


@pytest.mark.parametrize(
    ("text", "tied", "free"),
    [
        (trace([(3, 9)]), 1, 1),
        (f"  {trace([(3, 9), (4, 9)])}\n", 1, 1),
        (trace([(3, 9)] * 4), 1, 1),
        (trace([(3, 9)] * 5), 0, 0),
        (trace([(3.4, 9), (4, 9)], answer=(4.01, 8.99)), 1, 1),
        (trace([(3, 9), (3.4, 9)], answer=(3.41, 9)), 1, 1),  # 0.010000000000000231
        (trace([(3, 9), (4, 9)], answer=(4.02, 9)), 0, 1),
        (trace([(4, 9), (3, 9)], answer=(4, 9)), 0, 1),
        (trace([(3, 9)]).replace("<answer>3 to 9", "<answer>unsure"), 0, 0),
        (trace([(3, 9)]).replace("timestamp", "timestep"), 0, 0),
        (trace([(3, 9)]) + " Done.", 0, 0),
        (trace([(3, 9)]).replace("</think>", "</think><think>x</think>"), 0, 0),
        (trace([(3, 9)]).replace("<answer>", "<timestamp>3 to 9</timestamp><answer>"), 0, 0),
        ("", 0, 0),
    ],
)
def test_format(text, tied, free):
    assert (fmt_tar(text), fmt_tar_free(text)) == (bool(tied), bool(free))
    assert raw(text)["format"] == tied
    assert raw(text, contract=AnswerContract(format="fmt_tar_free"))["format"] == free


def test_where_the_format_fails_only_the_answer_is_paid():
    text = trace([(4, 10), (6, 12)], answer=(5, 12))
    assert raw(text) == {"format": 0.0, "soft_iou": pytest.approx(6 / 7), "anchors": 0.0}
    free = AnswerContract(format="fmt_tar_free")
    assert raw(text, contract=free) == {"format": 1.0, "soft_iou": pytest.approx(6 / 7), "anchors": 3.5}


# ---------------------------------------------------------------- soft IoU, reversed and empty segments


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("6 to 12", 1.0), ("14 to 15", -2 / 9), ("12 to 13", 0.0),
        ("unsure", -1.0), ("", -1.0), ("12 to 6", -1.0), ("9 to 8.9", -1.0), ("7 to 7", -1.0),
        (f"1 to {'9' * 400}", -1.0), (f"{'9' * 400} to {'9' * 400}", -1.0),
    ],
)  # fmt: skip
def test_soft_iou(body, value):
    assert raw(f"<think>x</think><answer>{body}</answer>")["soft_iou"] == pytest.approx(value)


def test_soft_iou_and_anchors_are_of_grounding_and_of_the_best_segment():
    text = trace([(4, 10), (20, 30)])
    assert raw(text, [6, 12], [20, 30])["soft_iou"] == 1.0
    assert raw(text, [6, 12], [20, 30])["anchors"] == pytest.approx(0.5 + 2 + 1)
    for task in ("describe", "caption"):
        assert raw(text, task=task) == {"format": 1.0, "soft_iou": None, "anchors": None}


def test_an_odd_anchor_counts_as_the_farthest_miss():
    for odd in ((9, 3), (7, 7), (1, int("9" * 400))):
        assert anchor_overlaps(trace([odd]), sample(TRUTH)) == [-1.0]
        assert anchor_overlaps(trace([odd]), sample(TRUTH), hard=True) == [0.0]
    assert raw(trace([(9, 3), (6, 12)]))["anchors"] == pytest.approx(-1 + 2 + 1)
    assert anchor_overlaps(trace([(5, 6)]), sample((9, 3))) == [-1.0]  # the formula gives -6 for a reversed truth


def test_rounding_makes_no_refinement():
    """Two misses of equal width on either side have equal overlaps, but for the last bit."""
    pair = [(6.3, 12.1), (5.9, 11.7)]
    overlaps = anchor_overlaps(trace(pair), sample((6.1, 11.9)))
    assert overlaps[0] == pytest.approx(overlaps[1]) and refined(overlaps) == refined(overlaps[::-1]) == [False]


def test_hard_overlap_does_not_rank_misses():
    far, near = trace([(20, 25), (15, 20)]), trace([(20, 25), (13, 20)])
    assert raw(near)["anchors"] > raw(far)["anchors"]
    assert raw(near, overlap="hard")["anchors"] == raw(far, overlap="hard")["anchors"] == -1.0


# ---------------------------------------------------------------- what must hold of any response

seconds = st.floats(0, 60).map(lambda t: round(t, 2))
proper = st.tuples(seconds, seconds).map(sorted).filter(lambda s: s[1] - s[0] > 0.05).map(tuple)
pairs = st.tuples(seconds, seconds)


@given(st.lists(pairs, min_size=1, max_size=12), pairs, st.sampled_from(["abs", "square", "indicator"]))
def test_ranges(found, truth, deviation):
    one = raw(trace(found), truth, deviation=deviation)
    assert one["format"] in (0.0, 1.0) and -1 <= one["soft_iou"] <= 1
    assert -25 - 20 <= one["anchors"] <= 10 + 3
    if deviation == "abs":
        assert weighted_sum(one, WEIGHTS) <= 8


@given(st.lists(proper, min_size=5, max_size=12), proper)
def test_spam_earns_no_more_than_its_answer(found, truth):
    assert total(trace(found), truth) == raw(trace(found), truth)["soft_iou"] <= 1


@given(st.lists(proper, min_size=1, max_size=3), proper, proper, proper)
def test_a_better_last_anchor_never_costs(before, one, other, truth):
    """The answer goes with it: both overlaps and every step of TAR3 are monotone in the last anchor."""
    by_overlap = sorted((one, other), key=lambda last: anchor_overlaps(trace([last]), sample(truth))[0])
    worse, better = (total(trace([*before, last]), truth) for last in by_overlap)
    assert better >= worse - 1e-9


@given(proper)
def test_two_perfect_anchors_have_nothing_to_refine(truth):
    assert total(trace([truth, truth]), truth) == pytest.approx(6.0)
    assert total(trace([truth]), truth, target=1) == pytest.approx(5.0)


@given(st.text(alphabet="<>/ta. 0123", max_size=60), st.lists(pairs, max_size=6))
def test_any_text_has_a_reward(noise, found):
    one = raw(f"<think>{noise}{' '.join(map(element, found))}</think><answer>{noise}</answer>")
    assert all(value is not None and abs(value) < 1e3 for value in one.values())


# ---------------------------------------------------------------- prompts and versions


@pytest.mark.parametrize("name", COUNTS)
def test_the_prompts_example_is_in_the_form_that_is_rewarded(name):
    prompt = read_prompt(REPO / "config" / "prompts", name)
    text = prompt.texts["ground"]
    words, count = COUNTS[name], list(COUNTS).index(name) + 1
    assert prompt.answer == AnswerContract(format="fmt_tar", reward="ans_last", anchors=count)
    example = f"<think>{element((12.54, 17.83))}</think>" + text[text.rindex("<answer>") :].rstrip(". \n")
    assert element(("12.54", "17.83")) in text and fmt_tar(example)
    assert strict_answer(example) == Segment(12.54, 17.83)
    assert f"exactly {words} estimate" in " ".join(text.split())


def test_version():
    found = [[(3, 9)], [(9, 3), (3, 9)], [(7, 7), (4, 10)], [(20, 25), (5, 12), (6, 12)], [(4, 10)] * 4, [(6, 12)] * 6]
    found += [case["anchors"] for case in VECTORS["cases"]]
    texts = [trace(one) for one in found] + [trace(one, answer=(6.02, 12)) for one in found]
    texts += ["", "6 to 12", "<think>x</think><answer>6 to 12</answer>", f"<think>{trace([(6, 12)])}</think>"]
    texts += [text.replace(" to ", "s to ") for text in texts] + [text.replace("think", "thought") for text in texts]
    read = [[[list(one) for one in anchors(text)], fmt_tar(text), fmt_tar_free(text)] for text in texts]
    check_golden("parse.tar", parse.VERSION, read)
    options = [{}, {"target": 1, "beta": 2.5}, {"gamma": 0.5, "deviation": "square"},
               {"deviation": "indicator", "overlap": "hard"}, {"at_most": 2}]  # fmt: skip
    truths = [(TRUTH,), ((12, 6),), ((3, 5), (6, 40))]
    for name in ("soft_iou", "anchors"):
        values = [raw(text, *truth, **chosen)[name] for chosen in options for truth in truths for text in texts]
        check_golden(f"reward.{name}", VERSIONS[name], [round(value, 9) for value in values])
