"""TaRO's constructive exploration: rollouts that begin with a walk through the video, made of dense captions.

Each rollout of a group is given its own: a subset of the captions, drawn at random and put into the order of time
(systems.md 2.8; section 8, row 29).
"""

import logging
import random
import re
from collections.abc import Sequence

from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.spec import AwbcSpec
from tvg.train.schedule import SEED_BITS, moved, progress
from tvg.train.stage import Job

log = logging.getLogger(__name__)
Caption = tuple[float, float, str]


def drawn(captions: Sequence[Caption], seed: int) -> list[Caption]:
    """k of the n captions, k from 1 to n with equal chance, in the order in which they were drawn."""
    draw = random.Random(seed)
    return draw.sample(list(captions), draw.randint(1, len(captions)))


def prefix(template: str, query: str, captions: Sequence[Caption]) -> str:
    """The template with {query} and {captions} filled in, literally, whatever they hold; a line a caption.

    >>> prefix("<think>{query}\\n{captions}\\n", "a person runs", [(4.0, 9.04, "a cat sits"), (0.0, 4.0, "a man runs")])
    '<think>a person runs\\nFrom 0.0s to 4.0s, a man runs\\nFrom 4.0s to 9.0s, a cat sits\\n'
    """
    lines = [f"From {start:.1f}s to {end:.1f}s, {text.strip()}" for start, end, text in sorted(captions)]
    filled = {"query": query.strip(), "captions": "\n".join(lines)}
    return re.sub(r"\{(query|captions)\}", lambda name: filled[name[1]], template)


class Construction:
    """The tokens that each rollout of an awbc stage is made to begin with.

    A prefix leaves at least one token to the model: captions that are too many for that are left out, the last drawn
    first. A rollout is plain where none is left, where its sample has no captions or is asked another task than
    `ground`, and where the draw of its prompt says so (`constructed`, `constructed_end`).
    """

    def __init__(self, job: Job):
        self.job, self.cut = job, 0  # cut: captions left out since the trainer has last asked
        if job.spec.constructed or job.spec.constructed_end:
            _check(job.spec, job.order, job.policy.tokenizer.all_special_tokens)

    def __call__(self, position: int, rollout: int) -> list[int]:
        """Token ids of the prefix; none for a plain rollout. position: in the schedule."""
        sample, spec = self.job.order[position], self.job.spec
        chance = self.job.seed_at(position, "constructed") / 2**SEED_BITS
        end = spec.constructed if spec.constructed_end is None else spec.constructed_end
        share = moved(spec.constructed, end, progress(spec, position, len(self.job.order)))
        if not can_construct(sample) or chance >= share:
            return []
        chosen = drawn(sample.captions, self.job.seed_at(position, rollout, "captions"))
        while chosen:
            text = prefix(spec.prompt.prefix, sample.query, chosen)
            ids = self.job.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) < spec.max_completion_tokens:
                return ids
            chosen.pop()
            self.cut += 1
        return []


def can_construct(sample: Sample) -> bool:
    """Is there a walk through its video to write down?"""
    return sample.task == "ground" and bool(sample.captions)


def _check(spec: AwbcSpec, order: Sequence[Sample], special: Sequence[str]) -> None:
    """Raises TvgError where nothing can be constructed, or a prefix would hold a special token of the model's."""
    samples = {sample.id: sample for sample in order if can_construct(sample)}.values()
    asked = len({sample.id for sample in order})
    if not spec.prompt.prefix or not samples:
        raise TvgError(
            "awbc training",
            "no rollout can be constructed",
            got="samples without captions" if spec.prompt.prefix else "a prompt without `prefix`",
            expected="a prompt with `prefix`, and samples with dense captions",
            hint="name such a prompt and such data, or set `constructed: 0` for plain rollouts",
        )
    if len(samples) < asked:
        log.info(
            "%d of %d samples have no captions to construct from: their rollouts are plain", asked - len(samples), asked
        )
    for sample in samples:
        written = prefix(spec.prompt.prefix, sample.query, sample.captions)
        if found := [token for token in special if token in written]:
            raise TvgError(
                f"sample {sample.id}",
                "its captions or its query hold a special token of the model's",
                got=found[0],
                expected="plain text",
                hint="correct the sample in the annotations",
            )
