"""Text in, text out: JSONL on stdin to JSONL on stdout, so that every part can be tried and scripted without a GPU."""

import argparse
import inspect
import json
import logging
import math
import textwrap
from pathlib import Path

from tvg.cli.jsonl import Row, each_line, read_lines
from tvg.cli.rewarding import Rewarder
from tvg.cli.rows import Checked, PredictionRow, TextRow, TruthRow
from tvg.cli.shared import Arguments, Declare, add_dials, resolver_of, say
from tvg.errors import TvgError
from tvg.evaluate import protocols
from tvg.evaluate.protocols import PROTOCOLS
from tvg.parse import PARSERS

log = logging.getLogger(__name__)

LINES = """
Each line of stdin is a JSON object and gives one line on stdout, in the same order; other keys are passed on. A broken
line gives {"line", "error"} and its own keys, if it has any; the others are done, and the exit status is 1.
"""
REWARD = """
In: {"completion", "segment": [s, e] (or "segments": [[s, e], ...], of which the best counts), "duration", "task"
("ground" if absent), "query"} and, for the inversion tasks, "verbs": the query's lemmas; where the key is absent they
are extracted as the inversion sampler does, by the scale's back-end. An empty list is a truth: it scores 0. What the
task does not read may be absent. Rows of one "group" are one GRPO group; they need not stand side by side. The reward
`temporal` reads "logprob_drop" and compares it with its mean over the group's unbroken rows; a row without a "group" is
its own, and never above its own mean.

Out: "rewards" {name: value, null where it does not apply}, of the stage's `rewards:` as written; "reward", their
weighted sum, null if none applies; and, with a "group", "advantage": (r - mean) / (std + 1e-4) over the group's
unbroken rows, std with ddof 1 (or by the stage's `scale_rewards`). It is 0 in a group of one, in a group of equal
rewards, and where the reward is null.

The answer's form and its parser are those of the stage's prompt. Default stage: from `evaluate:` along `init:`, the
first with rewards.
"""
SCORE = """
PREDICTIONS: {"id", "completion"} or {"id", "predicted": [s, e] or null}; a text is read by the protocol's parser and
goes before a segment. TRUTH: {"id", "video", "duration", "query", "segments": [[s, e], ...]}. In each an id stands
once.

Out: one object. miou, r1_at_m (IoU > m), r1_ge_m (IoU >= m): fractions of n_scored. n: truth rows. n_scored: the
denominator. missing: truth rows without a prediction. parse_failures: predictions without a readable segment.
threshold: the protocol's own R1. timestamp_rate: the share of n whose reasoning, inside <think>, names a time; absent
where no prediction is a text. note: what else to know; miou is null where the authors' own is NaN.

A broken line is named and left out (broken_predictions, broken_truths), the rest is scored, and the exit status is 1:
a query whose prediction is broken counts as missing, a broken truth is no query.
"""


def add(declare: Declare) -> None:
    parser = declare(verbs, "the verbs of each line of JSONL", """<<< '{"text": "she sits down"}'""")
    parser.add_argument("--backend", choices=("spacy_sm", "standin"), help="default: the configured scale's")
    add_dials(parser)
    _describe(parser, 'In: {"text"}. Out: "verbs", lemmas of all lexical verbs in order, and "backend".', LINES)
    parser = declare(
        parse,
        "the segment in each line of JSONL",
        """--format strict_answer <<< '{"text": "<answer>1 to 2</answer>"}'""",
    )
    parser.add_argument("--format", required=True, choices=sorted(PARSERS), help="a rule of tvg.parse")
    _describe(parser, 'In: {"text"}. Out: "segment", [start, end] in seconds as read, or null.', LINES)
    parser = declare(
        reward,
        "the rewards of each line of JSONL, as a stage computes them",
        """time_r1 <<< '{"completion": "<think>x</think><answer>1 to 2</answer>", "segment": [1, 3], "duration": 9}'""",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT[-ARM]", help="of config/experiments: invert4tvg-cosine")
    parser.add_argument("--stage", help="a stage with rewards; default: the nearest to what is evaluated")
    add_dials(parser)
    _describe(parser, REWARD, LINES)
    parser = declare(
        score,
        "the metrics of a file of predictions",
        "predictions.jsonl --truth truth.jsonl --protocol time_r1",
    )
    parser.add_argument("predictions", metavar="PREDICTIONS", type=Path)
    parser.add_argument("--truth", required=True, type=Path)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="strict", help="default: strict, ours")
    rules = "\n".join(f"  {name:13}{protocol}" for name, protocol in PROTOCOLS.items())
    _describe(parser, SCORE)
    parser.description += f"\n\n{rules}\n\n{inspect.cleandoc(protocols.Protocol.__doc__)}"


