"""Rows of the user's own data, {id, video, query, segments, duration?, completion?, captions?}: one JSON object a line.

What is wrong with a line is said in words, all of it; whether that costs the row is for `judge`. Keys beside these are
not read, and said once.
"""

import difflib
import json
import math
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tvg.datasets.adopt import AGREES
from tvg.datasets.audit import clean, clean_all
from tvg.sample import Sample
from tvg.segment import Segment

OVERRUN = 0.25  # seconds that a segment may end after its video: one video has several durations, data_quirks.md 3.13
LONGEST = 255  # bytes of a file name, on every file system in use
# `/` and `\` would leave the folder; the others change the meaning of a pasted shell line, or of HTML.
REFUSED = frozenset("/\\;|&$<>`'\"*?")
SHAPE = "JSON lines of id, video, query, segments and, where there are any, duration, completion, captions"
TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they show a name other than it is


class Caption(NamedTuple):
    """What happens in a segment of the video."""

    segment: Segment
    text: str


class Row(NamedTuple):
    """A line that says what it should; whether it fits its video is another matter."""

    id: str
    video: str
    query: str
    segments: tuple[Segment, ...]
    duration: float | None = None
    completion: str | None = None
    captions: tuple[Caption, ...] | None = None


class Line(NamedTuple):
    """A line that is not blank. row: None where it cannot be used, see `problems`. extra: keys that are not read."""

    number: int
    text: str
    row: Row | None
    problems: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What becomes of a line. sample: None where it is rejected. reasons: what is wrong, or was changed.

    broken: a person should mend it; False where nothing is wrong, or only within what durations differ by.
    """

    line: Line
    sample: Sample | None
    reasons: tuple[str, ...] = ()
    broken: bool = False


# ---------------------------------------------------------------- a line


def parse(text: str) -> tuple[Row | None, list[str], list[str]]:
    """A line -> its row, None where it is broken; all that is wrong with it; the keys that are not read."""
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        return None, [f"not JSON: {error.msg} at column {error.colno}"], []
    except (ValueError, RecursionError) as error:
        return None, [f"not JSON that can be read: {error}"], []
    if not isinstance(content, dict):
        return None, [f"not a JSON object but {reprlib.repr(content)}"], []
    fields, problems = {}, []
    for key, read in FIELDS.items():
        if key in content:
            try:
                fields[key] = read(content[key])
            except ValueError as error:
                problems.append(f"`{key}` {error}")
        elif key not in Row._field_defaults:
            problems.append(f"no `{key}`")
    return None if problems else Row(**fields), problems, [key for key in content if key not in FIELDS]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} comes twice")
    return dict(pairs)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not a string but {reprlib.repr(value)}")
    if not value.strip():
        raise ValueError("is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"holds half a character: {value!r}")
    return value


def _id(value: Any) -> str:
    if _controls(_text(value)):
        raise ValueError(f"holds a control character: {value!r}")
    return value


def _video(value: Any) -> str:
    """A plain file name. Spaces and the letters of any language are fine, as are `: @ + - _ , ( ) [ ] #`."""
    name = _text(value)
    if ".." in name or name == ".":
        raise ValueError(f"is not a plain file name: {name!r}")
    if refused := sorted(REFUSED & set(name)):
        raise ValueError(f"is not a plain file name: {name!r} holds {' and '.join(map(repr, refused))}")
    if _controls(name) or TURNS & set(name):
        raise ValueError(f"holds a control character: {name!r}")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} bytes: {name[:40]!r}...")
    return name


def _controls(text: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text)


def _segments(value: Any) -> tuple[Segment, ...]:
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    if not value or not pairs:
        raise ValueError(f"is not a list of [start, end] but {reprlib.repr(value)}")
    return tuple(Segment(*map(_number, pair)) for pair in value)


def _duration(value: Any) -> float | None:
    seconds = None if value is None else _number(value)
    if seconds is not None and seconds <= 0:
        raise ValueError(f"is not above 0: {seconds}")
    return seconds


def _completion(value: Any) -> str | None:
    return None if value is None else _text(value)


def _captions(value: Any) -> tuple[Caption, ...] | None:
    """In order of time: a training takes some of them, as they stand, for the beginning of its reasoning."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 3 for one in value):
        raise ValueError(f"is not a list of [start, end, text] but {reprlib.repr(value)}")
    captions = []
    for number, (start, end, text) in enumerate(value, 1):
        try:
            captions.append(Caption(Segment(_number(start), _number(end)), _text(text)))
        except ValueError as error:
            raise ValueError(f"{error}, in caption {number}") from None
        if number > 1 and captions[-1].segment.start < captions[-2].segment.start:
            raise ValueError(f"is not in order of time: caption {number} starts before caption {number - 1}")
    return tuple(captions)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1e12 < value < 1e12:
        raise ValueError(f"holds what is no finite number: {reprlib.repr(value)}")
    return float(value)


