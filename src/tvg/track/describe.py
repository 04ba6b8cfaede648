"""Settings and predictions as MLflow shows them: flat, short, readable."""

from collections.abc import Iterator
from typing import Any

from tvg.segment import Segment, tiou
from tvg.settings import Closed
from tvg.spec import EvaluationSpec, Floor, HubModel, ScratchModel, TrainedModel
from tvg.store import identify

SHOWN = 50  # predictions in the sample


def settings(spec: Closed) -> dict[str, str]:
    """What sets a spec apart from its neighbours: learning_rate, tasks.ground, init, ...; prompt texts stay out."""
    model = spec.model if isinstance(spec, EvaluationSpec) else spec.init
    own = {"kind", "version", "versions", "init", "model", "data", "prompt", "settings", "benchmark"}
    kept = spec.model_dump(mode="json", exclude=own)
    kept |= spec.settings.model_dump(mode="json") if isinstance(spec, EvaluationSpec) else {}
    samples = spec.data.samples
    kept |= {
        "model" if isinstance(spec, EvaluationSpec) else "init": weights(model),
        "data": f"{samples.dataset.name}/{samples.split}",
        "data_limit": spec.data.limit,
        "verbs": samples.verbs,
        "frames": spec.data.frames.frames.model_dump(mode="json"),
        "answer": spec.prompt.answer.model_dump(mode="json"),
    }
    return {key: str(value) for key, value in flatten(kept, ".") if value is not None}


def weights(model: Closed) -> str:
    """Weights in a few characters."""
    match model:
        case TrainedModel():
            return identify(model.stage)
        case HubModel():
            return f"{model.hub}@{model.revision[:12]}"
        case ScratchModel():
            return f"scratch, seed {model.seed}"
        case Floor():
            return model.floor
        case _:
            return model.path


def ancestors(spec: Closed | dict) -> Iterator[str]:
    """Ids of the trainings whose weights a stage or an evaluation starts from, last first."""
    model = getattr(spec, "model", None) or getattr(spec, "init", None)
    while isinstance(model, TrainedModel):
        yield identify(model.stage)
        model = model.stage.init


def flatten(values: dict[str, Any], between: str) -> Iterator[tuple[str, Any]]:
    """Leaves with joined names; a pair is an interval: low, high."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{key}{between}{name}", leaf) for name, leaf in flatten(value, between))
        elif isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
            yield from ((f"{key}{between}{name}", leaf) for name, leaf in zip(("low", "high"), value, strict=True))
        else:
            yield key, value


def sample(rows: list[dict]) -> str:
    """Predictions spread evenly over the file, as a Markdown table."""
    chosen = rows[:: max(1, -(-len(rows) // SHOWN))]
    lines = [f"{len(chosen)} of {len(rows)} predictions; the file itself is predictions.jsonl. Times in seconds.", ""]
    lines += ["| task | query | truth | predicted | tIoU | completion |", "| :-- | :-- | :-- | :-- | --: | :-- |"]
    for row in chosen:
        predicted = Segment(*row["predicted"]) if row["predicted"] else None
        best = max((tiou(predicted, Segment(*truth)) for truth in row["segments"]), default=0.0) if predicted else None
        cells = [
            row["task"],
            row["query"],
            ", ".join(f"{start:.1f} to {end:.1f}" for start, end in row["segments"]),
            "{:.1f} to {:.1f}".format(*predicted) if predicted else row["missing"] or "–",
            "–" if best is None else f"{best:.2f}",
            "`{}`".format((row["completion"] or "–")[:200].replace("`", "'")),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def signs(warnings: list[dict], verbs: list[dict]) -> dict[str, str]:
    """Tags of a training: what it is warned of, and the verbs that most of its newest inversion rollouts name.

    >>> signs([{"step": 9, "name": "generic_verbs", "text": "..."}], [{"step": 4, "top": [["open", 0.75]]}])
    {'warning.generic_verbs': 'step 9: ...', 'verbs': 'open 75 %'}
    """
    tags = {f"warning.{row['name']}": f"step {row['step']}: {row['text']}" for row in warnings}
    named = ", ".join(f"{verb} {100 * share:.0f} %" for row in verbs[-1:] for verb, share in row["top"])
    return tags | ({"verbs": named} if named else {})


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
