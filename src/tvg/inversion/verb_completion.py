"""Verb completion (VC). Asked: the verbs that are left out of a query. True: exactly the query's verbs."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from tvg.inversion.verbs import Verb
from tvg.sample import GAP


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


def at_least(named: AbstractSet[str], truth: AbstractSet[str]) -> bool:
    """The released code's rule: every true lemma is named, more are free; an empty truth wants none at all."""
    return truth <= named if truth else not named
