"""JSONL on the command line: every line in gives one line out, in order; a broken one is named, the others are done."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tvg.cli.shared import say
from tvg.errors import TvgError

log = logging.getLogger(__name__)
Row = dict[str, Any]


@dataclass
class Line:
    """One line. number: from 1. row: its keys, none if it cannot be read. answer: keys to add. error: what is wrong."""

    number: int
    row: Row = field(default_factory=dict)
    answer: Row = field(default_factory=dict)
    error: str | None = None


def each_line(answer: Callable[[Row], Row], together: Callable[[list[Line]], None] | None = None) -> int:
    """stdin to stdout: the keys that `answer` finds go over the row's own. The exit status: 1 if a line is broken.

    `together` sees all lines, answered, before the first is written, for answers that take several rows.
    """
    lines = (_answered(line, answer) for line in read_lines(getattr(sys.stdin, "buffer", sys.stdin)))
    if together is not None:
        lines = list(lines)
        together(lines)
    return write(lines)


def read_lines(stream: Iterable[bytes | str]) -> Iterator[Line]:
    """The lines of a stream, UTF-8 if bytes; a line that is no JSON object has an error instead of keys."""
    for number, text in enumerate(stream, 1):
        try:
            yield Line(number, _row(text))
        except (ValueError, RecursionError) as error:
            yield Line(number, error=f"not JSON: {_in_words(error)}")


def write(lines: Iterable[Line]) -> int:
    """The lines to stdout, those with an error with its text and their own keys. The exit status: 1 if there is one."""
    broken = 0
    for line in lines:
        text = _text(line)
        if line.error is not None:
            broken += 1
            log.error("line %d: %s", line.number, line.error)
        say(text)
    return 1 if broken else 0


def _answered(line: Line, answer: Callable[[Row], Row]) -> Line:
    if line.error is None:
        try:
            line.answer = answer(line.row)
        except (ValueError, TvgError) as error:
            line.error = str(error)
    return line


def _row(text: bytes | str) -> Row:
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    row = json.loads(text, parse_constant=_no_number, parse_float=_number)
    if not isinstance(row, dict):
        raise ValueError(f"expected an object {{...}}, got {text.strip()[:40]}")
    return row


def _number(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:40]} is no number")  # Python's json reads NaN, Infinity and 1e999


def _in_words(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in column {error.colno}" if error.doc.strip() else "an empty line"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _text(line: Line) -> str:
    """The line as it is written. An answer that JSON cannot hold is an error of that line."""
    if line.error is None:
        try:
            return _dumps(line.row | line.answer)
        except ValueError as error:
            line.error = f"the answer cannot be written: {error}"
    return _dumps(line.row | {"line": line.number, "error": line.error})


def _dumps(row: Row) -> str:
    """Letters as they are, where stdout can show them; half a surrogate pair stays escaped, as it came."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False)
    return text
