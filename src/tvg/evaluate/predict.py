"""Answers of one model, or of a floor, to every query of a benchmark: predictions.jsonl, greedy, resumable."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import torch

from tvg.evaluate import floors
from tvg.evaluate.record import Run
from tvg.model.exhausted import Work
from tvg.model.load import dtype_for, load
from tvg.model.policy import Sampling
from tvg.model.question import context, visible
from tvg.model.qwen import QwenPolicy
from tvg.parse import FORMATS, PARSERS, strict_answer
from tvg.progress import progress
from tvg.sample import Sample, read_samples, write_lines
from tvg.segment import Segment
from tvg.settings import FramesSettings, Prompt, Runtime
from tvg.spec import EvaluationSpec, Floor
from tvg.store import Store
from tvg.video.cache import FrameCache
from tvg.video.decode import sample as decode

log = logging.getLogger(__name__)
Key = tuple[str, str]  # id and task


def predict(spec: EvaluationSpec, store: Store, runtime: Runtime, device: str | None = None) -> Path:
    """Write predictions.jsonl, one row a query and task, in the order of the samples; returns its path.

    A killed run goes on where it stopped, from predictions.partial.jsonl. A video without frames gets a row too,
    whose `missing` says why. Beside it, where a model was asked, run.json (tvg.evaluate.record).
    """
    final = store.evaluation(spec) / "predictions.jsonl"
    if final.exists():
        log.info("%s is there already", final)
        return final
    asked = _asked(spec, store)
    if isinstance(spec.model, Floor):
        write_lines(final, map(_line, _floor_rows(spec.model, asked, store)))
        return final
    partial = final.with_name("predictions.partial.jsonl")
    rows = _resumed(partial)
    if not rows:  # a run.json of answers that somebody has deleted
        final.with_name("run.json").unlink(missing_ok=True)
    todo = [sample for sample in asked if _key(sample) not in rows]
    log.info("%d queries to answer, %d answered before", len(todo), len(asked) - len(todo))
    with partial.open("a", encoding="utf-8") as out:
        for row in _model_rows(spec, todo, store, runtime, device) if todo else ():
            out.write(_line(row) + "\n")
            out.flush()
            rows[row["id"], row["task"]] = row
    write_lines(final, (_line(rows[_key(sample)]) for sample in asked))
    partial.unlink()
    return final


def ground(
    policy: QwenPolicy, prompt: Prompt, video: Path, query: str, settings: FramesSettings, max_new_tokens: int
) -> dict:
    """One query on any video. segment: [start, end] in seconds or None; duration in seconds; frames: how many."""
    frames = decode(Path(video), settings)
    sample = Sample("query", Path(video).name, frames.duration, query, ())
    ids = policy.generate([context(policy, prompt, sample, frames)], Sampling(max_new_tokens, temperature=0.0), [0])[0]
    completion = policy.decode(ids)
    segment = strict_answer(completion)
    return {
        "segment": list(segment) if segment else None,
        "completion": completion,
        "duration": frames.duration,
        "frames": len(frames.pixels),
        "fps": frames.fps,
        "tokens": len(ids),
    }


def _key(sample: Sample) -> Key:
    return sample.id, sample.task


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


def _asked(spec: EvaluationSpec, store: Store) -> list[Sample]:
    """Every sample as every task; the inversion tasks ask about the query's verb, so it must have one."""
    samples = islice(read_samples(store.samples(spec.data.samples)), spec.data.limit)
    return [s.with_task(task) for s in samples for task in spec.settings.tasks if task == "ground" or s.verbs]


