"""The verbs of a sentence, by a back-end that the scale names: `spacy_sm` (the papers') or `standin` (offline).

Extracted is every lexical verb, catenatives (begin, start, try, ...) included and auxiliaries not. Leaving out the
catenatives is the inversion sampler's business (`sampler_verbs`): "begins to eat" is an event of eating.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple, Protocol

from tvg.errors import TvgError

VERSIONS = {"spacy_sm": 1, "standin": 1}  # part of specs; bump one when its verbs change
SPACY_MODEL, SPACY_MODEL_VERSION = "en_core_web_sm", "3.8.0"  # Invert4TVG, paper
WHEEL = (
    "https://github.com/explosion/spacy-models/releases/download/"
    f"{SPACY_MODEL}-{SPACY_MODEL_VERSION}/{SPACY_MODEL}-{SPACY_MODEL_VERSION}-py3-none-any.whl"
)

# Which form of a following verb each one governs. Not here: verbs that are an action of their own (go to open).
CATENATIVES = {
    **dict.fromkeys(("begin", "start", "continue", "try", "attempt", "proceed"), ("to", "ing")),
    **dict.fromkeys(("stop", "finish", "keep", "quit", "resume", "end"), ("ing",)),
    **dict.fromkeys(("want", "need", "have", "manage", "prepare", "seem", "appear"), ("to",)),
}
SEEN = re.compile(r"seen|shown", re.IGNORECASE)  # "is seen walking": the passive governs as well
GAP = re.compile(
    r"\s+(?:(?:up|on|out|off|by|both|again|then|now|\w+ly)\s+)*(?P<to>to\s+)?(?:be\s+)?(?P<being>being\s+)?(?:\w+ly\s+)*",
    re.IGNORECASE,
)


class Verb(NamedTuple):
    """A verb of a text. start, end: character offsets. catenative: governs the next verb, or only says "there is"."""

    lemma: str
    start: int
    end: int
    catenative: bool = False


class Extractor(Protocol):
    """A back-end: the verbs of a text in order, and a single word's lemma if it is read as a verb."""

    name: str
    version: int

    def __call__(self, text: str) -> list[Verb]: ...

    def lemma(self, word: str) -> str: ...


def extractor(name: str) -> Extractor:
    """The back-end of that name, never another one. Raises TvgError if it is unknown or its data is not installed."""
    if name not in BACKENDS:
        raise TvgError(
            "verbs",
            "no such back-end",
            got=name,
            expected=" or ".join(BACKENDS),
            hint="`standin` needs no download, `spacy_sm` is the papers'",
        )
    return BACKENDS[name]()


def sampler_verbs(verbs: Iterable[Verb]) -> list[Verb]:
    """The verbs that an inversion task is about (systems.md 8, row 12)."""
    return [verb for verb in verbs if not verb.catenative]


def mark_catenatives(text: str, verbs: Sequence[Verb]) -> list[Verb]:
    """The same verbs, flagged where they govern the next one; the "be" of "there is a person" is always flagged."""
    return [
        verb._replace(catenative=verb.lemma == "be" or (after is not None and _governs(text, verb, after)))
        for verb, after in zip_longest(verbs, verbs[1:])
    ]


def _governs(text: str, verb: Verb, after: Verb) -> bool:
    forms = ("to", "ing") if SEEN.fullmatch(text[verb.start : verb.end]) else CATENATIVES.get(verb.lemma, ())
    between = GAP.fullmatch(text[verb.end : after.start])
    if not forms or between is None:
        return False
    if between["to"]:
        return "to" in forms
    return "ing" in forms and (between["being"] is not None or text[after.start : after.end].lower().endswith("ing"))


class SpacySm:
    """spaCy's small English model: part of speech VERB, not an auxiliary by its dependency (released code)."""

    name, version = "spacy_sm", VERSIONS["spacy_sm"]
    subject = re.compile(r"person\b", re.IGNORECASE)

    def __init__(self, pipeline: Callable):
        self.pipeline = pipeline

    def __call__(self, text: str) -> list[Verb]:
        found = self._verbs(text)
        if not found and self.subject.match(text):
            # "person turn on a light" reads as a noun phrase; "they" has room for the same offsets
            found = self._verbs("they  " + text[len("person") :])
        return mark_catenatives(text, found)

    def _verbs(self, text: str) -> list[Verb]:
        return [
            Verb(token.lemma_.lower(), token.idx, token.idx + len(token.text))
            for token in self.pipeline(text)
            if token.pos_ == "VERB" and token.dep_ not in ("aux", "auxpass")
        ]

    def lemma(self, word: str) -> str:
        from spacy.tokens import Doc

        doc = Doc(self.pipeline.vocab, words=[word.lower()], pos=["VERB"])
        return self.pipeline.get_pipe("lemmatizer")(doc)[0].lemma_


@lru_cache
def _spacy_sm() -> Extractor:
    try:
        import spacy

        pipeline = spacy.load(SPACY_MODEL)
    except (ImportError, OSError) as error:
        raise _no_model("is not installed", "nothing") from error
    if pipeline.meta["version"] != SPACY_MODEL_VERSION:
        raise _no_model("has another version", pipeline.meta["version"])
    return SpacySm(pipeline)


def _no_model(what: str, got: str) -> TvgError:
    return TvgError(
        "verbs: spacy_sm",
        f"the model {SPACY_MODEL} {what}",
        got=got,
        expected=f"version {SPACY_MODEL_VERSION}",
        hint=f"python -m spacy download {SPACY_MODEL}, or pip install {WHEEL}; or `verbs: standin` in the scale",
    )


@lru_cache
def _standin() -> Extractor:
    from tvg.inversion.lexicon import check_installed
    from tvg.inversion.standin import StandIn

    check_installed()
    return StandIn()


BACKENDS: dict[str, Callable[[], Extractor]] = {"spacy_sm": _spacy_sm, "standin": _standin}
