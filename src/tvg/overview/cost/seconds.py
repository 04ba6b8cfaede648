"""How long a job takes: measured in this store, else scaled from a reference, else unknown.

Estimates are pairs (low, high) in seconds on one device; a measured one has both ends equal.
"""

import csv
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tvg.errors import TvgError
from tvg.overview import states
from tvg.overview.cost.counts import Counts, asks_a_model, per_step
from tvg.overview.cost.figures import TIMED, Reference, Timed
from tvg.overview.cost.sizes import origin, parameters
from tvg.overview.layout import UNKNOWN
from tvg.overview.text import listed
from tvg.select import asks
from tvg.settings import Closed, Runtime
from tvg.spec import (
    AwbcSpec,
    CollectSpec,
    DataStageSpec,
    EvaluationSpec,
    FilterSpec,
    Model,
    SftSpec,
    StageSpec,
)
from tvg.store import Store, identify, read_data_stage, read_spec, read_stage

NO_MODEL = "asks no model"
TEXT = "reads completions, which are text: seconds"
LEAST_ROWS = 3  # steps that a pace needs


@dataclass(frozen=True)
class Estimate:
    """Seconds of the whole job on one `device`; None: nothing to go by. source: in words."""

    low: float | None
    high: float | None
    source: str
    device: Literal["GPU", "CPU"] | None = None

    def times(self, factor: float) -> "Estimate":
        if self.low is None or self.high is None:
            return self
        return Estimate(self.low * factor, self.high * factor, self.source, self.device)

    def at_most(self) -> "Estimate":
        """The same for work of which only the most is known: it may be next to none."""
        return Estimate(None if self.low is None else 0.0, self.high, self.source, self.device)


class Measured(NamedTuple):
    """A finished or begun job of this store. each: seconds a rollout, a sample, a question or an answer."""

    ident: str
    spec: StageSpec | EvaluationSpec | FilterSpec
    each: float
    device: str
    when: float


