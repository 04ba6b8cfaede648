"""`tvg <verb>`: each verb is one call into the package. One module a group of verbs, each with `add`."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tvg import facts
from tvg.cli import completion, explaining, hub, jobs, lines, own_data, planning, reports, video
from tvg.errors import TvgError

log = logging.getLogger("tvg")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
GROUPS = (jobs, reports, planning, explaining, own_data, video, lines, hub, completion)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; a TvgError is printed without a traceback."""
    top = parser()
    if "_ARGCOMPLETE" in os.environ:
        completion.complete(top)
    arguments = top.parse_args(argv)
    _log_to(arguments.log, arguments.spec.stem if "spec" in arguments else arguments.verb)
    try:
        return arguments.run(arguments) or 0
    except TvgError as error:
        log.error("%s", error)
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _is_no_room(error):
            raise
        log.error("%s", _no_room(error))
        return 1


def parser() -> argparse.ArgumentParser:
    """All verbs, each with an example in its help."""
    top = argparse.ArgumentParser(prog="tvg", description="Reinforcement learning for temporal video grounding.")
    verbs = top.add_subparsers(required=True, metavar="VERB", dest="verb")

    def declare(run: Callable, text: str, example: str, name: str | None = None) -> argparse.ArgumentParser:
        name = name or run.__name__
        example = f"example: tvg {name} {example}".rstrip().replace("%", "%%")
        verb = verbs.add_parser(name, help=text, description=text, epilog=example)
        verb.set_defaults(run=run)
        verb.add_argument("--log", help="also append what is logged to this file")
        return verb

    for group in GROUPS:
        group.add(declare)
    return top


def _is_no_room(error: Exception) -> bool:
    """Also as a library in another language says it, in an exception of its own."""
    return getattr(error, "errno", None) in NO_ROOM or os.strerror(errno.ENOSPC) in str(error)


def _no_room(error: Exception) -> TvgError:
    where, got = getattr(error, "filename", None), getattr(error, "strerror", None)
    return TvgError(
        where or "disk", "no room left", got=got or error, expected="room for results and videos",
        hint="make room and run the same command again: finished steps and the newest checkpoint are kept",
    )  # fmt: skip


def _log_to(path: str | None, job: str) -> None:
    """To the terminal and, appended, to the job's log; `job` tells the lines of jobs apart that run side by side."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="a"))
    logging.basicConfig(
        level=logging.WARNING, handlers=handlers, format=f"%(asctime)s {job}: %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("tvg").setLevel(logging.INFO if facts.is_first() else logging.WARNING)
    sys.excepthook = lambda *raised: log.critical("unexpected error", exc_info=raised)  # into the job's log too
