"""Action recognition (AR). Asked: one verb for the event. True: any of the query's verbs."""

from collections.abc import Set as AbstractSet


def right(named: AbstractSet[str], truth: AbstractSet[str]) -> bool:
    """One verb was asked for: an answer with two is wrong, whatever they are."""
    return len(named) == 1 and named <= truth
