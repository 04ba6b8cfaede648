"""Words behind the offline verb back-end: HanTa's tagger and lemminflect's list of forms, both inside their wheels."""

import csv
import gzip
import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tvg.errors import TvgError

PACKAGES = {"HanTa": "1.2.1", "lemminflect": "0.2.3"}
CONTRACTED = {"'ve": "have", "'d": "have", "'s": "be", "'re": "be", "'m": "be"}


def check_installed() -> None:
    """Raises TvgError unless the very packages are there whose output the version of this back-end stands for."""
    for package, wanted in PACKAGES.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            raise TvgError(
                "verbs: standin",
                f"needs the package {package}",
                got=found,
                expected=wanted,
                hint=f"pip install {package}=={wanted}",
            )


@lru_cache
def tagger() -> Any:
    """HanTa's English tagger."""
    from HanTa import HanoverTagger

    model = Path(HanoverTagger.__file__).with_name("morphmodel_en.pgz")  # a bare name looks in the working folder first
    return HanoverTagger.HanoverTagger(str(model))


@lru_cache
def _forms() -> dict[str, dict[str, tuple[str, ...]]]:
    """form -> part of speech -> lemmas, likeliest first. Read as a file: its package imports spaCy and torch."""
    folder = Path(find_spec("lemminflect").submodule_search_locations[0])
    forms: dict[str, dict[str, tuple[str, ...]]] = {}
    with gzip.open(folder / "resources" / "lemma_lu.csv.gz", "rt", encoding="utf-8") as lines:
        for form, part, lemmas in csv.reader(lines):
            forms.setdefault(form, {})[part] = tuple(lemmas.split("/"))
    return forms


def parts_of(word: str) -> dict[str, tuple[str, ...]]:
    """part of speech (verb, noun, adj, adv, ...) -> lemmas of a form in lower case; empty if it is not listed."""
    return _forms().get(word, {})


def lemma_of(word: str, tag: str) -> str:
    """The lemma of a verb form in lower case; a base form ("lay") is its own, a past one is not."""
    word = CONTRACTED.get(word, word)
    lemmas = parts_of(word).get("verb")
    if lemmas is None:
        return _regular(word)
    if word in lemmas and tag in ("VVI", "VVB"):
        return word
    return next((lemma for lemma in lemmas if lemma != word), word) if tag != "VVZ" else lemmas[0]


def _regular(word: str) -> str:
    """An unlisted or misspelt form by the regular endings, towards a listed verb where there is one."""
    match = re.fullmatch(r"(\w{2,}?)(ies|ied|es|s|ed|ing)", word)
    if not match:
        return word
    stem, ending = match.groups()
    single = re.sub(r"(.)\1$", r"\1", stem)
    guesses = [stem + "y"] if ending in ("ies", "ied") else [stem, stem + "e", single, single + "e"]
    return next((guess for guess in guesses if guess in parts_of(guess).get("verb", ())), guesses[0])
