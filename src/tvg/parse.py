"""Every way of reading an answer: parsers (text -> Segment | None) and format checks (text -> bool), by name.

The papers' rules are as in their released code (regular expressions included, single spaces literal), tested on
tests/vectors/parsers.json and tvg_r1.json. `strict_answer` is ours; so are `anchors` and `fmt_tar*`, as TAR-TVG has
released no code (systems.md 8, row 18). A pair comes back as read; only `last2` swaps.
"""

import json
import re
from collections.abc import Callable

from tvg.segment import Segment

VERSION = 1  # of every rule below, part of specs; bump it when one changes, not when one is added

# The released (\d+\.?\d*), written so that an endless run of digits takes no cubic time
NUMBER = r"(?<!\d)(\d+(?:\.\d*)?)"
PAIR = re.compile(rf"{NUMBER} (?:to|and) {NUMBER}")
PAIR_ANY_CASE = re.compile(PAIR.pattern, re.IGNORECASE)
PAIR_WITH_UNIT = re.compile(rf"{NUMBER}s (?:to|and) {NUMBER}s", re.IGNORECASE)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
TIME = re.compile(r"<time>(.*?)</time>", re.DOTALL)
PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")

UNIT = r"(?:\s*(?:seconds?|secs?|s)\b\.?)?"
STRICT_ELEMENT = re.compile(r"<(answer|time)>((?:(?!<\1>).)*?)</\1>", re.DOTALL)
STRICT_PAIR = re.compile(
    rf"(?<![\d.:-])(\d+(?:\.\d+)?){UNIT}\s*(?:\bto\b|\band\b|-|–|—|,)\s*(\d+(?:\.\d+)?)(?![\d:]|\.\d){UNIT}",
    re.IGNORECASE | re.ASCII,
)

THINK = re.compile(r"<think>(.*)</think>", re.DOTALL)
ANCHOR = re.compile(r"<timestamp>([^<]*)</timestamp>")
MOST_ANCHORS = 4  # with more, their reward grows without end (systems.md 2.6, section 8 row 18)
SAME = 0.01 + 1e-9  # seconds, with the rounding of 3.41 - 3.40


def last_answer(text: str) -> str | None:
    """The body of the last `<answer>` element."""
    found = ANSWER.findall(text)
    return found[-1] if found else None


def strict_answer(text: str) -> Segment | None:
    """The last `<answer>` or `<time>` element, in it exactly one pair of numbers and no third; never the reasoning."""
    elements = STRICT_ELEMENT.findall(text)
    return _only_pair(elements[-1][1]) if elements else None


def _only_pair(body: str) -> Segment | None:
    pair = STRICT_PAIR.search(body)
    if pair is None or len(re.findall(r"\d+(?:\.\d+)?", body)) != 2:
        return None
    return Segment(float(pair[1]), float(pair[2]))


def _last(pattern: re.Pattern, text: str | None) -> Segment | None:
    found = pattern.findall(text) if text is not None else []
    return Segment(float(found[-1][0]), float(found[-1][1])) if found else None


def ans_last(text: str) -> Segment | None:
    """Reward parser of TimeZero, Time-R1, VideoChat-R1, Invert4TVG: the last answer's last `a to b`."""
    return _last(PAIR_ANY_CASE, last_answer(text))


def whole_last(text: str) -> Segment | None:
    """Evaluation parser of the same four: the last `a to b` of the whole output, reasoning included."""
    return _last(PAIR, text)


def ans_taro(text: str) -> Segment | None:
    """TaRO's reward parser: `a`s to `b`s, the unit mandatory."""
    return _last(PAIR_WITH_UNIT, last_answer(text))


def last2(text: str) -> Segment | None:
    """TaRO's evaluation parser: the last two numbers anywhere, swapped if reversed."""
    numbers = [float(n) for n in PLAIN_NUMBER.findall(text)[-2:]]
    return Segment(*sorted(numbers)) if len(numbers) == 2 else None


def force2(text: str) -> Segment | None:
    """Time-R1's difficulty scorer, as a last resort: the first two numbers anywhere."""
    numbers = [float(n) for n in PLAIN_NUMBER.findall(text)[:2]]
    return Segment(*numbers) if len(numbers) == 2 else None


def time_json(text: str) -> Segment | None:
    """TVG-R1's reward parser: the first `<time>` element as a JSON list of two numbers."""
    element = TIME.search(text)
    if element is None:
        return None
    try:
        pair = json.loads(element[1])
        return Segment(float(pair[0]), float(pair[1])) if isinstance(pair, list) and len(pair) == 2 else None
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def time_first2(text: str) -> Segment | None:
    """TVG-R1's evaluation parser: the first two numbers of the `<time>` element, else of the whole text."""
    element = TIME.search(text)
    return force2(element[1] if element else text)


def anchors(text: str) -> tuple[Segment, ...]:
    """TAR-TVG's anchors: every `<timestamp>s to e</timestamp>` inside the one `<think>`, in order.

    Read as `strict_answer` reads an element. None in a text with two `<think>`, and what cannot be read is no anchor.
    """
    think = THINK.search(text)
    if think is None or text.count("<think>") != 1 or text.count("</think>") != 1:
        return ()
    found = map(_only_pair, ANCHOR.findall(think[1]))
    return tuple(anchor for anchor in found if anchor is not None)


def fmt_ta(text: str) -> bool:
    """`<think>...</think> <answer>...</answer>` and nothing else (TimeZero, Time-R1, VideoChat-R1, Invert4TVG)."""
    return re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text.strip(), re.DOTALL) is not None


def fmt_taro(text: str) -> bool:
    """As fmt_ta, and each of the four tags exactly once (TaRO)."""
    once = all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return once and re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL) is not None


def fmt_tvg(text: str) -> bool:
    """`<think>...</think>...<time>...</time>...`, not stripped (TVG-R1)."""
    return re.fullmatch(r"<think>.*</think>.*<time>.*</time>.*", text, re.DOTALL) is not None


def fmt_answer(text: str) -> bool:
    """`<answer>...</answer>` and nothing else: a prompt that asks for no reasoning (Invert4TVG's released code)."""
    return re.fullmatch(r"<answer>.*?</answer>", text.strip(), re.DOTALL) is not None


def fmt_tar(text: str) -> bool:
    """As fmt_tar_free, and both ends of the answer are the last anchor's within 0.01 s (TAR-TVG)."""
    if not fmt_tar_free(text):
        return False
    answer, last = ans_last(text), anchors(text)[-1]
    return all(abs(a - b) <= SAME for a, b in zip(answer, last, strict=True))


def fmt_tar_free(text: str) -> bool:
    """As fmt_ta, with one to four anchors inside the one `<think>` and an answer that `ans_last` reads."""
    return fmt_ta(text) and 1 <= len(anchors(text)) <= MOST_ANCHORS and ans_last(text) is not None


PARSERS: dict[str, Callable[[str], Segment | None]] = {
    parser.__name__: parser
    for parser in (strict_answer, ans_last, whole_last, ans_taro, last2, force2, time_json, time_first2)
}
FORMATS: dict[str, Callable[[str], bool]] = {
    check.__name__: check for check in (fmt_ta, fmt_answer, fmt_tar, fmt_tar_free, fmt_taro, fmt_tvg)
}
