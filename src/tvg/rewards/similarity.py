"""How alike two verbs are: the cosine of fixed word vectors, for the verbs' reward with `match: cosine`.

The paper does not name its embedding (systems.md 8, row 14). Ours is a table of hand-written features, so that the
reward needs no download and can be read: sim(run, eat) is 0.13 where the paper quotes 0.2.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path

from tvg.errors import TvgError

TABLE = Path(__file__).with_name("verb_features.tsv")
SHA256 = "d40b231ea2d5d189f735606fd7aedebc55ffb94d702728c618515b7bb3064dd2"
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
    content = table.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise TvgError(
            table,
            "not the table of word vectors that this code was released with",
            got=found,
            expected=SHA256,
            hint="restore the file; a changed table is a new SHA256 and a new version of the reward `verbs`",
        )
    rows = (line.split("\t") for line in content.decode().splitlines() if not line.startswith("#"))
    return {verb: dict(map(_weighted, features.split())) for verb, features in rows}


def _weighted(feature: str) -> tuple[str, float]:
    """`legs` or `legs:2`."""
    name, _, weight = feature.partition(":")
    return name, float(weight or 1)
