"""Plain text that is Markdown too, at most 100 columns wide: pure functions from content to lines."""

import textwrap
from collections.abc import Iterable, Sequence

from tvg.settings import Closed

WIDTH = 100


def heading(title: str, level: int = 2) -> list[str]:
    return [f"{'#' * level} {title}", ""]


def paragraph(text: str) -> list[str]:
    """Wrapped, with the empty line that ends it; nothing for no text."""
    return [*_wrap(text), ""] if text.strip() else []


def bullets(items: Iterable[str]) -> list[str]:
    """A list, with the empty line that ends it; nothing for no items."""
    lines = [line for item in items for line in _wrap(item, "- ", "  ")]
    return [*lines, ""] if lines else []


def indented(text: str) -> list[str]:
    """By four, which Markdown leaves as it is. A line that is too long flows into the next one."""
    lines, open_line = [], ""
    for line in text.strip().splitlines():
        open_line += line.rstrip()
        if len(line) > WIDTH - 4:
            open_line += " "
        else:
            lines += _wrap(open_line, "    ", "    ") or [""]
            open_line = ""
    return [*lines, *_wrap(open_line, "    ", "    "), ""]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in aligned columns, indented by four; the last column wraps."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for *cells, last in rows:
        start = "    " + "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        lines += _wrap(last, start, " " * len(start)) or [start.rstrip()]
    return [*lines, ""]


def value(given: object) -> str:
    """A setting as a person would write it: 1e-06, true, none, 12, 35, ground 0.8."""
    match given:
        case None:
            return "none"
        case bool():
            return str(given).lower()
        case float():
            return f"{given:g}"
        case dict():
            return ", ".join(f"{key} {value(item)}" for key, item in given.items()) or "nothing"
        case Closed():
            return value({key: item for key, item in given if item is not None})
        case list() | tuple():
            return ", ".join(value(item) for item in given) or "nothing"
        case _:
            return str(given)


def listed(words: Sequence[str], last: str = "and") -> str:
    """
    >>> listed(["VC", "AR", "VD"])
    'VC, AR and VD'
    """
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!", ":")) else ".") if text else ""


def first_paragraph(doc: str | None) -> str:
    """What a docstring says first, on one line."""
    return " ".join((doc or "").strip().split("\n\n")[0].split())


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