FIELDS: dict[str, Callable[[Any], Any]] = {
    "id": _id, "video": _video, "query": _text, "segments": _segments, "duration": _duration,
    "completion": _completion, "captions": _captions,
}  # fmt: skip


# ---------------------------------------------------------------- a file


def read(content: bytes) -> list[Line]:
    """All lines that are not blank. Only \\n ends a line: a query may hold any other separator."""
    lines, seen = [], {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            lines.append(_line(number, line.rstrip(b"\r"), seen))
    return lines


def _line(number: int, line: bytes, seen: dict[str, int]) -> Line:
    """seen: id -> the line that has it."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Line(number, line.decode(errors="replace"), None, (f"not UTF-8 text: {error.reason}",))
    row, problems, extra = parse(text)
    if row is not None and seen.setdefault(row.id, number) != number:
        row, problems = None, [f"the id {row.id!r} is that of line {seen[row.id]}"]
    return Line(number, text, row, tuple(problems), tuple(extra))


def not_read(lines: Iterable[Line]) -> Iterator[str]:
    """The keys that are not read, each with how many rows have it and the key that may have been meant."""
    for key, count in Counter(key for line in lines for key in line.extra).items():
        near = difflib.get_close_matches(key, FIELDS, n=1)
        yield f"{key!r} in {count} rows" + (f" (did you mean {near[0]!r}?)" if near else "")


def judge(line: Line, lengths: Mapping[str, float | str], cleaned: bool, least: float) -> Verdict:
    """lengths: video -> seconds of its file, or why it has none; a video that is not in it is not looked at."""
    row = line.row
    if row is None:
        return Verdict(line, None, line.problems, broken=True)
    length = lengths.get(row.video)
    if isinstance(length, str):
        return Verdict(line, None, (f"the video {row.video}: {length}",), broken=True)
    if row.duration and length and abs(row.duration - length) > AGREES:
        reason = f"the video {row.video} lasts {length:.2f} s, not {row.duration:.2f} s"
        return Verdict(line, None, (reason,), broken=True)
    duration = row.duration or length or math.inf
    doubts = [doubt for segment in row.segments if (doubt := _doubt(segment, duration))]
    kept, reasons = list(row.segments), doubts
    if cleaned:
        kept, reasons = clean_all(row.segments, duration, least)
    if not kept:
        return Verdict(line, None, tuple(reasons), broken=True)
    sample = Sample(row.id, row.video, duration, row.query, tuple(kept), completion=row.completion)
    if row.captions is not None:
        captions, more, doubtful = _captioned(row.captions, duration, cleaned, least)
        sample, reasons, doubts = replace(sample, captions=captions), [*reasons, *more], [*doubts, *doubtful]
    return Verdict(line, sample, tuple(reasons), bool(doubts))


def _captioned(
    captions: Iterable[Caption], duration: float, cleaned: bool, least: float
) -> tuple[tuple[tuple[float, float, str], ...], list[str], list[str]]:
    """The captions of a sample, cleaned as its segments are; what was changed or is doubtful; what is doubtful."""
    kept, reasons, doubts = [], [], []
    for number, (segment, text) in enumerate(captions, 1):
        doubt = _doubt(segment, duration)
        inside, problem = clean(segment, duration, least) if cleaned else (segment, doubt)
        doubts += [doubt] if doubt else []
        reasons += [f"caption {number}: {problem}"] if problem else []
        kept += [(*inside, text)] if inside else []
    return tuple(kept), reasons, doubts


def _doubt(segment: Segment, duration: float) -> str | None:
    if segment.end <= segment.start:
        return f"the segment ends at {segment.end} s, not after its start at {segment.start} s"
    if segment.start < 0 or segment.end > duration + OVERRUN:
        return f"the segment from {segment.start} s to {segment.end} s is not inside the {duration} s of the video"
    return None
