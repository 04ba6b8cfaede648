"""Verb completion (VC). Asked: fill the gaps of `Person [] the door`. True: exactly the verbs that were masked."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from tvg.inversion.verbs import Verb

GAP = "[]"


def mask(query: str, verbs: Sequence[Verb]) -> str:
    """The query with a gap for each verb, all of them (systems.md 8, row 10).

    >>> mask("person opens the door", [Verb("open", 7, 12)])
    'person [] the door'
    """
    for verb in sorted(verbs, key=lambda verb: verb.start, reverse=True):
        query = query[: verb.start] + GAP + query[verb.end :]
    return query


def right(named: AbstractSet[str], truth: AbstractSet[str]) -> bool:
    """Equal sets of lemmas, so that naming more verbs buys nothing; an empty truth is never right."""
    return bool(truth) and named == truth
