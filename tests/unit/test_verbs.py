"""Verb back-ends: quality on gold labels, the wording of grounding queries, and texts that are no sentences."""

import json
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.unit.golden import check_golden
from tvg.errors import TvgError
from tvg.inversion import lexicon
from tvg.inversion.verbs import BACKENDS, VERSIONS, SpacySm, Verb, extractor, mark_catenatives, sampler_verbs

STANDIN = extractor("standin")
SENTENCES = {
    "person opens the door": ["open"],
    "person open the door": ["open"],
    "person opening door": ["open"],
    "person turn off a lamp": ["turn"],
    "person drinks from a mug": ["drink"],
    "person close the laptop": ["close"],
    "person start sneezing": ["start", "sneeze"],
    "a person dresses by the mirror": ["dress"],
    "person they are both smiling": ["smile"],
    "person sneezing into a pillow": ["sneeze"],
    "a person is standing at the stove cooking": ["stand", "cook"],
    "a sneezing person takes medicine": ["take"],
    "person walks into the living room": ["walk"],
    "a person puts clothing into the washing machine": ["put"],
    "personlaying on the sofa": ["lay"],
    "person isdrinking coffee": ["drink"],
    "person is puting a cup down": ["put"],
    "the square flashes": ["flash"],
    "a tall figure waves": ["wave"],
    "the black team scores a goal": ["score"],
    "A man is water skiing behind a boat": ["ski"],
    "Two women are surfboarding": ["surfboard"],
    "A dog following a boy runs home": ["follow", "run"],
    "The lady doesn't like it and leaves": ["like", "leave"],
    "The lady doesn’t like it": ["like"],
    "They have put the box down": ["put"],
    "She has a dog": ["have"],
    "He does a handstand": ["do"],
    "Does the man run?": ["run"],
    "There are two men playing chess": ["be", "play"],
    "They are in a kitchen": [],
    "It cannot be moved": ["move"],
    "a red chair": [],
    "sit down": ["sit"],
    "to jump": ["jump"],
    "a person stands up and waves at the camera": ["stand", "wave"],
    "she picks up plates and cups": ["pick"],
    "see https://example.com/run": ["see"],
}


def lemmas(text):
    return [verb.lemma for verb in STANDIN(text)]


def quality(rows, optional=()):
    """(precision, recall) over verbs as (sentence, lemma) counts; debatable verbs count neither way."""
    hits = extra = missed = 0
    for text, gold, free in rows:
        found, true = Counter(lemmas(text)), Counter(gold)
        hits += (found & true).total()
        extra += ((found - true) - Counter(free)).total()
        missed += (true - found).total()
    return hits / (hits + extra), hits / (hits + missed)


def test_quality_on_labelled_queries(real_data):
    rows = [json.loads(line) for line in real_data("verbs/tvg_queries_gold_dev.jsonl").read_text().splitlines()]
    precision, recall = quality((row["text"], row["verbs"], row["optional"]) for row in rows)
    assert precision >= 0.97 and recall >= 0.97


def test_quality_on_any_english(real_data):
    rows = [json.loads(line) for line in real_data("verbs/ud_ewt_dev_gold.jsonl").read_text().splitlines()]
    precision, recall = quality((row["text"], [verb["lemma"].lower() for verb in row["verbs"]], ()) for row in rows)
    assert precision >= 0.94 and recall >= 0.91


@pytest.mark.parametrize(("text", "expected"), SENTENCES.items())
def test_sentences(text, expected):
    assert lemmas(text) == expected


@pytest.mark.parametrize(
    ("word", "lemma"),
    [("run", "run"), ("Running", "run"), ("ran", "run"), ("closes", "close"), ("puting", "put"), ("lying", "lie"),
     ("saw", "see"), ("found", "find"), ("drink", "drink"), ("tidies", "tidy"), ("closing", "close"), ("door", "door")],
)  # fmt: skip
def test_one_word_is_read_as_a_verb(word, lemma):
    """Whatever a tagger would call it: "drink" alone is a noun to most."""
    assert STANDIN.lemma(word) == lemma


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("person begins to eat", ["eat"]),
        ("person starts quickly running away", ["run"]),
        ("person tried to close the window", ["close"]),
        ("the person stops cooking to drink", ["cook", "drink"]),
        ("he keeps on walking", ["walk"]),
        ("they continue to start dancing", ["dance"]),
        ("a man is seen sitting on a bench", ["sit"]),
        ("a fire starts being put out", ["put"]),
        ("he ends by bowing", ["bow"]),
        ("there is a person eating", ["eat"]),
        ("they begin a dance and sit", ["begin", "sit"]),  # governs no verb: it is the action
        ("he stops to look", ["stop", "look"]),  # stopping is an action of its own
        ("person goes to open the door", ["go", "open"]),
        ("we see a man running", ["see", "run"]),
        ("a man starts and he runs", ["start", "run"]),
    ],
)
def test_the_sampler_leaves_out_what_governs_another_verb(text, left):
    verbs = STANDIN(text)
    assert [verb.lemma for verb in sampler_verbs(verbs)] == left
    assert len(verbs) >= len(left)


