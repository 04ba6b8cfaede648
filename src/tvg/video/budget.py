"""How large a frame may be: the pixel budget of TimeZero, Time-R1, VideoChat-R1 and Invert4TVG (systems.md 1.1)."""

import math
from collections.abc import Callable

from tvg.settings import FramesSettings

FACTOR = 28  # pixels per visual token and side: 14 to a patch, 2 x 2 patches merged
SLACK = 1.05  # the cap stays this far above min_pixels (released code)


def encoded_frames(count: int, settings: FramesSettings) -> int:
    """How many frames the model encodes: frames fuse in pairs, and there are at least `min_frames`."""
    return max(settings.min_frames, count + count % 2)


def pixel_cap(count: int, settings: FramesSettings) -> float:
    """Pixels per frame for a video of `count` sampled frames. Two frames make one visual token, hence the 2."""
    shared = settings.total_pixels / encoded_frames(count, settings) * 2
    return max(min(settings.max_pixels, shared), int(SLACK * settings.min_pixels))


def fit(height: int, width: int, count: int, settings: FramesSettings) -> tuple[int, int]:
    """The (height, width) at which `count` frames are kept: multiples of 28 near the aspect ratio, at most the cap.

    At least min_pixels, which wins where no such size lies between the two. The released code rounds long videos
    below its own minimum there; everywhere else this is its rule.

    >>> fit(480, 854, 60, FramesSettings())
    (224, 392)
    """
    cap = pixel_cap(count, settings)
    sides = _to_factor(round, height, width, 1.0)
    if math.prod(sides) > cap:
        sides = _to_factor(math.floor, height, width, math.sqrt(cap / (height * width)))
        while math.prod(sides) < settings.min_pixels:
            taller, wider = (sides[0] + FACTOR, sides[1]), (sides[0], sides[1] + FACTOR)
            sides = min(taller, wider, key=lambda size: abs(math.log(size[0] / size[1] * width / height)))
    elif math.prod(sides) < settings.min_pixels:
        sides = _to_factor(math.ceil, height, width, math.sqrt(settings.min_pixels / (height * width)))
    return sides


def _to_factor(whole: Callable[[float], int], height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, whole(height * scale / FACTOR)) * FACTOR, max(1, whole(width * scale / FACTOR)) * FACTOR
