"""DiDeMo: a JSON list of {annotation_id, video, description, times, num_segments}; `times` holds what each of four or
more annotators marked, as the first and the last of the video's five-second chunks, counted from 0.

Whoever marked saw the first thirty seconds of a longer video, and the last chunk ends with the video (README of the
publisher's repository).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import Claim, Stock
from tvg.datasets.brought import Brought, Item, file_name, files_of, load_split, read_json, take, videos_of
from tvg.sample import Sample
from tvg.segment import Segment

CHUNK = 5.0  # seconds; README of LisaAnne/LocalizingMoments
SEEN = 30.0  # seconds that annotators saw of a longer video; the same


class Settings(Brought):
    """`kind: didemo`: a JSON list, truths by the vote of annotators; a person brings the videos."""


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read folder/annotations. measure: how long videos are, which no row says; one that is not here is taken to last
    as many chunks as were marked from. Raises TvgError: a file absent or not as pinned, items missing.
    """
    there = files_of(folder)
    read = partial(_read, there=there, lengths={})
    if measure is not None:
        asked = videos_of(folder / "annotations" / settings.splits[split].annotations, _items, read) & there
        read = partial(_read, there=there, lengths=measure([folder / "videos" / name for name in asked], True))
    return load_split(settings, split, folder, _items, read)


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Download the annotations; folder/videos is the user's to fill. jobs: not used."""
    return take(settings, folder, _items, partial(_read, there=files_of(folder), lengths={}), _claim)


def _items(path: Path) -> Iterator[Item]:
    for number, item in enumerate(read_json(path, list), 1):
        yield Item(number, json.dumps(item, ensure_ascii=False), item)


def _claim(sample: Sample) -> Claim:
    """A video goes on into its last chunk, of those that were marked from."""
    return Claim(sample.duration, sample.duration - CHUNK)


def names(video: str) -> tuple[str, ...]:
    """The names that a video's file has: as annotated, by the publisher's script for AWS, and in copies as mp4."""
    return video, f"{video}.mp4", f"{PurePosixPath(video).stem}.mp4"


def agreed(times: list[list[int]]) -> list[tuple[int, int]]:
    """What most annotators marked, two of them at least; all of it where as many marked one thing as another.

    >>> agreed([[4, 4], [2, 2], [4, 4], [4, 4]]), agreed([[2, 3], [2, 2], [2, 3], [2, 2]])
    ([(4, 4)], [(2, 2), (2, 3)])
    """
    votes = Counter((first, last) for first, last in times)
    most = max(votes.values(), default=0)
    if most < 2:
        raise ValueError("no two annotators marked the same")
    return sorted(chunks for chunks, count in votes.items() if count == most)


def _read(item: dict, there: frozenset[str], lengths: Mapping[str, float | str]) -> tuple[Sample, None]:
    chunks, count = agreed(item["times"]), item["num_segments"]
    if not all(0 <= first <= last < count for first, last in chunks):
        raise ValueError(f"chunks {chunks} of {count}")
    name = file_name(names(item["video"]), there)
    length = lengths.get(name)
    length = length if isinstance(length, float) else min(SEEN, count * CHUNK)
    duration, clip = min(length, SEEN), Segment(0.0, SEEN) if length > SEEN else None
    segments = tuple(_segment(first, last, duration) for first, last in chunks)
    return Sample(f"didemo-{item['annotation_id']}", name, duration, item["description"], segments, clip=clip), None


def _segment(first: int, last: int, duration: float) -> Segment:
    """In seconds; of a file that ends before the chunk starts, and is not the annotators', as marked."""
    start, end = first * CHUNK, (last + 1) * CHUNK
    return Segment(start, min(end, duration) if start < duration else end)