@given(st.text(max_size=60))
def test_any_text_is_read_without_complaint(text):
    check_places(text)


@given(st.lists(st.sampled_from([*" ".join(SENTENCES).split(), ",", ".", "\n", "🙂", "İ", "n't", "'s"]), max_size=20))
def test_any_order_of_words_is_read_without_complaint(words):
    check_places(" ".join(words))


def check_places(text):
    verbs = STANDIN(text)
    assert verbs == STANDIN(text)
    for verb, after in zip(verbs, [*verbs[1:], None], strict=False):
        assert 0 <= verb.start < verb.end <= len(text)
        assert verb.lemma and verb.lemma == verb.lemma.lower()
        assert after is None or verb.end <= after.start


@pytest.mark.parametrize("text", ["a" * 5000, "<answer>" * 500, "!" * 4000, "http" * 1000, "x@" * 1000, "n't " * 400])
def test_a_runaway_answer_takes_no_time(text):
    start = time.perf_counter()
    STANDIN(text)
    STANDIN.lemma(text)
    assert time.perf_counter() - start < 2.0


def test_standin_loads_neither_spacy_nor_torch():
    code = (
        "import sys; from tvg.inversion.verbs import extractor; extractor('standin')('person sits'); "
        "print(sorted({'torch', 'spacy', 'lemminflect'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO / "src")
    assert out.stdout.strip() == "[]"


# ---------------------------------------------------------------- back-ends


def test_backends_say_who_they_are():
    assert set(BACKENDS) == set(VERSIONS)
    assert (STANDIN.name, STANDIN.version) == ("standin", VERSIONS["standin"])


def test_an_unknown_backend_is_an_error():
    with pytest.raises(TvgError, match="no such back-end"):
        extractor("spacy_lg")


def test_spacy_sm_is_the_model_or_an_error_never_something_else():
    try:
        backend = extractor("spacy_sm")
    except TvgError as error:
        assert "spacy download en_core_web_sm" in str(error) or "has another version" in str(error)
    else:
        assert backend.name == "spacy_sm"
        assert [verb.lemma for verb in backend("The man is opening a door.")] == ["open"]


def test_standin_refuses_other_packages(monkeypatch):
    monkeypatch.setitem(lexicon.PACKAGES, "HanTa", "0.0")
    with pytest.raises(TvgError, match=r"HanTa==0\.0"):
        lexicon.check_installed()


@pytest.fixture(scope="module")
def pipeline():
    """A real spaCy pipeline around a word list, in place of the model's weights; its lemmatizer is the library's."""
    spacy = pytest.importorskip("spacy")
    from spacy.language import Language
    from spacy.lookups import Lookups

    @Language.component("tag_by_list")
    def tag_by_list(doc):
        after_pronoun = False
        for token in doc:
            tag = {"is": "AUX", "opens": "VERB", "running": "VERB", "turn": "VERB" if after_pronoun else "NOUN"}
            token.pos_ = tag.get(token.text, "NOUN")
            token.dep_ = "aux" if token.text == "had" else "ROOT"
            after_pronoun = token.text == "they" or (after_pronoun and token.is_space)
        return doc

    nlp = spacy.blank("en")
    nlp.add_pipe("tag_by_list")
    tables = Lookups()
    tables.add_table("lemma_rules", {"verb": [["s", ""], ["ning", "n"], ["ning", ""]]})
    tables.add_table("lemma_index", {"verb": ["open", "run", "turn"]})
    tables.add_table("lemma_exc", {"verb": {"ran": ["run"], "running": ["run"]}})
    nlp.add_pipe("lemmatizer", config={"mode": "rule"}).initialize(lookups=tables)
    return nlp


def test_spacy_takes_verbs_and_no_auxiliaries(pipeline):
    assert SpacySm(pipeline)("person opens it and is running") == [Verb("open", 7, 12), Verb("run", 23, 30)]


def test_spacy_reads_a_bare_person_as_they_if_it_finds_no_verb(pipeline):
    assert SpacySm(pipeline)("person turn on a light") == [Verb("turn", 7, 11)]
    assert SpacySm(pipeline)("the turn of a light") == []


def test_spacy_lemmatises_one_word_as_a_verb(pipeline):
    assert [SpacySm(pipeline).lemma(word) for word in ("ran", "Running", "opens", "turn")] == [
        "run",
        "run",
        "open",
        "turn",
    ]


def test_catenatives_are_the_same_for_every_backend():
    text = "begins to eat"
    assert mark_catenatives(text, [Verb("begin", 0, 6), Verb("eat", 10, 13)])[0].catenative
    assert not mark_catenatives(text, [Verb("begin", 0, 6)])[0].catenative
    assert mark_catenatives(text, []) == []


def test_version():
    words = ("run", "saw", "lay", "found", "closing", "tidies", "puting", "door")
    outcome = [[text, STANDIN(text)] for text in SENTENCES] + [STANDIN.lemma(word) for word in words]
    check_golden("verbs.standin", STANDIN.version, outcome)
