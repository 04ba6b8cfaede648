"""How the mini data set looks: a stick person in a room, drawn with numpy, written as H.264.

Each action changes the whole figure and shows in any frame pair of its segment, as the sprites' actions did that a
small model was seen to learn: it must be told apart where a frame is 56 x 56 pixels.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tvg.segment import Segment


class Action(NamedTuple):
    """One action of a video. verb: a key of POSES. onset: seconds from standing to fully in the action, and back."""

    verb: str
    segment: Segment
    onset: float


class Pose(NamedTuple):
    """The figure, relative to standing. Lengths in figure heights, angles in radians from hanging down, outwards."""

    across: float = 0.0
    lift: float = 0.0
    turn: float = 0.0
    size: float = 1.0
    arms: float = 0.3
    left_leg: float = 0.2
    right_leg: float = 0.2


# The pose of an action, from the seconds since its start and a beat in [-1, 1].
POSES: dict[str, Callable[[float, float], Pose]] = {
    "jump": lambda time, beat: Pose(lift=0.22 + 0.14 * beat, arms=1.4, left_leg=0.6, right_leg=0.6),
    "spin": lambda time, beat: Pose(turn=2 * math.pi * (time / 1.3 % 1), lift=0.1, arms=1.5),
    "sit": lambda time, beat: Pose(lift=-0.37, arms=0.5 + 0.1 * beat, left_leg=-1.5, right_leg=1.45),
    "sleep": lambda time, beat: Pose(0.0, -0.42, math.pi / 2, 1.0 + 0.02 * beat, 0.1, 0.05, 0.05),
    "wave": lambda time, beat: Pose(arms=2.5 + 0.45 * beat),
    "run": lambda time, beat: Pose(
        across=0.55 * math.sin(math.tau * time / 2.3),
        arms=0.9 + 0.3 * beat,
        left_leg=0.6 + 0.3 * beat,
        right_leg=0.6 + 0.3 * beat,
    ),
    "grow": lambda time, beat: Pose(size=1.55 + 0.06 * beat),
    "shrink": lambda time, beat: Pose(size=0.5 + 0.04 * beat),
}
BEAT = 0.86  # seconds; this and the periods above share no factor with half a second: frames at 2 FPS differ
FIGURES = ((20, 20, 30), (150, 20, 30), (20, 50, 150), (10, 95, 50), (110, 20, 120))
ROOMS = (((225, 220, 205), (170, 140, 110)), ((205, 222, 232), (140, 150, 160)), ((235, 225, 180), (165, 150, 120)))
HEAD, TRUNK, LIMB = 0.12, 0.085, 0.055  # radii, figure heights: a limb is about 3 pixels wide where a frame has 56
NOISES = 16  # different noise fields a video, dealt out at random: drawing one for every frame would double the time


class Look(NamedTuple):
    """What stays the same throughout a video. Colours: RGB 0-255; x, ground, height: shares of the frame's side."""

    figure: tuple[int, ...]
    wall: tuple[int, ...]
    floor: tuple[int, ...]
    x: float
    ground: float
    height: float


def look(rng: np.random.Generator) -> Look:
    """Some colours, and some place of the figure."""
    wall, floor = ROOMS[rng.integers(len(ROOMS))]
    x, ground, height = rng.uniform((0.42, 0.92, 0.52), (0.58, 0.95, 0.58)).tolist()
    return Look(FIGURES[rng.integers(len(FIGURES))], wall, floor, x, ground, height)


