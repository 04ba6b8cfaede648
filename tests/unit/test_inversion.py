"""From samples to inversion tasks: which verbs are masked, what is true, who is drawn."""

import json
from collections import Counter

import pytest

from tvg.inversion import action_recognition, annotate, eligible, verb_completion, video_description
from tvg.inversion.standin import WORD
from tvg.inversion.verbs import Verb, extractor, sampler_verbs
from tvg.sample import GAP, INVERSION_TASKS, Sample
from tvg.segment import Segment

STANDIN = extractor("standin")


def sample(query, number=0):
    return Sample(id=str(number), video="v.mp4", duration=30.0, query=query, segments=(Segment(3, 9),))


def annotated(query):
    return next(annotate([sample(query)], STANDIN))


@pytest.mark.parametrize(
    ("query", "verbs", "masked"),
    [
        ("Person opens the door.", ("open",), "Person [] the door."),
        ("person turn on a light.", ("turn",), "person [] on a light."),
        ("a person sits down and then laughs.", ("sit", "laugh"), "a person [] down and then []."),
        ("person begins to eat food.", ("eat",), "person begins to [] food."),
        ("there is a person laying on the sofa.", ("lay",), "there is a person [] on the sofa."),
        ("the person is running, running fast.", ("run",), "the person is [], [] fast."),
        ("a person doesn't move.", ("move",), "a person doesn't []."),
    ],
)
def test_all_and_only_the_actions_are_masked(query, verbs, masked):
    done = annotated(query)
    assert (done.verbs, done.masked) == (verbs, masked)


def test_a_query_without_a_verb_is_kept_and_never_drawn():
    done = annotated("people in a body of water.")
    assert done.verbs == () and done.masked is None
    assert eligible(done, "ground") and eligible(done, "caption")
    assert not any(eligible(done, task) for task in INVERSION_TASKS)
    assert all(eligible(annotated("person sits."), task) for task in INVERSION_TASKS)


def test_annotating_keeps_every_sample_in_order_and_everything_else():
    queries = ["person sits.", "a red chair.", "person stands up."]
    before = [sample(query, i) for i, query in enumerate(queries)]
    after = list(annotate(before, STANDIN))
    assert [one.id for one in after] == ["0", "1", "2"]
    for old, new in zip(before, after, strict=True):
        assert (new.query, new.segments, new.duration, new.task) == (old.query, old.segments, old.duration, old.task)
        assert Sample.from_json(new.to_json()) == new
    assert list(annotate(after, STANDIN)) == after


def test_mask_goes_by_place_not_by_word():
    query = "person opens the open door"
    assert verb_completion.mask(query, [Verb("open", 7, 12)]) == "person [] the open door"
    assert verb_completion.mask(query, []) == query


@pytest.mark.parametrize(
    ("query", "removed"),
    [
        ("Person opens the door.", "Person the door."),
        ("person turn on a light.", "person on a light."),
        ("a person sits down and then laughs.", "a person down and then laughs."),  # the first alone
        ("person begins to eat food.", "person begins to food."),  # the action, as everywhere (systems.md 8, row 12)
        ("person opens the open door", "person the open door"),
        ("sit down", "down"),
        ("person sits.", "person."),
        ("person eats (x+) at 5 [am]", "person (x+) at 5 [am]"),  # marks of a regular expression are letters
        ("people in a body of water.", None),
    ],
)
def test_the_released_task_leaves_out_the_first_verb(query, removed):
    assert annotated(query).removed == removed


def test_what_is_left_out_of_real_queries_is_the_first_verb(real_data):
    for line in real_data("annotations/charades-sta/charades_sta_test.txt").read_text().splitlines()[::20]:
        done = annotated(line.split("##")[1])
        if done.verbs:
            first = sampler_verbs(STANDIN(done.query))[0]
            left = Counter(WORD.findall(done.query)) - Counter(WORD.findall(done.removed))
            assert left == Counter([done.query[first.start : first.end]]), done


def test_rules():
    assert verb_completion.right({"open"}, {"open"}) and not verb_completion.right({"open", "sit"}, {"open"})
    assert action_recognition.right({"open"}, {"open", "sit"}) and not action_recognition.right(
        {"open", "sit"}, {"open", "sit"}
    )
    assert video_description.right({"open", "sit"}, {"open"}) and not video_description.right({"open"}, {"open", "sit"})
    assert video_description.right({"open"}, {"open", "sit"}, any_of=True)
    assert verb_completion.at_least({"open", "sit"}, {"open"}) and not verb_completion.at_least(
        {"open"}, {"open", "sit"}
    )
    assert verb_completion.at_least(set(), set()) and not verb_completion.at_least({"open"}, set())
    rules = (verb_completion.right, action_recognition.right, video_description.right)
    assert not any(right(named, set()) for right in rules for named in (set(), {"open"}))


def test_the_mask_of_real_queries_hides_every_verb(real_data):
    for line in real_data("annotations/charades-sta/charades_sta_test.txt").read_text().splitlines()[::20]:
        query = line.split("##")[1]
        verbs, done = sampler_verbs(STANDIN(query)), annotated(query)
        if verbs:
            assert done.masked.count(GAP) == len(verbs)
            assert len(done.masked) == len(query) - sum(v.end - v.start - len(GAP) for v in verbs)


def test_every_query_of_the_mini_data_has_its_own_action(tmp_path):
    """Masked queries and true verbs of drawn data, against what was drawn."""
    from tvg.datasets.mini import ONE, SUBJECTS, TWO, VERBS

    for who in SUBJECTS:
        for a in VERBS.values():
            for tail in a.tails:
                for form in ONE:
                    text = form.format(who=who, a=a, more_a=tail)
                    assert annotated(text).verbs == (a.plain,), text
            for b in VERBS.values():
                for form in TWO:
                    text = form.format(who=who, a=a, b=b, more_a=a.tails[0], more_b=b.tails[-1])
                    assert annotated(text).verbs == tuple(dict.fromkeys((a.plain, b.plain))), text


def test_gold_queries_lose_only_catenatives(real_data):
    """What the sampler leaves out governs another labelled verb."""
    for line in real_data("verbs/tvg_queries_gold_dev.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        verbs = STANDIN(text)
        assert not verbs or sampler_verbs(verbs) or all(verb.lemma == "be" for verb in verbs), text
