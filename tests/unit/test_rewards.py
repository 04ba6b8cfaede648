"""Rewards: the vectors, the released code's own values, where each applies, and what cannot be gamed."""

import json
import math
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.unit.golden import GOLDEN, check_golden
from tvg.errors import TvgError
from tvg.inversion.verbs import Verb, extractor
from tvg.rewards import OPTIONS, REWARDS, VERSIONS, Rollout, check, score, similarity, weighted_sum
from tvg.rewards.verbs import named, nearness
from tvg.sample import INVERSION_TASKS, Sample
from tvg.segment import Segment
from tvg.settings import AnswerContract, RewardSettings

VECTORS = REPO / "tests" / "vectors"
OVERLAPS = json.loads((VECTORS / "overlap.json").read_text())["cases"]
VERB_SETS = json.loads((VECTORS / "verb_sets.json").read_text())["rewards"]
CONTRACT = AnswerContract()
GROUND_ONLY = ("tiou", "soft_iou", "timed_iou", "anchors", "temporal")
ONE = {name: RewardSettings(weight=1.0) for name in REWARDS}


@dataclass(frozen=True)
class WordList:
    """A real, tiny back-end: every listed form is a verb. The rewards' own behaviour, apart from any tagger's."""

    name: str = "word_list"
    version: int = 1

    def __call__(self, text):
        return [Verb(self.lemma(m[0]), *m.span()) for m in re.finditer(r"\w+", text) if m[0].lower() in FORMS]

    def lemma(self, word):
        return FORMS.get(word.lower(), word.lower())


LEMMAS = ("jump", "laugh", "walk", "run", "sit", "open", "close", "eat")
FORMS = {form: lemma for lemma in LEMMAS for form in (lemma, f"{lemma}s", f"{lemma}ing")} | {"closing": "close"}
WORDS = WordList()


def sample(task="ground", segments=((3.0, 9.0),), duration=30.0, verbs=("open",)):
    return Sample(
        id="s", video="v.mp4", duration=duration, query="person opens the door.",
        segments=tuple(Segment(*s) for s in segments), task=task, verbs=verbs,
    )  # fmt: skip


def answer(body):
    return f"<think>x</think><answer>{body}</answer>"


def value(name, completion, of, contract=CONTRACT, **options):
    settings = {name: RewardSettings(weight=1.0, **options)}
    return score(settings, Rollout(completion, of), contract, WORDS)[name]


def verbs(task, body, truth, **options):
    return value("verbs", answer(body), sample(task, verbs=tuple(truth)), **options)


# ---------------------------------------------------------------- format


@pytest.mark.parametrize("task", ["ground", *INVERSION_TASKS])
def test_format_applies_to_every_task(task):
    assert value("format", answer("open"), sample(task)) == 1.0
    assert value("format", "open", sample(task)) == 0.0


def test_format_is_the_contracts():
    time = "<think>x</think> <time>[5.2, 10.4]</time>"
    assert value("format", time, sample(), AnswerContract(format="fmt_tvg", reward="time_json")) == 1.0
    assert value("format", time, sample()) == 0.0


# ---------------------------------------------------------------- overlap


@pytest.mark.parametrize("case", OVERLAPS, ids=lambda case: case["id"])
def test_overlap_vectors(case):
    of, text = sample(segments=[case["g"]], duration=case["t"]), answer(f"{case['p'][0]} to {case['p'][1]}")
    assert value("tiou", text, of) == pytest.approx(case["iou"], abs=1e-6)
    assert value("timed_iou", text, of) == pytest.approx(case["tiou_clamped"], abs=1e-6)
    assert value("timed_iou", text, of, clamp=True) == pytest.approx(case["tiou_clamped"], abs=1e-6)
    assert value("timed_iou", text, of, clamp=False) == pytest.approx(case["tiou"], abs=1e-6)


def test_agrees_with_the_released_rewards(real_data):
    oracle = json.loads(real_data("oracles/text_parsing_dev.json").read_text())
    of, released = sample(segments=[oracle["reward_gt"]], duration=oracle["reward_duration"]), "time-r1/main."
    for item in oracle["items"]:
        text, expected = item["text"], item["rewards"]
        assert value("tiou", text, of) == pytest.approx(expected[released + "iou_timestamp_reward"]), text
        unclamped = value("timed_iou", text, of, clamp=False)
        assert unclamped == pytest.approx(expected[released + "iou_timestamp_reward_v2"]), text
        assert value("format", text, of) == expected[released + "format_reward"], text


