"""Progress of long loops: a bar on a terminal, otherwise a log line every few seconds."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 5.0
T = TypeVar("T")


def progress(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and say how far along they are. unit: what is counted, in the plural."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, unit=f" {unit}", total=total, leave=False)
        return
    started = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES or done == total:
            said = now
            log.info("%s: %d/%s %s, %.1f s", what, done, total or "?", unit, now - started)
