"""One line of `tvg check`: what was looked at, how it stands, and the command that mends it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "WRONG", "not needed"]


@dataclass(frozen=True)
class Finding:
    """mend: what to type or to do; every WRONG has one."""

    what: str
    verdict: Verdict
    detail: str
    mend: str | None = None


def ok(what: str, detail: str) -> Finding:
    return Finding(what, "ok", detail)


def wrong(what: str, detail: str, mend: str) -> Finding:
    return Finding(what, "WRONG", detail, mend)


def warning(what: str, detail: str, mend: str | None = None) -> Finding:
    return Finding(what, "warning", detail, mend)


def not_needed(what: str, detail: str) -> Finding:
    return Finding(what, "not needed", detail)
