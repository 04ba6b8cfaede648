"""What lies in a data set's folder: files that were there already are adopted after a check, and nothing is written.

A folder on a cluster may be read-only; what is found wrong is therefore listed in the store, never beside the videos.
"""

import errno
import json
import logging
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tvg.datasets.download import Source, download
from tvg.errors import TvgError
from tvg.sample import write_lines

log = logging.getLogger(__name__)
AGREES = (
    1.0  # seconds: systems.md 8, row 6; csv, stream and container of one video differ by 0.2 s (data_quirks.md 3.13)
)
REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM)
OWN_FOLDER = "set data_root in config.yaml to a folder of your own: it may hold links to what is here"

# tvg.video.lengths.measure: (files of one folder, exact?) -> name: seconds, or in words why it has no length
Measure = Callable[[Iterable[Path], bool], Mapping[str, float | str]]


class Claim(NamedTuple):
    """What annotations say of a video file: it lasts `duration` seconds, or, where they speak of a cut that it need
    not be yet, it goes on to `reaches` seconds at least.
    """

    duration: float
    reaches: float | None = None

    def holds(self, seconds: float) -> bool:
        if abs(seconds - self.duration) <= AGREES:
            return True
        return self.reaches is not None and seconds >= self.reaches - AGREES


@dataclass(frozen=True)
class Stock:
    """What a kind's `fetch` leaves to be checked: the folder of the videos, what is claimed of each that is wanted,
    which ones came just now, how large a share of the wanted may be lost, and where a person gets them.
    """

    folder: Path
    wanted: Mapping[str, frozenset[Claim]]
    new: frozenset[str]
    may_lose: float
    hint: str


@dataclass(frozen=True)
class Fetched:
    """files: names of the wanted videos that are there. problems: video -> why it is absent or doubtful."""

    files: tuple[str, ...]
    downloaded: int
    adopted: int
    problems: Mapping[str, str]


def annotation_files(files: Mapping[str, Source], folder: Path) -> None:
    """Bring folder/annotations up to what is pinned: what is there is verified, what is not is downloaded."""
    absent = [name for name in files if not (folder / "annotations" / name).exists()]
    refusal = unwritable(folder / "annotations") if absent else None
    if refusal:
        raise TvgError(
            folder / "annotations", f"files are absent, and the folder cannot be written to ({refusal})",
            got=f"no {', '.join(absent)}", expected="all there, or a folder to download into", hint=OWN_FOLDER,
        )  # fmt: skip
    for name, source in files.items():
        download(source.url, folder / "annotations" / name, source.sha256)


def unwritable(folder: Path) -> str | None:
    """Why no file can be made in `folder`, or where it will be; None where one can, or only room is lacking.

    Tried, not asked: a network file system may refuse what its permissions promise.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror if error.errno in REFUSALS else None


def take_stock(stock: Stock, measure: Measure, listing: Path) -> Fetched:
    """Check that the wanted videos are there, and as long as the annotations claim: adopted ones, and new ones too, for
    what is downloaded now is adopted at the next call.

    Problems are written to `listing`, one JSON object a line. Raises TvgError when they are more than may be lost.
    """
    names = sorted(stock.wanted)
    problems = {name: problem for name in names if (problem := _problem(stock.folder / name))}
    files = tuple(name for name in names if name not in problems)
    absent, downloaded = len(problems), len(stock.new.intersection(files))
    problems |= _other_lengths(stock, files, measure)
    write_lines(
        listing, (json.dumps({"video": n, "problem": problems[n]}, ensure_ascii=False) for n in sorted(problems))
    )
    if problems:
        log.warning("%d of %d videos absent or doubtful, listed in %s", len(problems), len(names), listing)
    if len(problems) > stock.may_lose * len(names):
        raise _too_many(stock, problems, absent, listing)
    return Fetched(files, downloaded, len(files) - downloaded, problems)


def _problem(path: Path) -> str | None:
    """Why there is no such video, without opening it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "absent: a link to nothing" if path.is_symlink() else "absent"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return "not a file"
    return None if found.st_size else "an empty file"


def _other_lengths(stock: Stock, names: Iterable[str], measure: Measure) -> dict[str, str]:
    """Videos that cannot be opened, or are not as long as claimed. Headers are believed where they agree.

    Where they do not, packets decide: the header of a Matroska file tells the length of its sound.
    """
    stated = measure([stock.folder / name for name in names], False)
    doubtful = [name for name in names if _refuted(stock.wanted[name], stated[name])]
    exact = measure([stock.folder / name for name in doubtful], True) if doubtful else {}
    return {name: problem for name in doubtful if (problem := _refuted(stock.wanted[name], exact[name]))}


def _refuted(claims: Iterable[Claim], length: float | str) -> str | None:
    if isinstance(length, str):
        return length
    wrong = sorted(claim.duration for claim in claims if not claim.holds(length))
    return f"lasts {length:.2f} s, the annotations say {wrong[0]:.2f} s" if wrong else None


def _too_many(stock: Stock, problems: dict[str, str], absent: int, listing: Path) -> TvgError:
    shown = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items())[:3])
    refusal = unwritable(stock.folder) if absent else None
    what = "too many videos absent or doubtful"
    if refusal:
        what += f", and the folder cannot be written to ({refusal})"
    return TvgError(
        stock.folder, what, got=f"{len(problems)} of {len(stock.wanted)} ({shown}), listed in {listing}",
        expected=f"at most {stock.may_lose:.1%}",
        hint=f"{OWN_FOLDER if refusal else stock.hint}, or raise `may_lose` in the data set's YAML",
    )  # fmt: skip
