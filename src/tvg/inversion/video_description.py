"""Video description (VD). Asked: what have people done. True: a description that says every verb of the query."""

from collections.abc import Set as AbstractSet


def right(named: AbstractSet[str], truth: AbstractSet[str], any_of: bool = False) -> bool:
    """Every true lemma is named, or with `any_of` one of them; other verbs are free. An empty truth is never right."""
    return bool(named & truth) if any_of else bool(truth) and truth <= named
