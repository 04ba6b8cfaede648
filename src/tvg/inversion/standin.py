"""The offline verb back-end: a tagger, a word list (lexicon.py), and rules for what the tagger mistakes.

The tags are of CLAWS5's kind (VV* lexical verb, VB*/VD*/VH* be/do/have, NN* noun, AJ* adjective, PNP pronoun, ...).
The rules answer to three habits of query writers: no article ("person opens door"), no agreement ("person turn on a
light"), and -ing forms that the tagger knows as nouns.
"""

import re
from collections.abc import Iterator
from itertools import zip_longest

from tvg.inversion.lexicon import lemma_of, parts_of, tagger
from tvg.inversion.verbs import CATENATIVES, VERSIONS, Verb, mark_catenatives

WORD = re.compile(
    r"(?<!\S)\S*(?:://|@|www\.|\.com\b)\S*"  # an address is no sentence
    r"|can(?=not\b)|\w+?(?=n['’]t\b)|n['’]t\b|['’](?:s|ll|re|ve|d|m)\b"  # contractions, as the tagger splits them
    r"|[^\W_]+(?:-[^\W_]+)*|[^\w\s]",
    re.IGNORECASE,
)
LONGEST = 30  # letters that the tagger is shown: its time grows with their square, and answers can be one endless word
GLUED = ("person", "is")  # "personlaying", "isdrinking"
HE = frozenset(("person", "man", "woman", "boy", "girl", "guy", "lady", "child", "kid", "gentleman"))
THEY = frozenset(("people", "persons", "men", "women", "boys", "girls", "guys", "ladies", "children", "kids"))
LEADING = frozenset(("a", "an", "the", "another", "one", "this", "that", "two", "three"))

ADVERBS = ("AV0", "XX0")
DETERMINERS = ("AT0", "DPS", "DT0", "CRD", "ORD", "POS", "PRF")
NOMINAL = ("NN", "AJ", "UN", "NP")
OBJECTS = ("AT0", "DPS", "PNP", "PNI", "DT0", "CRD", "NN", "AVP", "PRP")  # what may stand right after a verb
PARTICIPLES = ("VVN", "VHN", "VBN", "VDN", "VVD", "VHD")
INFINITIVES = ("VVI", "VHI", "VBI", "VDI", "VVB")
SUBJECTS = ("PNP", "PNI", "AT0", "DPS", "NN1", "NN2", "NP0", "AJ0")  # between "does" and its verb in a question


class StandIn:
    """Verbs without a download. Precision, recall: 0.99, 0.99 on labelled grounding queries; 0.95, 0.92 on UD EWT."""

    name, version = "standin", VERSIONS["standin"]

    def __call__(self, text: str) -> list[Verb]:
        places = list(_words(text))
        sentence = _Sentence([text[start:end] for start, end in places])
        found = [Verb(lemma_of(sentence.words[i], sentence.tags[i]), *places[i]) for i in sentence.verbs()]
        return mark_catenatives(text, found)

    def lemma(self, word: str) -> str:
        """The lemma of one word, read as a verb: by the likeliest verb form if it can be several ("lay", "saw")."""
        word = word.lower()
        tags = [tag for tag, _ in tagger().tag_word(word[:LONGEST]) if tag.startswith("VV")]
        return lemma_of(word, tags[0] if tags else "VVZ")