def _describe(parser: argparse.ArgumentParser, *texts: str) -> None:
    """Each paragraph of the texts below the one line that the verb has."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    paragraphs = [parser.description, *(part for text in texts for part in text.split("\n\n"))]
    parser.description = "\n\n".join(textwrap.fill(" ".join(part.split()), 100) for part in paragraphs)


def verbs(a: Arguments) -> int:
    from tvg.inversion.verbs import extractor

    backend = a.backend or resolver_of(a).scale.verbs
    extract = extractor(backend)
    return each_line(lambda row: {"verbs": [v.lemma for v in extract(TextRow.of(row).text)], "backend": backend})


def parse(a: Arguments) -> int:
    def segment(row: Row) -> Row:
        found = PARSERS[a.format](TextRow.of(row).text)
        return {"segment": found if found is not None and all(map(math.isfinite, found)) else None}

    return each_line(segment)


def reward(a: Arguments) -> int:
    rewarder = Rewarder(resolver_of(a), a.experiment, a.stage)
    return each_line(rewarder.reward, rewarder.together)


def score(a: Arguments) -> int:
    truths, lost = _read(a.truth, TruthRow)
    answers, broken = _read(a.predictions, PredictionRow)
    if not truths:
        raise TvgError(a.truth, "no query to score", got="no readable row", expected="JSONL of queries",
                       hint='a row is {"id", "video", "duration", "query", "segments"}')  # fmt: skip
    _refuse_strangers(a, [key for key in answers if key not in truths], lost)
    found = protocols.score(
        PROTOCOLS[a.protocol],
        {key: row.answer() for key, row in answers.items()},
        {key: row.true() for key, row in truths.items()},
    )
    counts = {"broken_predictions": len(broken), "broken_truths": len(lost)}
    say(json.dumps({"protocol": a.protocol, **found, **counts}, ensure_ascii=False, allow_nan=False))
    return 1 if broken or lost else 0


def _read(path: Path, kind: type[Checked]) -> tuple[dict, list]:
    """id -> row, and of each broken line its id, None where that cannot be read either.

    Raises TvgError if there is no such file, or an id stands in it twice.
    """
    rows, places, broken = {}, {}, []
    try:
        with path.open("rb") as stream:
            lines = list(read_lines(stream))
    except OSError as error:
        raise TvgError(
            path, "cannot read this file", got=error.strerror, expected="JSONL", hint="see `tvg score --help`"
        ) from error
    for line in lines:
        try:
            if line.error is not None:
                raise ValueError(line.error)
            row = kind.of(line.row)
        except ValueError as error:
            log.error("%s:%d: %s", path, line.number, error)
            broken.append(line.row.get("id"))
            continue
        if row.id in rows:
            raise TvgError(
                path, f"two rows of one id: {row.id!r}", got=f"lines {places[row.id]} and {line.number}",
                expected="one row an id", hint="leave one of them out",
            )  # fmt: skip
        rows[row.id], places[row.id] = row, line.number
    return rows, broken


def _refuse_strangers(a: Arguments, strangers: list, lost: list) -> None:
    """A prediction to no query is an error, unless a broken truth row can be its query."""
    unknown = [key for key in strangers if key not in lost]
    unreadable = lost.count(None)
    if len(unknown) > unreadable:
        raise TvgError(
            a.predictions, f"predictions to queries that {a.truth} does not have",
            got=f"{len(unknown)} ids, such as {unknown[0]!r}", expected="ids of the truth", hint="score what it is of",
        )  # fmt: skip
    if strangers:
        log.error("%s: %d predictions are not scored: their truth is broken", a.predictions, len(strangers))