class Costs:
    """Estimates of one store under one runtime."""

    def __init__(self, store: Store, runtime: Runtime, counts: Counts):
        self.store, self.runtime, self.counts = store, runtime, counts

    def training(self, spec: StageSpec, steps: int | None) -> Estimate:
        """`steps` more optimiser steps of a stage."""
        if steps is None:
            return Estimate(None, None, "the number of steps is not known yet")
        found = self._newest([m for m in self.stages if _alike(m.spec, spec)], identify(spec))
        if found:
            each, source, device = found
            return Estimate(each, each, f"{source}, per {_unit(spec)}, the steps alone", device).times(
                units(spec) * steps
            )
        return _reference(spec, self.runtime).times(steps)

    def evaluation(self, spec: EvaluationSpec, questions: int | None) -> Estimate:
        """`questions` more answers."""
        if not asks_a_model(spec):
            return Estimate(0.0, 0.0, NO_MODEL, "CPU")
        if questions is None:
            return Estimate(None, None, "the number of queries is not known yet")
        alike = [m for m in self.evaluations if origin(m.spec.model) == origin(spec.model)]
        found = self._newest(alike, identify(spec))
        if found:
            each, source, device = found
            return Estimate(each, each, f"{source}, per question", device).times(questions)
        batch, longest = self.runtime.evaluate_batch, spec.settings.max_completion_tokens
        return _reference_answer(spec.model, batch, longest, self.runtime).times(questions)

    def choice(self, spec: DataStageSpec, answers: int | None) -> Estimate:
        """`answers` more answers of a filter's model; a choice that asks none takes seconds."""
        if isinstance(spec, CollectSpec) or not asks(spec):
            return Estimate(0.0, 0.0, TEXT if isinstance(spec, CollectSpec) else NO_MODEL, "CPU")
        if answers is None:
            return Estimate(None, None, "the number of samples is not known yet")
        for jobs, unit in ((self.filters, "answer"), (self.evaluations, "question of an evaluation")):
            found = self._newest([m for m in jobs if origin(m.spec.model) == origin(spec.model)], identify(spec))
            if found:
                each, source, device = found
                return Estimate(each, each, f"{source}, per {unit}", device).times(answers)
        batch, longest = self.runtime.generate_batch, spec.max_completion_tokens
        return _reference_answer(spec.model, batch, longest, self.runtime, spec.num_generations).times(answers)

    @cached_property
    def stages(self) -> list[Measured]:
        """Trainings that have a pace, of whatever plan."""
        found = []
        for folder in sorted((self.store.root / "stages").glob("*-*")):
            rows, run = states.tail(folder / "metrics.jsonl"), states.read_json(folder / "run.json")
            seconds = states.pace(rows, recent=len(rows)) if len(rows) >= LEAST_ROWS else None
            if seconds is None and run.get("exit") == 0 and run.get("steps"):
                seconds = run.get("seconds", 0) / run["steps"]
            spec = _spec(folder / "spec.json", read_stage) if seconds else None
            if spec is not None and hasattr(spec, "init"):
                when = (folder / "run.json").stat().st_mtime if run else 0.0
                device = str(run.get("device", "a device that is not recorded"))
                found.append(Measured(folder.name, spec, seconds / units(spec), device, when))
        return found

    @cached_property
    def evaluations(self) -> list[Measured]:
        """Evaluations that Snakemake has timed: loading the model is in their seconds, as in a new one's."""
        found = self._timed("evaluate", partial(read_spec, EvaluationSpec), self.store.evaluation, "predictions.jsonl")
        return [one for one in found if asks_a_model(one.spec)]

    @cached_property
    def filters(self) -> list[Measured]:
        """Filters that Snakemake has timed."""
        found = self._timed("select", read_data_stage, self.store.stage, "answers.jsonl")
        return [one._replace(each=one.each / one.spec.num_generations) for one in found if one.spec.kind == "filter"]

    def _timed(
        self, rule: str, read: Callable[[Path], Closed], folder: Callable[[str], Path], file: str
    ) -> list[Measured]:
        """Jobs of a rule. each: seconds a line of the file that they have written into their folder."""
        found = []
        for path in sorted((self.store.root / "benchmarks" / rule).glob("*.tsv")):
            written, seconds = folder(path.stem) / file, _timed(path)
            spec = _spec(self.store.spec(path.stem), read) if seconds else None
            rows = states.lines(written) if written.exists() else 0
            if spec is not None and rows:
                found.append(Measured(path.stem, spec, seconds / rows, self._device, path.stat().st_mtime))
        return found

    @property
    def _device(self) -> str:
        """Where the newest training ran: evaluations and filters are taken to have run there as well."""
        newest = max(self.stages, key=lambda m: m.when, default=None)
        return newest.device if newest else "this machine"

    def _newest(self, found: list[Measured], own: str) -> tuple[float, str, Literal["GPU", "CPU"]] | None:
        """The job's own pace, else the median of its like on the device that ran last."""
        found = [m for m in found if m.ident == own] or found
        if not found:
            return None
        device = max(found, key=lambda m: m.when).device
        here = [m for m in found if m.device == device]
        told = here[0].ident if len(here) == 1 else f"{len(here)} jobs of this kind and model, median"
        kind = "CPU" if device.startswith("cpu") else "GPU"
        return statistics.median(m.each for m in here), f"measured in this store ({told}; {device})", kind


def units(spec: StageSpec) -> int:
    """Sequences that one step learns from: rollouts, or samples."""
    return per_step(spec) * (1 if isinstance(spec, SftSpec) else spec.num_generations)


def _unit(spec: StageSpec) -> str:
    return "sample" if isinstance(spec, SftSpec) else "rollout"


def _alike(one: StageSpec, other: StageSpec) -> bool:
    """Same kind of training of the same model, whole or by adapters."""
    same = one.kind == other.kind and (one.lora is None) == (other.lora is None)
    return same and origin(one.init) == origin(other.init)