def _resumed(partial: Path) -> dict[Key, dict]:
    """The rows of a killed run; its last line may be cut short, and is then answered again."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    rows = {}
    with suppress(FileNotFoundError), partial.open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):
                row = json.loads(line)
                rows[row["id"], row["task"]] = row
    write_lines(partial, map(_line, rows.values()))
    return rows


def _model_rows(
    spec: EvaluationSpec, samples: list[Sample], store: Store, runtime: Runtime, device: str | None
) -> Iterator[dict]:
    cache = FrameCache(store.frames(spec.data.frames))
    seen = [sample for sample in samples if sample.video in cache]
    if absent := [sample for sample in samples if sample.video not in cache]:
        log.warning("%d of %d queries have no frames; they count as wrong", len(absent), len(samples))
    for sample in absent:
        yield _row(sample, missing=cache.failures.get(sample.video, "not in the frame cache"))
    if not seen:
        return
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype, began = dtype_for(runtime.precision, device), time.monotonic()
    policy = load(
        spec.model, store, device=device, dtype=dtype, policy=runtime.policy, compiled=runtime.compile
    )  # fmt: skip
    seconds, precision = time.monotonic() - began, str(dtype).removeprefix("torch.")
    with Run(store.evaluation(spec), runtime, device, precision, load_seconds=seconds) as run:
        for batch in progress(_batches(seen, cache, runtime.evaluate_batch), "predicting", unit="batches"):
            yield from _answers(policy, spec, batch, cache, run)


def _batches(samples: list[Sample], cache: FrameCache, size: int) -> list[list[Sample]]:
    """Samples of like length together, the longest first, so that what does not fit into memory fails at once."""
    ordered = sorted(samples, key=lambda sample: -visible(sample, cache[sample.video]).pixels.size)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _answers(
    policy: QwenPolicy, spec: EvaluationSpec, samples: list[Sample], cache: FrameCache, run: Run
) -> Iterator[dict]:
    contexts = [context(policy, spec.prompt, sample, cache[sample.video]) for sample in samples]
    sampling = Sampling(spec.settings.max_completion_tokens, temperature=0.0)
    began, work = time.monotonic(), Work()
    work("queries are answered", [sample.id for sample in samples], contexts)
    hint = f"lower `evaluate_batch` of the scale's `runtime`: {len(samples)} at once; what is answered is kept"
    with work.told(lambda: f"evaluation on {spec.benchmark}", hint):
        answers = policy.generate(contexts, sampling, seeds=[0] * len(samples))
    seconds, contract = time.monotonic() - began, spec.prompt.answer
    for sample, ids in zip(samples, answers, strict=True):
        text = policy.decode(ids)
        read = sample.task == "ground"
        yield _row(
            sample,
            completion=text,
            predicted=strict_answer(text) if read else None,
            legacy=PARSERS[contract.legacy](text) if read and contract.legacy else None,
            format=FORMATS[contract.format_of(sample.task)](text),
            tokens=len(ids),
        )
    run.answered(seconds, answers)


def _floor_rows(floor: Floor, asked: list[Sample], store: Store) -> Iterator[dict]:
    fitted = floors.fit_constant_window(list(read_samples(store.samples(floor.fit)))) if floor.fit else None
    for sample in asked:
        if sample.task == "ground" and floor.floor == "whole_video":
            yield _row(sample, predicted=floors.whole_video(sample.duration))
        elif sample.task == "ground":
            yield _row(sample, predicted=floors.constant_window(fitted, sample.duration))


def _row(
    sample: Sample, *, completion: str | None = None, predicted: Segment | None = None, legacy: Segment | None = None,
    format: bool = False, missing: str | None = None, tokens: int = 0,
) -> dict:  # fmt: skip
    return {
        "id": sample.id,
        "video": sample.video,
        "task": sample.task,
        "query": sample.query,
        "segments": [list(segment) for segment in sample.segments],
        "duration": sample.duration,
        "verbs": list(sample.verbs) if sample.verbs is not None else None,
        "completion": completion,
        "predicted": list(predicted) if predicted else None,
        "legacy": list(legacy) if legacy else None,
        "format": format,
        "missing": missing,
        "tokens": tokens,
    }