def draw(
    actions: tuple[Action, ...], count: int, fps: int, side: int, noise: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """`count` pictures, (side, side, 3) uint8 RGB; picture k shows the time k / fps. noise: standard deviation."""
    view = look(rng)
    room = np.full((side, side, 3), view.wall, np.float32)
    room[round(view.ground * side) - 2 :] = view.floor
    noisy = (room + rng.normal(0, noise, (NOISES, side, side, 1))).clip(0, 255).astype(np.uint8)
    standing = noisy.copy()  # two fifths of all pictures: drawn once
    for picture in standing:
        _add_figure(picture, Pose(), view)
    for k in range(count):
        field, pose = rng.integers(NOISES), pose_at(actions, k / fps)
        picture = (standing if pose == Pose() else noisy)[field].copy()
        if pose != Pose():
            _add_figure(picture, pose, view)
        yield picture


def pose_at(actions: tuple[Action, ...], time: float) -> Pose:
    """Standing, or on the way into, in, or out of an action: `time` in seconds from the start of the video."""
    for verb, (start, end), onset in actions:
        if start < time < end:
            share = min(1.0, (time - start) / onset, (end - time) / onset)
            pose = POSES[verb](time - start, math.sin(math.tau * (time - start) / BEAT))
            return Pose(*(s + share * (p - s) for s, p in zip(Pose(), pose, strict=True)))
    return Pose()


def strokes(pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The figure as 6 thick lines: ends p, ends q (complex), radii, in figure heights; 0 between the feet, +i down."""
    hip, neck, head, middle = -0.45j, -0.76j, -0.87j, -0.5j
    hands = [neck + 0.36j * np.exp(-1j * angle) for angle in (-pose.arms, pose.arms)]
    feet = [hip + 0.44j * np.exp(-1j * angle) for angle in (-pose.left_leg, pose.right_leg)]
    ends = np.array([[head, neck, neck, neck, hip, hip], [head, hip, *hands, *feet]])
    p, q = pose.size * ((ends - middle) * np.exp(1j * pose.turn) + middle) + complex(pose.across, -pose.lift)
    return p, q, pose.size * np.array([HEAD, TRUNK, LIMB, LIMB, LIMB, LIMB])


def _add_figure(picture: np.ndarray, pose: Pose, view: Look) -> None:
    """Blend the figure into `picture` with smooth edges; what leaves the picture is cut."""
    feet, scale = complex(view.x, view.ground) * len(picture), view.height * len(picture)
    p, q, radius = strokes(pose)
    p, q, radius = feet + p * scale, feet + q * scale, radius * scale
    ends, margin = np.concatenate([p, q]), radius.max() + 1
    left, top = (max(0, int(part.min() - margin)) for part in (ends.real, ends.imag))
    right, bottom = (max(0, int(part.max() + margin) + 1) for part in (ends.real, ends.imag))
    box = picture[top:bottom, left:right]
    cover = _cover(p - complex(left, top), q - complex(left, top), radius, *box.shape[:2])[..., None]
    box[:] = box + cover * (np.array(view.figure, np.float32) - box)


def _cover(p: np.ndarray, q: np.ndarray, radius: np.ndarray, height: int, width: int) -> np.ndarray:
    """How much of each pixel the lines cover, (height, width) in [0, 1], from each pixel's distance to each line."""
    p, along, radius = (each.astype(kind)[:, None, None] for each, kind in zip((p, q - p, radius), "FFf", strict=True))
    x = np.arange(width, dtype=np.float32) - p.real
    y = np.arange(height, dtype=np.float32)[:, None] - p.imag
    squared = np.maximum(along.real**2 + along.imag**2, 1e-6)  # a dot has no length
    share = ((x * along.real + y * along.imag) / squared).clip(0, 1)
    distance = np.sqrt((x - share * along.real) ** 2 + (y - share * along.imag) ** 2)
    return (radius + 0.5 - distance).max(0).clip(0, 1)


def encode(pictures: Iterable[np.ndarray], fps: int, side: int, crf: int) -> bytes:
    """An mp4 file: H.264, yuv420p, no B-frames (so that the first picture's time is 0).

    Adaptive quantisation and macroblock trees are off: with them x264 gave other bytes in about one run of a hundred.
    """
    import av

    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as file:
        options = {"preset": "veryfast", "bf": "0", "aq-mode": "0", "mbtree": "0", "crf": str(crf)}
        stream = file.add_stream("libx264", rate=fps, options=options)
        stream.width = stream.height = side
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return memory.getvalue()
