"""Is it learning what it is asked? A few samples of the training set, always the same, answered greedily now and then.

They are of the training set: what they show is learning, not generalisation, and no number of theirs belongs in a
table. Which ones depends on the samples' ids alone, so that runs of any seed can be compared. They are asked as
`ground` and as the inversion tasks, as far as the stage trains these, and scored as an evaluation would. In
metrics.jsonl, in the row of the step: `fixed_set/r1_at_0.5`, `fixed_set/miou`, `fixed_set/format_rate` (all of
`ground`), `fixed_set/{task}` (accuracy of an inversion task), all in [0, 1], and `fixed_set/seconds`.

The training does not notice: neither weights nor random numbers change.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from tvg.evaluate.metrics import HEADLINE, score
from tvg.evaluate.predictions import unanswered
from tvg.inversion.verbs import extractor
from tvg.model.policy import Policy, Sampling
from tvg.model.question import context
from tvg.parse import FORMATS, strict_answer
from tvg.prompts import target
from tvg.sample import INVERSION_TASKS, Sample
from tvg.settings import Prompt, Runtime
from tvg.spec import SftSpec, StageSpec
from tvg.train import processes
from tvg.train.arguments import precision
from tvg.train.schedule import seed_of
from tvg.train.signals import Stop
from tvg.video.decode import Frames

METRICS = (HEADLINE, "miou", "format_rate")
SECONDS = "fixed_set/seconds"


class FixedSet:
    """The samples, and the policy that is asked. frames: of each video."""

    def __init__(
        self, spec: StageSpec, runtime: Runtime, policy: Policy, samples: Sequence[Sample],
        frames: Mapping[str, Frames], device: str, stop: Stop,
    ):  # fmt: skip
        self.spec, self.runtime, self.policy, self.frames, self.stop = spec, runtime, policy, frames, stop
        back_end = spec.data.samples.verbs
        self.extractor = extractor(back_end) if back_end else None
        self.device, self.half = torch.device(device), precision(runtime, device) == "bfloat16"
        self.asked = asked(spec, samples, runtime.fixed_set_count, inversion=back_end is not None)

    def due(self, step: int, steps: int) -> bool:
        """After the first step, after every `fixed_set_every`-th, after the last; with 0, never."""
        every = self.runtime.fixed_set_every
        return bool(self.asked) and every > 0 and (step in (1, steps) or step % every == 0)

    def __call__(self) -> dict[str, float | None]:
        """The values of the policy as it is now. Raises Interrupted once the job is asked to stop."""
        began, on_gpu = time.monotonic(), self.device.type == "cuda"
        with (
            torch.random.fork_rng(devices=[self.device] if on_gpu else []),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half),
        ):
            rows = processes.gathered(list(self._rows()))
        found = score(rows, self.spec.prompt.answer, self.extractor)
        values = {f"fixed_set/{name}": found.get(name) for name in METRICS}
        values |= {f"fixed_set/{task}": one["accuracy"] for task, one in found["actions"].items()}
        return values | {SECONDS: time.monotonic() - began}

    def _rows(self) -> Iterator[dict]:
        """An answered row of a prediction file for each question; several processes share them batch by batch."""
        sampling, size = Sampling(self._room(), temperature=0.0), self.runtime.evaluate_batch
        for first in range(0, len(self.asked), size * processes.count()):
            self.stop.check()
            batch = self.asked[first + size * processes.rank() :][:size]
            if not batch:
                continue
            contexts = [context(self.policy, prompt, sample, self.frames[sample.video]) for sample, prompt in batch]
            answers = self.policy.generate(contexts, sampling, seeds=[0] * len(batch))
            for (sample, prompt), ids in zip(batch, answers, strict=True):
                yield answered(sample, prompt, self.policy.decode(ids))

    def _room(self) -> int:
        """Tokens of an answer: what a rollout may have, or twice what is taught."""
        if not isinstance(self.spec, SftSpec):
            return self.spec.max_completion_tokens
        taught = (target(sample, prompt.answer) for sample, prompt in self.asked)
        return 2 * max(len(self.policy.tokenizer(text)["input_ids"]) for text in taught)


def asked(
    spec: StageSpec, samples: Sequence[Sample], count: int, inversion: bool = True
) -> list[tuple[Sample, Prompt]]:
    """Questions: `count` of the samples under each task that the stage trains, with the first prompt that asks it.

    inversion: whether verbs were extracted; a sample without one is not asked for it. `caption` is never asked.
    """
    distinct = {sample.id: sample for sample in samples}
    chosen = sorted(distinct.values(), key=lambda sample: seed_of("fixed set", sample.id))[:count]
    prompts = (spec.prompt, *(spec.more_prompts if isinstance(spec, SftSpec) else ()))
    found = []
    for task in ("ground", *(INVERSION_TASKS if inversion else ())):
        prompt = next((prompt for prompt in prompts if task in prompt.texts), None)
        if task in spec.every_task and prompt:
            found += [(s.with_task(task), prompt) for s in chosen if task == "ground" or s.verbs]
    return found


def answered(sample: Sample, prompt: Prompt, text: str) -> dict:
    """A row of a prediction file."""
    return unanswered(sample, sample.task) | {
        "completion": text,
        "predicted": strict_answer(text) if sample.task == "ground" else None,
        "format": FORMATS[prompt.answer.format_of(sample.task)](text),
        "missing": None,
    }