def test_no_sample_leaks_into_the_next():
    """The released rewards reuse the previous sample's overlap for a degenerate one; ours is 0 in any order."""
    batch = [((0.0, 10.0), "0.0 to 3.0", 0.3), ((5.0, 5.0), "5.0 to 5.0", 0.0), ((0.0, 10.0), "unsure", 0.0)]
    for order in (batch, batch[::-1]):
        assert [value("tiou", answer(text), sample(segments=[truth])) for truth, text, _ in order] == pytest.approx(
            [expected for *_, expected in order]
        )


def test_the_best_of_several_true_segments_counts():
    of = sample(segments=[(0, 2), (10, 20), (18, 30)])
    assert value("tiou", answer("10 to 20"), of) == 1.0
    assert value("timed_iou", answer("18 to 30"), of) == 1.0
    assert value("tiou", answer("10 to 20"), sample(segments=[])) == 0.0


@pytest.mark.parametrize("segment", [(5, 5), (9, 3), (0, 500), (-3, 4), (400, 500)])
@pytest.mark.parametrize("name", ["tiou", "timed_iou"])
def test_odd_truths_are_legal(name, segment):
    reward = value(name, answer("3 to 9"), sample(segments=[segment]))
    assert 0.0 <= reward <= 1.0


def test_an_answer_past_every_number_scores_zero():
    for body in (f"1 to {'9' * 400}", f"{'9' * 400} to {'9' * 400}"):
        assert value("timed_iou", answer(body), sample(), clamp=False) == 0.0
    assert value("tiou", "<time>[NaN, Infinity]</time>", sample(), AnswerContract(reward="time_json")) == 0.0


def test_the_answer_is_read_by_the_contracts_parser():
    text = answer("3.0s to 9.0s")
    assert value("tiou", text, sample()) == 0.0
    assert value("tiou", text, sample(), AnswerContract(format="fmt_taro", reward="ans_taro")) == 1.0


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 100))
def test_overlap_ranges(start, end, true_start, true_end, duration):
    of, text = sample(segments=[(true_start, true_end)], duration=duration), answer(f"{start:.3f} to {end:.3f}")
    tiou, timed = value("tiou", text, of), value("timed_iou", text, of)
    assert 0 <= timed <= tiou <= 1
    assert math.isfinite(value("timed_iou", text, of, clamp=False))


# ---------------------------------------------------------------- verbs


@pytest.mark.parametrize(
    ("rule", "task", "options"),
    [
        ("VC", "complete_verb", {}),
        ("AR", "recognise_action", {}),
        ("VD_all", "describe", {}),
        ("VD_all", "describe", {"describe": "all", "match": "binary"}),
        ("VD_any", "describe", {"describe": "any"}),
    ],
)
def test_verb_vectors(rule, task, options):
    for case in VERB_SETS[rule]["cases"]:
        assert verbs(task, ", ".join(case["pred"]), case["gt"], **options) == case["reward"], case


@pytest.mark.parametrize(
    ("body", "reward"),
    [
        ("open", 1), ("Open", 1), (" opens.\n", 1), ("**opening**", 1), ('"opens"', 1),
        ("person opens the door", 1), ("The person is opening the door.", 1),
        ("close", 0), ("open, close", 0), ("opens and closes", 0), ("person opens and closes the door", 0),
        ("", 0), ("...", 0), ("the door", 0),
    ],
)  # fmt: skip
def test_completion_is_the_verb_or_the_completed_sentence(body, reward):
    assert verbs("complete_verb", body, ["open"]) == reward


def test_completion_wants_every_masked_verb():
    assert verbs("complete_verb", "opens, sits", ["open", "sit"]) == 1
    assert verbs("complete_verb", "sit and open", ["open", "sit"]) == 1
    assert verbs("complete_verb", "opens", ["open", "sit"]) == 0


def test_recognition_wants_one_verb():
    assert verbs("recognise_action", "walking", ["walk", "laugh"]) == 1
    assert verbs("recognise_action", "is walking", ["walk", "laugh"]) == 1
    assert verbs("recognise_action", "walk, laugh", ["walk", "laugh"]) == 0
    assert verbs("recognise_action", "walk run jump sit eat", ["walk"]) == 0


def test_description_may_say_more_but_not_less():
    assert verbs("describe", "Somebody walks in and laughs.", ["walk"]) == 1
    assert verbs("describe", "Somebody walks in.", ["walk", "laugh"]) == 0
    assert verbs("describe", "Somebody walks in.", ["walk", "laugh"], describe="any") == 1


