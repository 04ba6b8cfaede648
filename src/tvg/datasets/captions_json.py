"""ActivityNet Captions, and what was later written like it: {video: {duration, timestamps, sentences}}, times in
seconds; or, as in 2D-TAN's copy of TACoS, {video: {num_frames, fps, timestamps, sentences}}, times in frames.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import Claim, Stock
from tvg.datasets.brought import Brought, Item, file_name, files_of, load_split, read_json, take
from tvg.sample import Sample
from tvg.segment import Segment


class Settings(Brought):
    """`kind: captions_json`: a JSON object of videos, each with its sentences; a person brings the videos."""

    suffixes: Annotated[tuple[str, ...], Field(min_length=1)]
    """what may follow a video's name (less an ending that the annotations give it); the first that is there counts"""


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read folder/annotations. measure: not used. Raises TvgError: a file absent or not as pinned, queries missing."""
    return load_split(settings, split, folder, _items, _reader(settings, folder))


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Download the annotations; folder/videos is the user's to fill. jobs: not used."""
    return take(settings, folder, _items, _reader(settings, folder), lambda sample: Claim(sample.duration))


def _reader(settings: Settings, folder: Path):
    return partial(_read, suffixes=settings.suffixes, there=files_of(folder))


def _items(path: Path) -> Iterator[Item]:
    """One for each sentence; of a record without any, one that cannot be read."""
    number = 0
    for video, record in read_json(path, dict).items():
        sentences = record.get("sentences") if isinstance(record, dict) else None
        for index, sentence in enumerate(sentences if isinstance(sentences, list) else [None]):
            number += 1
            text = json.dumps({"video": video, "index": index, "sentence": sentence}, ensure_ascii=False)
            yield Item(number, text, (video, record, index))


def _read(content: tuple[str, dict, int], suffixes: tuple[str, ...], there: frozenset[str]) -> tuple[Sample, None]:
    """The id counts a video's sentences from 1: TACoS says the same of the same seconds up to a dozen times."""
    video, record, index = content
    sentences, timestamps = record["sentences"], record["timestamps"]
    if len(sentences) != len(timestamps):
        raise ValueError(f"{len(sentences)} sentences but {len(timestamps)} timestamps")
    frames_a_second = float(record.get("fps", 1))
    total = record["num_frames"] if "fps" in record else record["duration"]
    start, end = (float(time) / frames_a_second for time in timestamps[index])
    stem = PurePosixPath(video).stem
    name = file_name((stem + suffix for suffix in suffixes), there)
    segments = (Segment(start, end),)
    return Sample(f"{stem}-{index + 1}", name, float(total) / frames_a_second, sentences[index], segments), None