def _words(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every word and mark."""
    for match in WORD.finditer(text):
        start, end = match.span()
        word = match[0].lower()
        for glued in GLUED:
            if word.startswith(glued) and not parts_of(word) and "verb" in parts_of(word[len(glued) :]):
                yield start, start + len(glued)
                start += len(glued)
                break
        yield start, end


def _tags(words: list[str]) -> list[str]:
    """One tag a word. The tagger sees "he" for "a person": after a pronoun it expects a verb, after a noun a noun."""
    shown, places = [], []
    for i, (word, after) in enumerate(zip_longest(words, words[1:], fillvalue="")):
        if word.lower() in LEADING and after.lower() in HE | THEY:
            places.append(None)
            continue
        places.append(len(shown))
        if word.lower() in THEY or (i == 0 and word.lower() in HE):  # "person turn on": agrees with nothing
            shown.append("they")
        else:
            shown.append("he" if word.lower() in HE else word.replace("’", "'")[:LONGEST])
    tags = [tag for _, _, tag in tagger().tag_sent(shown)] if shown else []
    return ["AT0" if place is None else tags[place] for place in places]


class _Sentence:
    def __init__(self, words: list[str]):
        self.words = [word.lower().replace("’", "'") for word in words]
        self.tags = _tags(words)

    def verbs(self) -> list[int]:
        """Which words are lexical verbs; if none and nothing else is finite, the likeliest one."""
        found = [i for i in range(len(self.words)) if self._is_verb(i)]
        if found or any(tag.startswith("VB") for tag in self.tags):
            return found
        return [i for i in range(len(self.words)) if self._could_be_verb(i)][:1]

    def _tag(self, i: int) -> str:
        return self.tags[i] if 0 <= i < len(self.tags) else ""

    def _step(self, i: int, by: int, over: tuple[str, ...] = ADVERBS) -> int:
        """The next place in direction `by` whose tag is not one to step over."""
        i += by
        while self._tag(i) in over:
            i += by
        return i

    def _is_verb(self, i: int) -> bool:
        word, tag, parts = self.words[i], self.tags[i], parts_of(self.words[i])
        if tag.startswith("VB"):
            return "EX0" in (self._tag(self._step(i, -1, (*ADVERBS, "VM0"))), self._tag(i + 1))  # "there is"
        if tag.startswith("VH"):
            return self._tag(self._step(i, 1, (*ADVERBS, "PNP"))) not in PARTICIPLES
        if tag in ("VDB", "VDD", "VDZ"):
            helped = self._tag(self._step(i, 1, (*ADVERBS, *SUBJECTS)))
            return self._tag(i + 1) != "XX0" and helped not in INFINITIVES
        if tag.startswith("VD") or word in ("doing", "having"):
            return True
        if tag.startswith(NOMINAL) and word.endswith("ing"):
            return self._is_governed(i) or self._is_gerund(i)
        if parts and "verb" not in parts:
            return False
        if tag.startswith("VV"):
            return not (tag in ("VVB", "VVI") and self._tag(i - 1) in ("AT0", "DPS", "PRF", "POS"))
        if tag == "PRP":
            return word.endswith("ing") and "verb" in parts  # "following a path"
        return bool(parts) and tag.startswith(NOMINAL) and (self._is_governed(i) or self._is_predicate(i))

    def _is_governed(self, i: int) -> bool:
        """ "starts closing", "begins to chug"."""
        before = self._step(i, -1)
        form = "to" if self._tag(before) and self.words[before] == "to" else "ing"
        before = self._step(before, -1) if form == "to" else before
        governs = CATENATIVES.get(lemma_of(self.words[before], "VVZ"), ()) if self._tag(before).startswith("VV") else ()
        return form in governs and self.words[i].endswith("ing") == (form == "ing")

    def _is_gerund(self, i: int) -> bool:
        """An -ing form that the tagger took for a noun or an adjective: is it what somebody does?"""
        word, tag, before = self.words[i], self.tags[i], self._step(i, -1)
        if "verb" not in parts_of(word):
            derived = not parts_of(word) or bool(parts_of(word.removesuffix("ing")))  # "are snowboarding"
            return derived and self._tag(before).startswith("VB")
        if self._tag(before).startswith("VB") or self._tag(before) == "PNP":
            return "adj" not in parts_of(word) or self._tag(i + 1).startswith(OBJECTS)
        if tag == "AJ0" or self._tag(i - 1) in (*DETERMINERS, "AJ0"):
            return False
        if self._tag(before) == "PRP":
            return not self._tag(i + 1).startswith("NN")
        if "noun" not in parts_of(word):
            return True
        chained = self._tag(before).startswith("VV") and self.words[before].endswith("ing")  # "laughing holding food"
        return chained and "VVG" in dict(tagger().tag_word(word[:LONGEST]))

    def _is_predicate(self, i: int) -> bool:
        """Something tagged as a noun that has an object ("team scores a goal") or a subject ("he dresses")."""
        before = self._tag(i - 1)
        coordinated = before == "CJC" and self._tag(i - 2).startswith(("AV", "PNP", "V"))  # "stands up and waves"
        if self._tag(i) == "NN2" and (coordinated or self.words[i - 1 : i] == ["then"]):
            return True
        if not self._tag(i).startswith("NN") or not before.startswith(("PN", "NN", "CJC", "AV", "PUN")):
            return False
        if self._tag(i + 1) in ("AT0", "DPS") and (self._tag(i) == "NN2" or not before.startswith("NN")):
            return True
        alone = before in ("PNP", "PNI") and not self._tag(i + 1).startswith("V")  # not "the boy scout talks"
        return alone and not self._tag(self._step(i - 1, -1, ("AT0", "PNP"))).startswith(("V", "PR"))

    def _could_be_verb(self, i: int) -> bool:
        after = self._tag(i + 1)
        if "verb" not in parts_of(self.words[i]) or not (after == "" or after.startswith(("PU", "AV", *OBJECTS))):
            return False
        if i == 0:
            return tagger().tag_sent(["they", *(word[:LONGEST] for word in self.words)])[1][2].startswith("VV")
        subject = self._tag(i - 1).startswith(("NN", "PN", "DT0", "AV"))
        stray_article = i == 2 and self.words[0] in HE  # "person the open the door"
        adjective = self._tag(i - 1) == "AJ0" and "noun" in parts_of(self.words[i - 1])  # "the square flashes"
        return stray_article or (self.tags[i].startswith("NN") and subject) or (self.tags[i] == "NN2" and adjective)
