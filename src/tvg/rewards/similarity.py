"""How alike two verbs are, for the verbs' reward: by word vectors (`match: cosine`), by synonyms (`match: synonym`).

The paper does not name its embedding (systems.md 8, row 14). Ours is a table of hand-written features, so that the
reward needs no download and can be read: similarity("run", "eat") is 0.13 where the paper quotes 0.2. Synonyms are ours
alone: two verbs are synonyms where a second table has them in one line. A cosine could not tell them from opposites,
which differ in a direction and share all else.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path

from tvg.errors import TvgError

TABLE = Path(__file__).with_name("verb_features.tsv")
SHA256 = "d40b231ea2d5d189f735606fd7aedebc55ffb94d702728c618515b7bb3064dd2"
SYNONYMS = Path(__file__).with_name("verb_synonyms.tsv")
SYNONYMS_SHA256 = "3cca1fbbf5b13a8f7342b57a27da4eaf41cf44fa2fda4147c37314ebdcf935cb"
Vector = dict[str, float]


def similarity(a: str, b: str) -> float:
    """Cosine of two lemmas' vectors, in [0, 1]; 0 if either is not in the table, even for a word with itself."""
    left, right = vectors().get(a), vectors().get(b)
    if left is None or right is None:
        return 0.0
    if left == right:
        return 1.0
    dot = sum(weight * right.get(feature, 0.0) for feature, weight in left.items())
    return min(1.0, dot / (math.hypot(*left.values()) * math.hypot(*right.values())))


@lru_cache
def vectors(table: Path = TABLE) -> dict[str, Vector]:
    """verb -> feature -> weight. Raises TvgError if the file is not the one that this code was released with."""
    return {verb: dict(map(_weighted, features.split())) for verb, features in _rows(table, SHA256)}


def meaning(lemma: str) -> str:
    """The verb that stands for a lemma and all its synonyms: two lemmas are synonyms if it is the same for both.

    >>> meaning("shut"), meaning("close"), meaning("open")
    ('close', 'close', 'open')
    """
    return synonyms().get(lemma, lemma)


@lru_cache
def synonyms(table: Path = SYNONYMS) -> dict[str, str]:
    """verb -> the one that stands for it, for verbs with synonyms. Raises TvgError as `vectors` does."""
    return {verb: first for first, others in _rows(table, SYNONYMS_SHA256) for verb in (first, *others.split())}


def _rows(table: Path, sha256: str) -> list[list[str]]:
    content = table.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise TvgError(
            table,
            "not the table that this code was released with",
            got=found,
            expected=sha256,
            hint="restore the file; a changed table is a new sha256 and a new version of the reward `verbs`",
        )
    return [line.split("\t") for line in content.decode().splitlines() if not line.startswith("#")]


def _weighted(feature: str) -> tuple[str, float]:
    """`legs` or `legs:2`."""
    name, _, weight = feature.partition(":")
    return name, float(weight or 1)
