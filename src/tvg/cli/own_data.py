"""Data of the user's own."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from tvg.cli.shared import Arguments, Declare, say

EXAMPLE = "check my_train.jsonl --videos my_videos"
ROWS = """\
One JSON object a line: id (unique), video (a file name in the folder of videos), query, segments (a list of
[start, end] in seconds) and, if you know it, duration (seconds; read from the file otherwise). For the systems that
learn from more: completion (a text, reasoning and answer as the prompt of the stage that learns it asks for them) and
captions (what happens in the whole video, a list of [start, end, text] in order of time). Other keys are not read.
"""


def add(declare: Declare) -> None:
    group = declare(data, "look at data of your own before anything is trained on it", EXAMPLE)
    text = "name every broken line of a file of rows, then sum it up; exit code 1 if a line is broken"
    actions = group.add_subparsers(required=True, metavar="ACTION", dest="action")
    parser = actions.add_parser(
        "check", help=text, description=f"{text}. {ROWS}", epilog=f"example: tvg data {EXAMPLE}"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a file of JSON lines")
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="also open every video and compare")
    parser.add_argument(
        "--split-kind", choices=("train", "eval"), default="train",
        help="train (default): as cleaned for training; eval: as kept for a benchmark",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="videos opened side by side")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def data(a: Arguments) -> int:
    from tvg.datasets.examine import examine
    from tvg.video.lengths import measure

    found = examine(a.file, a.split_kind == "train", a.videos, partial(measure, jobs=a.jobs))
    if a.json:
        say(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _tell(found.to_dict())
    return 1 if found.broken else 0


def _tell(found: dict[str, Any]) -> None:
    for entry in found["broken"]:
        say(f"line {entry['line']}: {'; '.join(entry['reasons'])}")
    for entry in found["changed"]:
        say(f"line {entry['line']} (not broken): {'; '.join(entry['reasons'])}")
    for key in found["keys_not_read"]:
        say(f"not read: the key {key}")
    if not found["videos_opened"]:
        say("videos not opened: give their folder with --videos")
    say(f"{found['file']}: {len(found['broken'])} of {found['lines']} lines broken, as a {found['split_kind']} split")
    say(f"  rows to use       {found['rows']}, of {found['videos']} videos ({found['queries_per_video']} a video)")
    say(f"  videos            {_seconds(found['duration_s'])}")
    say(f"  segments          {_seconds(found['segment_s'])}; {found['several_segments']} rows have several")
    if found["completions"] or found["captioned"]:
        say(f"  more              {found['completions']} rows have a completion, {found['captioned']} captions")


def _seconds(middle: dict[str, float] | None) -> str:
    return "no length known" if middle is None else f"{middle['mean']} s mean, {middle['median']} s median"
