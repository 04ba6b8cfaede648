"""Inversion tasks (Invert4TVG, systems.md 2.5): the clip of the true segment is given, what happens in it is asked."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tvg.inversion import verb_completion
from tvg.inversion.verbs import Extractor, sampler_verbs
from tvg.sample import INVERSION_TASKS, Sample, Task


def annotate(samples: Iterable[Sample], extractor: Extractor) -> Iterator[Sample]:
    """Every sample with its query's verbs and, where there is one, the masked query; none is dropped."""
    for sample in samples:
        verbs = sampler_verbs(extractor(sample.query))
        lemmas = tuple(dict.fromkeys(verb.lemma for verb in verbs))
        masked = verb_completion.mask(sample.query, verbs) if verbs else None
        yield replace(sample, verbs=lemmas, masked=masked)


def eligible(sample: Sample, task: Task) -> bool:
    """May the sampler draw this task? A query without a verb has no inversion task (systems.md 8, row 11)."""
    return task not in INVERSION_TASKS or bool(sample.verbs)