@pytest.mark.parametrize(
    ("task", "truth", "body", "reward"),
    [
        ("complete_verb", ["turn"], "person turns on a light", 1),
        ("complete_verb", ["turn"], "turn", 1),  # a noun to any tagger
        ("complete_verb", ["eat"], "The person begins to eat food.", 1),  # begins only governs
        ("complete_verb", ["close"], "person opens the closed door", 0),
        ("recognise_action", ["drink"], "Drinking.", 1),
        ("recognise_action", ["drink"], "drinks", 1),
        ("recognise_action", ["drink"], "The person drinks and sits.", 0),
        ("describe", ["sit", "laugh"], "A woman is sitting on a sofa. She laughs at the television.", 1),
        ("describe", ["sit", "laugh"], "A woman on a sofa laughs.", 0),
    ],
)
def test_verbs_with_a_real_backend(task, truth, body, reward):
    rollout = Rollout(answer(body), sample(task, verbs=tuple(truth)))
    assert score({"verbs": ONE["verbs"]}, rollout, CONTRACT, extractor("standin")) == {"verbs": reward}


@pytest.mark.parametrize("task", INVERSION_TASKS)
@pytest.mark.parametrize("match", ["binary", "cosine"])
def test_a_query_without_a_verb_scores_zero_not_none(task, match):
    for body in ("open", "", "the door"):
        assert verbs(task, body, [], match=match) == 0.0


@pytest.mark.parametrize("task", INVERSION_TASKS)
def test_verbs_reads_the_last_answer_only(task):
    of = sample(task)
    assert value("verbs", "<think>open</think><answer>close</answer>", of) == 0.0
    assert value("verbs", "<think>open</think> open", of) == 0.0
    assert value("verbs", "<answer>close</answer> <answer>open</answer>", of) == 1.0


def test_verbs_without_what_it_needs_is_an_error():
    for of, words in ((sample("describe", verbs=None), WORDS), (sample("describe"), None)):
        with pytest.raises(TvgError, match="no verbs to compare with"):
            score({"verbs": RewardSettings(weight=1)}, Rollout(answer("open"), of), CONTRACT, words)


# ---------------------------------------------------------------- similarity


def test_similarity_of_the_papers_example():
    """The paper's unnamed embedding gives run/eat 0.2; ours is reported beside it."""
    assert similarity.similarity("run", "eat") == pytest.approx(0.134, abs=0.001)
    assert similarity.similarity("run", "walk") > 0.8 > similarity.similarity("run", "sit")


def test_similarity_is_a_cosine():
    table = similarity.vectors()
    for a in table:
        assert similarity.similarity(a, a) == 1.0
    for a, b in zip(sorted(table), sorted(table, key=lambda verb: verb[::-1]), strict=True):
        assert similarity.similarity(a, b) == similarity.similarity(b, a)
        assert 0.0 <= similarity.similarity(a, b) <= 1.0


def test_unknown_words_are_like_nothing():
    assert similarity.similarity("zorble", "zorble") == similarity.similarity("run", "zorble") == 0.0


def test_actions_of_the_mini_data_are_told_apart():
    from tvg.datasets.mini import VERBS

    table = similarity.vectors()
    assert set(VERBS) <= set(table)
    for a in VERBS:
        for b in set(VERBS) - {a}:
            assert similarity.similarity(a, b) < 0.9, (a, b)


def test_a_changed_table_is_refused(tmp_path):
    changed = tmp_path / "verb_features.tsv"
    changed.write_text(similarity.TABLE.read_text().replace("legs", "wheels"))
    with pytest.raises(TvgError, match="not the table"):
        similarity.vectors(changed)


def test_cosine_is_the_mean_over_the_true_verbs_of_the_nearest():
    near = similarity.similarity("walk", "run")
    assert nearness({"run", "eat"}, {"walk"}) == pytest.approx(near)
    assert nearness({"run"}, {"walk", "zorble"}) == pytest.approx(near / 2)
    assert nearness({"run"}, {"walk", "zorble"}, any_of=True) == pytest.approx(near)
    assert nearness(set(), {"walk"}) == 0.0
    assert verbs("complete_verb", "run", ["walk"], match="cosine") == pytest.approx(near)
    assert verbs("recognise_action", "run", ["walk"], match="cosine") == pytest.approx(near)
    assert verbs("recognise_action", "run, walk", ["walk"], match="cosine") == 0.0
    assert verbs("describe", "he runs", ["walk", "open"], match="cosine", describe="any") == pytest.approx(near)


some = st.frozensets(st.sampled_from(LEMMAS), max_size=4)


