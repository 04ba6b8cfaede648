"""What the reasoning before an answer holds: times, and TAR-TVG's anchors (systems.md 4, "Extra metrics").

Of ground rows of a prediction file. TaRO's detector of times is not published: this is our reading of it.
"""

import re
from collections.abc import Mapping, Sequence

from tvg.evaluate.predictions import as_sample
from tvg.parse import PARSERS, SAME, anchors
from tvg.rewards.anchors import anchor_overlaps, refined
from tvg.settings import AnswerContract

WITH_ANCHORS = ("fmt_tar", "fmt_tar_free")  # the formats that ask for anchors
LEAST_ANCHORS = 2  # to refine an estimate, there must be one

# A range, of plain integers too; a single number only with its unit. `(?<!\d)` and the nested blanks leave what
# matches as in systems.md, and keep long runs of digits or blanks from taking quadratic time.
NUMBER = r"(?<!\d)\d+(?:\.\d+)?"
RANGE = rf"{NUMBER}(?:\s*(?:s|sec|seconds))?\s*(?:to|and|-|–)\s*\d"
SINGLE = rf"{NUMBER}\s*(?:s|sec|seconds)\b"
ELEMENT = r"<(timestep|timestamp)>\s*[^\s<][^<]*</\1>"
TIME = re.compile(f"{RANGE}|{SINGLE}|{ELEMENT}")


def names_time(text: str) -> bool:
    """Whether the reasoning names a time: a range (`2 to 5`), seconds (`2.5 s`), or a filled `<timestep>`,
    `<timestamp>`. The answer does not count, and what stands in no whole `<think>` is no reasoning.
    """
    blocks = (part.partition("</think>") for part in text.split("<think>")[1:])
    return any(closed and TIME.search(body) for body, closed, _ in blocks)


def columns(rows: Sequence[Mapping], contract: AnswerContract) -> dict[str, list[float]]:
    """Metric -> (N,) 1.0 or 0.0 for each row, 0.0 where the video is missing.

    timestamp_rate: the reasoning names a time. anchored_rate: it holds two readable anchors or more; only where the
    contract asks for anchors.
    """
    texts = [_text(row) for row in rows]
    out = {"timestamp_rate": [float(names_time(text)) for text in texts]}
    if contract.format_of("ground") in WITH_ANCHORS:
        out["anchored_rate"] = [float(len(anchors(text)) >= LEAST_ANCHORS) for text in texts]
    return out


def anchored(rows: Sequence[Mapping], contract: AnswerContract) -> dict[str, list[tuple[str, float]]]:
    """Metric -> the video and the value of all that its mean is over; {} where the contract asks for no anchors, or
    there is no text.

    mean_anchors: of each answer, how many. answer_is_last_anchor: of each answer with anchors, whether both ends of
    the segment that the rewards read are the last anchor's within 0.01 s. refinement_rate: of each two consecutive
    anchors, whether the later one is nearer to the truth, by the soft IoU with the true segment that fits it best.
    """
    if contract.format_of("ground") not in WITH_ANCHORS or all(row["completion"] is None for row in rows):
        return {}
    answered = [row for row in rows if row["missing"] is None and row["completion"] is not None]
    holding = [row for row in answered if anchors(row["completion"])]
    return {
        "mean_anchors": [(row["video"], float(len(anchors(row["completion"])))) for row in answered],
        "answer_is_last_anchor": [(row["video"], float(_repeats(row["completion"], contract))) for row in holding],
        "refinement_rate": [
            (row["video"], float(nearer))
            for row in holding
            for nearer in refined(anchor_overlaps(row["completion"], as_sample(row)))
        ],
    }


def _text(row: Mapping) -> str:
    return row["completion"] or "" if row["missing"] is None else ""


def _repeats(text: str, contract: AnswerContract) -> bool:
    """Whether the answer is the last anchor."""
    answer, last = PARSERS[contract.reward](text), anchors(text)[-1]
    return answer is not None and all(abs(a - b) <= SAME for a, b in zip(answer, last, strict=True))
