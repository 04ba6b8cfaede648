"""The mini data set: drawn videos of a stick person who jumps, spins, sits, ..., with queries as in Charades-STA.

A script (what happens when, and what is asked) and its drawing both derive from (seed, split, index) alone, so `load`
draws nothing and no two splits share a video or a seed. What an annotator says of the scripts: mini_annotator.py.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tvg.config import Name
from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import Claim, Stock
from tvg.datasets.mini_annotator import Annotator, dense_captions, trace
from tvg.datasets.mini_figure import Action, draw, encode
from tvg.errors import TvgError
from tvg.progress import progress
from tvg.sample import Sample, write_lines
from tvg.segment import Segment
from tvg.settings import Closed

log = logging.getLogger(__name__)
KILOBYTES = 30  # of a drawn video, for the error message


class Settings(Closed):
    """`kind: mini`, drawn videos. Pairs are (least, most), both included; times in seconds."""

    seed: int
    """every choice derives from it, the split and the index"""
    splits: dict[Name, PositiveInt]
    """videos of each; a longer split keeps the videos of a shorter one"""
    duration: tuple[PositiveFloat, PositiveFloat]
    """of a video"""
    actions: tuple[PositiveInt, PositiveInt]
    """in a video, all different"""
    action: tuple[PositiveFloat, PositiveFloat]
    """how long one lasts"""
    rest: PositiveFloat
    """at least so long between two actions, before the first and after the last"""
    onset: tuple[PositiveFloat, PositiveFloat]
    """from standing to fully in the action, and back at its end"""
    queries: tuple[PositiveInt, PositiveInt]
    """in a video"""
    joint: Annotated[float, Field(ge=0, le=1)]
    """probability that a query is about an action and the next one"""
    side: PositiveInt
    """of the square frame, in pixels, even"""
    fps: PositiveInt
    """frames a second"""
    noise: NonNegativeFloat
    """standard deviation, of 255"""
    crf: PositiveInt
    """x264's constant rate factor"""
    annotator: Annotator | None = None
    """who captions the videos and reasons about them, with a person's faults; without it, nobody"""

    @model_validator(mode="after")
    def drawable(self) -> "Settings":
        """Ranges are in order, and the shortest video holds an action with a rest on both sides."""
        for name in ("duration", "actions", "action", "onset", "queries"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: the least ({least}) is above the most ({most})")
        if self.duration[0] < self.action[0] + 2 * self.rest:
            raise ValueError(
                f"duration: {self.duration[0]} s cannot hold an action of {self.action[0]} s and two rests"
            )
        if self.side % 2:
            raise ValueError(f"side: {self.side} is odd, and H.264 in yuv420p needs an even number")
        given = (*self.annotator.captions, *self.annotator.traces) if self.annotator else ()
        if unknown := sorted(set(given) - set(self.splits)):
            raise ValueError(f"annotator: {unknown[0]} is none of the splits {', '.join(self.splits)}")
        return self


# ---------------------------------------------------------------- what happens, and what is asked


class Script(NamedTuple):
    """One video before it is drawn. queries: (segment, text)."""

    video: str
    duration: float
    actions: tuple[Action, ...]
    queries: tuple[tuple[Segment, str], ...]


class Words(NamedTuple):
    """A verb's forms, and what may follow it. One verb an action: a synonym could not be told from the picture.

    Wordings are such that every verb back-end finds exactly the actions: without context, "waves" may be a noun.
    """

    plain: str
    third: str
    present: str
    past: str
    tails: tuple[str, ...]


VERBS = {
    words.plain: words
    for words in (
        Words("jump", "jumps", "jumping", "jumped", ("", " up and down")),
        Words("spin", "spins", "spinning", "spun", ("", " around")),
        Words("sit", "sits", "sitting", "sat", (" down", " on the floor")),
        Words("sleep", "sleeps", "sleeping", "slept", ("", " on the floor")),
        Words("wave", "waves", "waving", "waved", ("", " at the camera")),
        Words("run", "runs", "running", "ran", ("", " across the room")),
        Words("grow", "grows", "growing", "grew", ("", " bigger")),
        Words("shrink", "shrinks", "shrinking", "shrank", ("", " away")),
    )
}
WORDINGS = {verb: f"a person {words.third}." for verb, words in VERBS.items()}  # in captions
SUBJECTS = ("a person", "the person", "person")
ONE = (
    "{who} {a.third}{more_a}.",
    "{who} is {a.present}{more_a}.",
    "{who} {a.past}{more_a}.",
    "{who} starts {a.present}{more_a}.",
    "{who} begins to {a.plain}{more_a}.",
    "{who} {a.present}{more_a}.",
)
TWO = (
    "{who} {a.past}{more_a} and then {b.past}{more_b}.",
    "{who} {a.third}{more_a} and then starts {b.present}{more_b}.",
    "{who} {a.third}{more_a}, then the person {b.third}{more_b}.",
    "{who} {a.past}{more_a} before they {b.past}{more_b}.",
)


def generator(settings: Settings, split: str, index: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose for one video: adding a purpose changes no other."""
    digest = hashlib.sha256(f"{settings.seed}/{split}/{index}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def script(settings: Settings, split: str, index: int) -> Script:
    """Video `index` of `split`."""
    rng = generator(settings, split, index, "script")
    duration = rng.integers(*_frames(settings.duration, settings.fps), endpoint=True).item() / settings.fps
    fits = int((duration - settings.rest) // (settings.action[0] + settings.rest))
    count = max(1, min(rng.integers(*settings.actions, endpoint=True).item(), len(VERBS), fits))
    verbs = rng.permutation(list(VERBS))[:count].tolist()
    onsets = rng.uniform(*settings.onset, count).tolist()
    actions = tuple(map(Action, verbs, _timeline(settings, duration, count, rng), onsets))
    return Script(video_name(split, index), duration, actions, _ask(settings, actions, rng))


def scripts(settings: Settings, split: str) -> Iterator[Script]:
    """All videos of `split`."""
    return (script(settings, split, index) for index in range(settings.splits[split]))


def video_name(split: str, index: int) -> str:
    return f"{split}-{index:05d}.mp4"


def frames(settings: Settings, split: str, index: int) -> Iterator[np.ndarray]:
    """The pictures of one video, (side, side, 3) uint8 RGB, `fps` a second."""
    plot, rng = script(settings, split, index), generator(settings, split, index, "drawing")
    count = round(plot.duration * settings.fps)
    return draw(plot.actions, count, settings.fps, settings.side, settings.noise, rng)


def _timeline(settings: Settings, duration: float, count: int, rng: np.random.Generator) -> list[Segment]:
    """`count` segments in order, with a rest before, between and after them, longer where time is left."""
    lengths = rng.uniform(*settings.action, count)
    room = duration - settings.rest * (count + 1)
    shortest = settings.action[0] * count
    most = max(shortest, 0.8 * room)  # a full video would always start its first action at `rest`
    if lengths.sum() > most:
        lengths = settings.action[0] + (lengths - settings.action[0]) * (most - shortest) / (lengths.sum() - shortest)
    cuts = np.sort(rng.random(count)) * (room - lengths.sum())
    starts = cuts + np.cumsum(lengths) - lengths + settings.rest * np.arange(1, count + 1)
    return [Segment(_tenths(s, +1), _tenths(s + n, -1)) for s, n in zip(starts, lengths, strict=True)]


def _tenths(seconds: float, inwards: int) -> float:
    """Tenths of a second, as in Charades-STA, but off the half-second grid: no frame at 2 FPS lies on a boundary."""
    tenths = round(float(seconds) * 10)
    return (tenths + inwards * (tenths % 5 == 0)) / 10


def _ask(settings: Settings, actions: tuple[Action, ...], rng: np.random.Generator) -> tuple[tuple[Segment, str], ...]:
    """Queries about different actions of the video, in random order."""
    count = rng.integers(*settings.queries, endpoint=True).item()
    asked = []
    for k in rng.permutation(len(actions))[:count].tolist():
        joint = rng.random() < settings.joint and k + 1 < len(actions)
        first, last = actions[k], actions[k + joint]
        forms = TWO if joint else ONE
        a, b = VERBS[first.verb], VERBS[last.verb]
        form, who, more_a, more_b = (_pick(rng, options) for options in (forms, SUBJECTS, a.tails, b.tails))
        text = form.format(who=who, a=a, b=b, more_a=more_a, more_b=more_b)
        asked.append((Segment(first.segment.start, last.segment.end), text))
    return tuple(asked)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options)).item()]


def _frames(seconds: tuple[float, float], fps: int) -> tuple[int, int]:
    return math.ceil(seconds[0] * fps), math.floor(seconds[1] * fps)


def caption(action: Action) -> tuple[Segment, str]:
    """The one wording of an action in the dense captions."""
    return action.segment, WORDINGS[action.verb]


# ---------------------------------------------------------------- load and fetch


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """The queries of a split, with what the annotator says of them, and the true captions of its videos.

    `folder` is not read, `measure` not used.
    """
    samples, captions = [], {}
    for index, plot in enumerate(scripts(settings, split)):
        captions[plot.video] = [caption(action) for action in plot.actions]
        asked = [
            Sample(f"{Path(plot.video).stem}-{k}", plot.video, plot.duration, text, (segment,))
            for k, (segment, text) in enumerate(plot.queries)
        ]
        samples += _annotated(settings, split, index, plot, asked) if settings.annotator else asked
    return Loaded(samples, captions=captions)


def _annotated(settings: Settings, split: str, index: int, plot: Script, samples: list[Sample]) -> list[Sample]:
    """The samples of one video, with captions and traces where the split has them."""
    annotator, events = settings.annotator, [caption(action) for action in plot.actions]
    rng = generator(settings, split, index, "captions")
    heard = dense_captions(annotator, events, tuple(WORDINGS.values()), plot.duration, rng)
    if split in annotator.captions:
        samples = [replace(sample, captions=heard) for sample in samples]
    if split in annotator.traces:
        rngs = [generator(settings, split, index, f"trace {k}") for k in range(len(samples))]
        traces = [
            trace(annotator, q[0], events, heard, plot.duration, r) for q, r in zip(plot.queries, rngs, strict=True)
        ]
        samples = [replace(sample, completion=one.text) for sample, one in zip(samples, traces, strict=True)]
    return samples


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Draw the videos that are not there yet, with `jobs` processes, and write the true captions beside `videos`."""
    videos = folder / "videos"
    drawn = [(split, k, videos / video_name(split, k)) for split, n in settings.splits.items() for k in range(n)]
    missing = [video for video in drawn if not video[2].exists()]
    try:
        if missing:
            videos.mkdir(parents=True, exist_ok=True)
            _draw_all(settings, missing, jobs)
        _write_captions(settings, folder / "captions.jsonl")
    except OSError as error:
        raise TvgError(
            videos, "cannot write the drawn videos", got=error,
            expected=f"a folder to write to, with room for {len(drawn)} files of about {KILOBYTES} kB",
            hint="make room or set data_root in config.yaml, then run again: videos drawn so far are kept",
        ) from error  # fmt: skip
    wanted = {
        plot.video: frozenset({Claim(plot.duration)}) for split in settings.splits for plot in scripts(settings, split)
    }
    new = frozenset(path.name for _, _, path in missing)
    return Stock(videos, wanted, new, may_lose=0.0, hint="delete them and run again")


def _write_captions(settings: Settings, path: Path) -> None:
    """Only where they are not there as they should be: the folder may be read-only."""
    lines = list(_caption_lines(settings))
    if not path.exists() or path.read_text(encoding="utf-8").splitlines() != lines:
        write_lines(path, lines)


def _draw_all(settings: Settings, missing: list[tuple[str, int, Path]], jobs: int) -> None:
    log.info("drawing %d videos with %d processes", len(missing), jobs)
    write = partial(_write, settings)
    if jobs <= 1:
        _exhaust(map(write, missing), len(missing))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        _exhaust(pool.map(write, missing, chunksize=4), len(missing))


def _exhaust(drawing: Iterable[None], count: int) -> None:
    for _ in progress(drawing, "drawing", "videos", total=count):
        pass


def _write(settings: Settings, video: tuple[str, int, Path]) -> None:
    """Draw one video and encode it under a temporary name: what has the final name is whole."""
    split, index, path = video
    encoded = encode(frames(settings, split, index), settings.fps, settings.side, settings.crf)
    partial_path = path.with_name(path.name + ".partial")
    try:
        partial_path.write_bytes(encoded)
        partial_path.replace(path)
    except OSError:
        partial_path.unlink(missing_ok=True)
        raise


def _caption_lines(settings: Settings) -> Iterator[str]:
    for split in settings.splits:
        for plot in scripts(settings, split):
            captions = [[*segment, text] for segment, text in map(caption, plot.actions)]
            yield json.dumps({"video": plot.video, "duration": plot.duration, "captions": captions})
