"""Tables of an overview, whose last column wraps, and quantities as a person reads them."""

import textwrap
from collections.abc import Iterable, Sequence

from tvg.overview.text import WIDTH

GAP = "  "
UNKNOWN = "unknown"
LEAST_LAST = 24  # columns that the wrapped one always gets


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int = WIDTH) -> list[str]:
    """Lines of at most `width` columns; the last column wraps, unless the others leave it no room."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head) - 1)]
    before = sum(widths) + len(GAP) * len(widths)
    lines = []
    for row in cells:
        first = "".join(cell.ljust(wide) + GAP for cell, wide in zip(row, widths, strict=False))
        wrapped = textwrap.wrap(
            row[-1], max(LEAST_LAST, width - before), break_long_words=False, break_on_hyphens=False
        )
        lines += [(first + (wrapped or [""])[0]).rstrip(), *(" " * before + line for line in wrapped[1:])]
    return lines


def duration(seconds: float | None) -> str:
    """Seconds as `45 s`, `12 min`, `3.4 h` or `1,240 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def between(low: float | None, high: float | None) -> str:
    """A duration, or the two ends of one: `12 to 40 h`; `≤ 40 h` where nothing is known of the low end."""
    if low is None or high is None:
        return UNKNOWN
    if low == 0 < high:
        return f"≤ {duration(high)}"
    ends = duration(low), duration(high)
    if ends[0] == ends[1]:
        return ends[0]
    (least, unit), (most, other) = (end.rsplit(" ", 1) for end in ends)
    return f"{least} to {most} {unit}" if unit == other else f"{ends[0]} to {ends[1]}"


def size(count: float | None) -> str:
    """Bytes as `0.4 MB`, `13 GB`: decimal units, as disks are sold."""
    if count is None:
        return UNKNOWN
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)):  # noqa: B007 - the last one that fits
        if count < 1000 * factor:
            break
    rounded = count / factor
    return f"{rounded:.1f} {unit}" if 0 < rounded < 10 else f"{rounded:.0f} {unit}"


def amount(count: float) -> str:
    """A count as `1.26 million`, `3.75 billion`."""
    for unit, factor in (("billion", 1e9), ("million", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:,.0f}"


def number(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def several(count: int, one: str, many: str | None = None) -> str:
    """`1 arm`, `3 arms`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
