"""Text in, text out: JSONL on stdin to JSONL on stdout, so that every part can be tried and scripted without a GPU."""

import json
import logging
import sys
from collections.abc import Callable

from tvg.cli.shared import Arguments, Declare, add_dials, plan_of, say
from tvg.parse import PARSERS

log = logging.getLogger(__name__)


def add(declare: Declare) -> None:
    parser = declare(verbs, "the verbs of each line of JSONL", """<<< '{"text": "she sits down"}'""")
    parser.add_argument("--backend", choices=("spacy_sm", "standin"), help="default: the configured scale's")
    add_dials(parser)
    parser = declare(
        parse,
        "the segment in each line of JSONL",
        """--format strict_answer <<< '{"text": "<answer>1 to 2</answer>"}'""",
    )
    parser.add_argument("--format", required=True, choices=sorted(PARSERS), help="a rule of tvg.parse")


def verbs(a: Arguments) -> int:
    from tvg.inversion.verbs import extractor

    backend = a.backend or plan_of(a).scale.verbs
    extract = extractor(backend)
    return each_line(lambda row: {"verbs": [verb.lemma for verb in extract(row["text"])], "backend": backend})


def parse(a: Arguments) -> int:
    return each_line(lambda row: {"segment": PARSERS[a.format](row["text"])})


def each_line(answer: Callable[[dict], dict]) -> int:
    """JSONL on stdin to JSONL on stdout: order kept, unknown keys passed on, a broken line named, the rest done."""
    broken = 0
    for number, line in enumerate(sys.stdin, 1):
        try:
            row = json.loads(line)
            row |= answer(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            broken += 1
            row = {"line": number, "error": f"{type(error).__name__}: {error}"}
            log.error("line %d: %s", number, row["error"])
        say(json.dumps(row, ensure_ascii=False))
    return 1 if broken else 0
