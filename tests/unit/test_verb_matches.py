"""`match: superset`, the released code's rule, and `match: synonym`, ours: vectors, properties, opposites."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import answers, completion, rollout, vectors
from tests.unit.test_rewards import CONTRACT, VERB_SETS, answer, sample, some, value, verbs
from tvg.datasets.mini import VERBS
from tvg.errors import TvgError
from tvg.inversion.verbs import extractor
from tvg.rewards import Rollout, score, similarity
from tvg.rewards.similarity import meaning
from tvg.sample import INVERSION_TASKS
from tvg.settings import RewardSettings

# ---------------------------------------------------------------- superset


@pytest.mark.parametrize("task", INVERSION_TASKS)
@pytest.mark.parametrize("case", VERB_SETS["code_v2"]["cases"], ids=str)
def test_superset_vectors(task, case):
    assert verbs(task, ", ".join(case["pred"]), case["gt"], match="superset") == case["reward"]


def test_the_strict_form_is_the_papers_rule():
    for case in VERB_SETS["code_v1"]["cases"]:
        assert verbs("complete_verb", ", ".join(case["pred"]), case["gt"]) == case["reward"]


@pytest.mark.parametrize(
    ("truth", "body", "reward"),
    [
        (["open"], "Person opens the door.", 1),
        (["open"], "Person opens the door and sits.", 1),  # more verbs are free
        (["open", "sit"], "Person opens the door.", 0),  # a query with two lacks one, its sentence neither
        (["open"], "Person closes the door.", 0),
        (["eat"], "person begins to eat food", 1),
        ([], "a red chair", 1),
        ([], "a person runs", 0),
    ],
)
def test_superset_with_a_real_backend(truth, body, reward):
    settings = {"verbs": RewardSettings(weight=1.0, match="superset")}
    rollout = Rollout(f"<answer>{body}</answer>", sample("complete_verb", verbs=tuple(truth)))
    assert score(settings, rollout, CONTRACT, extractor("standin")) == {"verbs": reward}


def test_without_an_answer_nothing_is_right():
    of = sample("complete_verb", verbs=())
    assert value("verbs", "a red chair", of, match="superset") == 0.0
    assert value("verbs", answer("a red chair"), of, match="superset") == 1.0


@given(some, some, some)
def test_superset_contains_binary_and_more_verbs_never_hurt(predicted, more, truth):
    def reward(named, match):
        return verbs("complete_verb", ", ".join(sorted(named)), truth, match=match)

    assert reward(predicted, "superset") >= reward(predicted, "binary")
    if truth:
        assert reward(predicted | more, "superset") >= reward(predicted, "superset")


# ---------------------------------------------------------------- synonym

OPPOSITES = [
    ("open", "close"), ("raise", "lower"), ("put", "take"), ("sit", "stand"), ("lie", "stand"), ("begin", "stop"),
    ("push", "pull"), ("enter", "leave"), ("come", "leave"), ("dress", "undress"), ("grow", "shrink"),
    ("laugh", "cry"), ("smile", "frown"), ("smile", "cry"), ("awaken", "sleep"), ("throw", "catch"), ("give", "take"),
    ("appear", "disappear"), ("lock", "unlock"), ("load", "unload"), ("lift", "drop"), ("lift", "put"),
    ("hold", "throw"), ("rise", "fall"), ("build", "break"), ("tie", "untie"), ("wrap", "unwrap"), ("shout", "whisper"),
    ("jump", "fall"),
]  # fmt: skip
LEMMAS = sorted(similarity.synonyms().keys() | similarity.vectors().keys())
lemmas = st.sampled_from(LEMMAS) | st.from_regex(r"[a-z]{1,12}", fullmatch=True)


def matches(said, true, task="complete_verb", **options):
    return verbs(task, said, [true], match="synonym", **options) == 1.0


def alike(lemma):
    """A lemma and all its synonyms."""
    return [other for other in {lemma, *LEMMAS} if meaning(other) == meaning(lemma)]


@given(lemmas, st.sampled_from(INVERSION_TASKS))
def test_a_verb_matches_itself(lemma, task):
    assert matches(lemma, lemma, task)


@given(lemmas, lemmas, lemmas, st.sampled_from(INVERSION_TASKS))
def test_it_matches_both_ways_and_on(a, b, c, task):
    assert matches(a, b, task) == matches(b, a, task)
    assert not (matches(a, b, task) and matches(b, c, task)) or matches(a, c, task)


def test_synonyms_match_on_every_task():
    for task in INVERSION_TASKS:
        assert matches("shut", "close", task) and matches("grab", "take", task) and not matches("run", "eat", task)
        assert verbs(task, "shut", ["close"]) == 0.0, "to the paper's rule they are two"


@pytest.mark.parametrize("pair", OPPOSITES, ids="/".join)
def test_opposites_never_match(pair):
    """Nor does any synonym of one match a synonym of the other."""
    for a, b in product(*map(alike, pair)):
        assert not any(matches(a, b, task) for task in INVERSION_TASKS), (a, b)


@given(st.sampled_from(LEMMAS), st.sampled_from(("un", "dis", "re", "mis")))
def test_what_a_prefix_turns_round_never_matches(lemma, prefix):
    assert not matches(prefix + lemma, lemma)


FIRST_OF_EACH = sorted({meaning(lemma): lemma for lemma in LEMMAS}.values())
strangers = st.frozensets(st.sampled_from(FIRST_OF_EACH), max_size=4)


@given(strangers, strangers, st.sampled_from(INVERSION_TASKS), st.sampled_from(("all", "any")))
def test_it_is_binary_where_no_two_are_synonyms(predicted, truth, task, describe):
    body, options = ", ".join(sorted(predicted)), {"describe": describe}
    assert verbs(task, body, truth, match="synonym", **options) == verbs(task, body, truth, **options)


def test_the_tasks_rules_hold():
    assert verbs("complete_verb", "shut, sits", ["close", "sit"], match="synonym") == 1.0
    assert verbs("complete_verb", "shut, sits", ["close"], match="synonym") == 0.0
    assert verbs("recognise_action", "grab, take", ["take"], match="synonym") == 0.0, "one verb was asked for"
    assert verbs("describe", "grab, sit", ["take", "eat"], match="synonym") == 0.0
    assert verbs("describe", "grab, sit", ["take", "eat"], match="synonym", describe="any") == 1.0


def test_the_table_has_each_verb_once_and_tells_the_mini_actions_apart():
    rows = [line for line in similarity.SYNONYMS.read_text().splitlines() if not line.startswith("#")]
    words = [word for row in rows for word in row.split()]
    assert len(words) == len(set(words)) == len(similarity.synonyms())
    assert len(set(map(meaning, VERBS))) == len(VERBS)


def test_a_changed_table_of_synonyms_is_refused(tmp_path):
    changed = tmp_path / "verb_synonyms.tsv"
    changed.write_text(similarity.SYNONYMS.read_text().replace("shut", "open"))
    with pytest.raises(TvgError, match="not the table"):
        similarity.synonyms(changed)


# ---------------------------------------------------------------- tvg reward


def test_the_commands_superset_passes_the_vectors():
    cases = vectors("verb_sets")["rewards"]["code_v2"]["cases"]
    said = [", ".join(case["pred"]) for case in cases]
    rows = [rollout(task="complete_verb", verbs=case["gt"]) for case in cases]
    bare = [row | {"completion": f"<answer>{body}</answer>"} for row, body in zip(rows, said, strict=True)]
    thought = [row | {"completion": completion(body)} for row, body in zip(rows, said, strict=True)]
    for form, given_ in ((1.0, bare), (0.0, thought)):  # this task's format has no reasoning
        out = answers("reward", "invert4tvg-released_code", rows=given_)
        assert [row["rewards"] for row in out] == [{"format": form, "tiou": None, "verbs": c["reward"]} for c in cases]
    [ground] = answers("reward", "invert4tvg-released_code", rows=[rollout()])
    assert ground["rewards"]["format"] == 1.0, "grounding reasons as before"


def test_the_commands_synonyms():
    rows = [rollout(body, task="recognise_action", verbs=["close"]) for body in ("shuts", "closes", "opens")]
    assert [row["rewards"]["verbs"] for row in answers("reward", "invert4tvg-synonym", rows=rows)] == [1.0, 1.0, 0.0]
