"""Which process works on which prompts of a step: equally many each, and about equally much."""

from collections.abc import Callable, Sequence


def shares(work: Sequence[float], count: int) -> list[list[int]]:
    """Divide the items 0 .. len(work) - 1 among `count` processes, equally many each; `count` must divide them.

    The largest `count` items go one to each, then the next largest, the largest always to whoever has least so far. So
    the processes' work differs by no more than the largest item and the smallest, and so do their k-th items
    each time, where they wait for each other.

    >>> shares([9, 1, 5, 4], 2)
    [[0, 1], [2, 3]]
    """
    falling = sorted(range(len(work)), key=lambda item: -work[item])
    held: list[list[int]] = [[] for _ in range(count)]
    load = [0.0] * count
    for first in range(0, len(falling), count):
        ascending = sorted(range(count), key=load.__getitem__)
        for item, process in zip(falling[first : first + count], ascending, strict=True):
            held[process].append(item)
            load[process] += work[item]
    return held


def turns(end: int, step: int, count: int, work: Callable[[int], float]) -> list[list[int]]:
    """The positions of a schedule that each process works on, in its order. step: positions of an optimiser step.

    Every step holds the positions that it holds in one process, where their order is the schedule's.
    """
    if count == 1:
        return [list(range(end))]
    of: list[list[int]] = [[] for _ in range(count)]
    for first in range(0, end, step):
        positions = range(first, min(first + step, end))
        for process, items in enumerate(shares([work(position) for position in positions], count)):
            of[process] += [positions[item] for item in items]
    return of


def dealt(of: Sequence[Sequence[int]], at_once: int) -> list[int]:
    """The rows of a data set from which the library deals `at_once` to each process in turn: each then gets its own.

    >>> dealt([[0, 3, 4, 7], [1, 2, 5, 6]], at_once=2)
    [0, 3, 1, 2, 4, 7, 5, 6]
    """
    starts = range(0, len(of[0]), at_once)
    return [position for first in starts for turn in of for position in turn[first : first + at_once]]