def _reference(spec: StageSpec, runtime: Runtime) -> Estimate:
    """One step, from the one measurement."""
    scale, why = _scale(spec.init)
    if scale is None:
        return Estimate(None, None, why)
    if isinstance(spec, SftSpec):
        seconds = (
            _pass(TIMED[runtime.policy].learning, spec, Reference.completion_tokens, 1, runtime) * spec.batch * scale
        )
        said = _said(why, f"samples (responses of {Reference.completion_tokens} tokens)", "their length")
        return Estimate(seconds, seconds, said, "GPU")
    ends = [_group(spec, completion, runtime) * scale for completion in _completions(spec.max_completion_tokens)]
    said = _said(why, "rollouts", "tokens generated", "the length of what is learnt from", lengths=ends[0] != ends[1])
    if isinstance(spec, AwbcSpec):
        said = f"no stage of kind awbc was ever measured; as a grpo stage without a reference: {said}"
    return Estimate(ends[0], ends[1], said, "GPU").times(spec.prompts_per_step)


def _pass(seconds: float, spec: StageSpec, completion: int, rollouts: int, runtime: Runtime) -> float:
    """Of a pass over one prompt's rollouts, from the `seconds` of the pass that was measured."""
    timed = TIMED[runtime.policy]
    measured = timed.tokens(Reference.prompt_tokens, Reference.completion_tokens, Reference.rollouts)
    return seconds * timed.tokens(_prompt_tokens(spec), completion, rollouts) / measured


def _group(spec: StageSpec, completion: int, runtime: Runtime) -> float:
    """Seconds of one prompt's rollouts: generated, scored by the reference where there is one, learnt from."""
    timed, rollouts = TIMED[runtime.policy], spec.num_generations
    passes = timed.learning + (timed.scoring if getattr(spec, "beta", 0) > 0 else 0)
    generation = timed.first + _decoding(timed, completion) * rollouts / Reference.rollouts
    return generation + _pass(passes, spec, completion, rollouts, runtime)


def _decoding(timed: Timed, completion: int) -> float:
    """Seconds of as many rollouts as were measured, from the first token on."""
    return (timed.generation - timed.first) * completion / Reference.completion_tokens


def _reference_answer(model: Model, batch: int, longest: int, runtime: Runtime, of_a_prompt: int = 1) -> Estimate:
    """One answer of at most `longest` tokens, one of so many of its prompt, from generation in the one measurement."""
    scale, why = _scale(model)
    if scale is None:
        return Estimate(None, None, why)
    timed, side_by_side = TIMED[runtime.policy], min(batch, Reference.rollouts)
    ends = [
        (timed.first / of_a_prompt + _decoding(timed, completion) / side_by_side) * scale
        for completion in _completions(longest)
    ]
    said = _said(why, "batches of prompts", "tokens generated", lengths=ends[0] != ends[1])
    return Estimate(ends[0], ends[1], said, "GPU")


def _completions(limit: int) -> tuple[int, int]:
    """Tokens of a completion, least and most: as measured, and as long as it may be."""
    return min(limit, Reference.completion_tokens), limit


def _prompt_tokens(spec: StageSpec) -> float:
    """A prompt whose frames take their whole budget."""
    visual = spec.data.frames.frames.total_pixels / 28**2
    return visual + Reference.prompt_tokens - Reference.visual_tokens


def _scale(model: Model) -> tuple[float | None, str]:
    """How many times the measured model's parameters this one has; None and why, where that says nothing."""
    counts = parameters(model)
    if counts is None:
        return None, "the size of the model cannot be told"
    if counts.total < Reference.least_parameters:
        return None, f"{UNKNOWN} until one has run here: so small a model's time does not follow from a large one's"
    ratio = counts.total / Reference.parameters
    return ratio, "" if abs(ratio - 1) < 0.01 else f"parameters ({ratio:.2f} times as many)"


def _said(by_parameters: str, *linear: str, lengths: bool = False) -> str:
    """How the reference was scaled. lengths: completions may be shorter than their limit."""
    told = f"scaled from the reference below, linear in {listed([*linear, *filter(None, [by_parameters])])}"
    if lengths:
        ends = f"the low end is for completions of {Reference.completion_tokens} tokens, the high end for the longest"
        told += f"; {ends} that are allowed"
    return told


def _spec(path: Path, read: Callable[[Path], Closed]) -> Any:
    """A spec of the store; None where it is absent or of another version of this code."""
    try:
        return read(path)
    except (TvgError, ValueError):
        return None


def _timed(path: Path) -> float | None:
    """Seconds in a benchmark file of Snakemake."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        return float(row["s"])
    except (OSError, StopIteration, KeyError, ValueError):
        return None
