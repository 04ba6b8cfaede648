"""TVGBench, 800 queries of five collections: a JSON list of {path, question, answer: "s-e", start, end, duration}.

`start` and `end` give the part of the file that is asked about, all other times count from its start. Unlike in
TimeRFT no file is such a part already: several parts of one file are asked about.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from tvg.datasets import Loaded, Measure
from tvg.datasets.adopt import AGREES, Claim, Stock
from tvg.datasets.brought import Brought, Item, load_split, read_json, take, videos_of
from tvg.sample import Sample
from tvg.segment import Segment

ANSWER = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", re.ASCII)


class Settings(Brought):
    """`kind: tvgbench`: a JSON list; a person brings the videos."""


def load(settings: Settings, split: str, folder: Path, measure: Measure | None) -> Loaded:
    """Read folder/annotations. measure: how long the files are of which a part is asked about; some parts go on past
    the end of their file, and end there. Raises TvgError: a file absent or not as pinned, items missing.
    """
    read = partial(_read, lengths={})
    if measure is not None:
        asked = videos_of(folder / "annotations" / settings.splits[split].annotations, _items, read, _is_part)
        read = partial(_read, lengths=measure([folder / "videos" / name for name in asked], False))
    return load_split(settings, split, folder, _items, read)


def fetch(settings: Settings, folder: Path, jobs: int) -> Stock:
    """Download the annotations; folder/videos is the user's to fill. jobs: not used."""
    return take(settings, folder, _items, partial(_read, lengths={}), _claim)


def _items(path: Path) -> Iterator[Item]:
    for number, content in enumerate(read_json(path, list), 1):
        yield Item(number, json.dumps(content, ensure_ascii=False), (number, content))


def _read(content: tuple[int, dict], lengths: Mapping[str, float | str]) -> tuple[Sample, str | None]:
    """No item has an id: its place in the list is one."""
    number, item = content
    found = ANSWER.fullmatch(item["answer"].strip())
    if found is None:
        raise ValueError(f"the answer is {item['answer']!r}, not seconds-seconds")
    truth, name = Segment(float(found[1]), float(found[2])), PurePosixPath(item["path"]).name
    clip, duration, note = _clip(item), float(item["duration"]), None
    length = lengths.get(name)
    if clip is not None and isinstance(length, float) and clip.start + truth.start < length < clip.end - AGREES:
        note = f"the part from {clip.start:.2f} s to {clip.end:.2f} s ends with its file, at {length:.2f} s"
        clip = Segment(clip.start, length)
        duration = clip.length
    return Sample(f"tvgbench-{number}", name, duration, item["question"], (truth,), clip=clip), note


def _clip(item: dict) -> Segment | None:
    cut = (item["start"], item["end"])
    return None if None in cut else Segment(*map(float, cut))


def _is_part(sample: Sample) -> bool:
    return sample.clip is not None


def _claim(sample: Sample) -> Claim:
    """A file is as long as stated; one of which a part is asked about goes on to the end of the truth, at least."""
    if sample.clip is None:
        return Claim(sample.duration)
    reaches = sample.clip.start + min(sample.segments[0].end, sample.duration)
    return Claim(reaches, reaches)