@given(some, some, st.sampled_from(INVERSION_TASKS))
def test_cosine_contains_binary(predicted, truth, task):
    """What is right is nearest; the cosine stays in its range and depends on no order."""
    body, reverse = ", ".join(sorted(predicted)), ", ".join(sorted(predicted, reverse=True))
    binary, cosine = (verbs(task, body, truth, match=match) for match in ("binary", "cosine"))
    assert 0.0 <= cosine <= 1.0
    assert binary in (0.0, 1.0)
    if binary and task != "recognise_action":
        assert cosine == pytest.approx(1.0)
    assert verbs(task, reverse, sorted(truth, reverse=True), match="cosine") == pytest.approx(cosine)


@given(some)
def test_named_reads_a_list_back(predicted):
    assert named(", ".join(predicted), WORDS) == predicted
    assert named(" and ".join(f"{verb}s" for verb in predicted), WORDS) == predicted


# ---------------------------------------------------------------- all together


def test_a_reward_that_does_not_apply_is_none():
    ground = score(ONE, Rollout(answer("3.0 to 9.0"), sample()), CONTRACT, WORDS)
    overlaps, none = {"tiou": 1.0, "soft_iou": 1.0, "timed_iou": 1.0}, dict.fromkeys(GROUND_ONLY)
    assert ground == {"format": 1.0, **overlaps, "anchors": -10.0, "temporal": None, "verbs": None}  # not one anchor
    for task in INVERSION_TASKS:
        raw = score(ONE, Rollout(answer("open"), sample(task)), CONTRACT, WORDS)
        assert raw == {"format": 1.0, **none, "verbs": 1.0}
    caption = score(ONE, Rollout("a person opens", sample("caption")), CONTRACT, WORDS)
    assert caption == {"format": 0.0, **none, "verbs": None}


def test_none_drops_out_of_the_weighted_sum():
    weights = {
        "format": RewardSettings(weight=0.5),
        "tiou": RewardSettings(weight=2.0),
        "verbs": RewardSettings(weight=3),
    }
    assert weighted_sum({"format": 1.0, "tiou": 0.25, "verbs": None}, weights) == 1.0
    assert weighted_sum({"format": 0.0, "tiou": None, "verbs": 1.0}, weights) == 3.0
    assert weighted_sum({"tiou": None, "verbs": None}, weights) is None
    assert weighted_sum({"format": 0.0}, weights) == 0.0


def test_grounding_rewards_need_no_verbs():
    assert score(ONE, Rollout(answer("3.0 to 9.0"), sample(verbs=None)), CONTRACT)["verbs"] is None


def test_an_unknown_reward_names_the_nearest():
    with pytest.raises(TvgError, match="did you mean 'timed_iou'"):
        score({"timed_iuo": RewardSettings(weight=1)}, Rollout("", sample()), CONTRACT)


def test_an_option_that_no_one_reads_is_an_error():
    with pytest.raises(TvgError, match="'tiou' has no option 'clamp'"):
        check({"tiou": RewardSettings(weight=1, clamp=False)}, "config/experiments/x.yaml")
    check({name: RewardSettings(weight=1, **dict.fromkeys(options)) for name, options in OPTIONS.items()})


def test_every_reward_has_its_behaviour_stored():
    assert {f"reward.{name}" for name in REWARDS} <= json.loads(GOLDEN.read_text()).keys()


@pytest.mark.parametrize("name", ["format", "tiou", "timed_iou", "verbs"])  # the others: test_rewards_{tar,taro}.py
def test_version(name):
    """The behaviour of each reward on the vectors and on odd texts, under its version number."""
    bodies = [f"{case['p'][0]} to {case['p'][1]}" for case in OVERLAPS]
    bodies += [
        "open",
        "Opening.",
        "opens, closes",
        "person opens the door",
        "run",
        "walk, laugh",
        "",
        "5 to 5",
        "x 1 and 4",
    ]
    texts = [f(body) for body in bodies for f in (answer, str, "<answer>{}</answer>".format)]
    tasks = ("ground", *INVERSION_TASKS, "caption")
    truths = [(case["g"], case["t"]) for case in OVERLAPS]
    of = [
        sample(task, [g], t, names) for task in tasks for g, t in truths for names in ((), ("open",), ("walk", "run"))
    ]
    options = {"timed_iou": [{}, {"clamp": False}], "verbs": [{}, {"match": "cosine"}, {"describe": "any"}]}
    values = [value(name, text, one, **chosen) for chosen in options.get(name, [{}]) for one in of for text in texts]
    check_golden(f"reward.{name}", VERSIONS[name], [None if v is None else round(v, 9) for v in values])
