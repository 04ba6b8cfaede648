"""One page, results/{scale}/report/{name}.html: tables, plots, examples, missing videos, run facts, all in it."""

import base64
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from tvg.evaluate import metrics
from tvg.report import runs, tables
from tvg.report.build import Built, build, leading
from tvg.report.layout import Row
from tvg.report.plots import draw
from tvg.report.runs import BASE, Scored, Training
from tvg.sample import write_lines

log = logging.getLogger(__name__)

EXAMPLES = 6
TRAINING_PLOTS = {
    "rewards": "Mean reward of each training: smoothed over a tenth of it, raw values faint.",
    "curves": "The trainings of the first table, in all that they log. The fixed samples are of the training set.",
    "offsets": "How late answers start and end. A bias shows as a shifted hill, a guess at fixed places as a wide one.",
}


def write(root: Path, name: str, names: Sequence[str], config: Path = Path("config")) -> Path:
    """report/{name}.html under `root` (results/{scale}), of the tables `names`, with its plots in plots/{name}/."""
    built = {table: build(table, root, config) for table in names}
    ours = [line.row for one in built.values() for line in one.rows if line.row.ours_at(root.name)]
    arms = {(row.experiment, row.arm) for row in ours}
    trainings, shown = runs.trainings(root, arms), leading(built.values())
    plots = {path.stem: _inline(path) for path in draw(built, trainings, root / "plots" / name)}
    loader = Environment(loader=PackageLoader("tvg.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = loader.get_template("page.html").render(
        scale=root.name,
        reductions=sorted({word for one in built.values() for word in one.reductions}, reverse=True),
        sections=[_section(one, plots[table]) for table, one in built.items()],
        training=[(plots[plot], text) for plot, text in TRAINING_PLOTS.items()],
        examples=examples(shown),
        runs=list(shown),
        missing=missing(built),
        facts=[_fact(training) for training in trainings],
    )
    path = root / "report" / f"{name}.html"
    write_lines(path, page.splitlines())
    log.info("wrote %s, %.1f MB", path, path.stat().st_size / 1e6)
    return path


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _section(built: Built, plot: str) -> dict:
    blocks = tables.blocks(built, _cell)
    rows, group = [], None
    for k, line in enumerate(built.rows):
        rows.append(
            {
                "label": line.row.label,
                "group": line.group if line.group != group else None,
                "cells": [block.cells[k] for block in blocks],
            }
        )
        group = line.group
    return {
        "name": built.name,
        "title": built.table.title,
        "paper": built.table.paper,
        "blocks": blocks,
        "rows": rows,
        "plot": plot,
        "wide": sum(len(block.headers) for block in blocks) + 1,
        "legend": tables.legend(built),
        "footer": tables.footer(built),
    }


def _cell(line: dict, metric: str) -> str:
    """The mean, below it the interval and the seeds' range in small."""
    value, *rest = tables.full(line, metric).replace(" [", "\n[").replace(" (", "\n(").split("\n")
    return escape(value) + Markup("").join(Markup("<small>{}</small>").format(part) for part in rest)


# ---------------------------------------------------------------- examples


def examples(shown: Mapping[str, tuple[Row, Scored]]) -> list[dict]:
    """Queries from best to worst by the last run's overlap, evenly spread, and an unreadable answer if there is one."""
    rows = {
        name: {row["id"]: row for row in one.predictions if row["task"] == "ground"} for name, (_, one) in shown.items()
    }
    rows = {name: by_id for name, by_id in rows.items() if by_id}
    if not rows:
        return []
    judge = list(rows.values())[-1]
    values = dict(zip(judge, metrics.columns(list(judge.values()))["miou"], strict=True))
    read = sorted((i for i in judge if judge[i]["predicted"]), key=lambda i: (-values[i], i))
    last = len(read) - 1
    chosen = list(dict.fromkeys(read[round(k * last / (EXAMPLES - 1))] for k in range(EXAMPLES))) if read else []
    chosen += [i for i in judge if judge[i]["predicted"] is None and judge[i]["missing"] is None][:1]
    return [_example(i, {name: by_id[i] for name, by_id in rows.items() if i in by_id}) for i in chosen]


def _example(ident: str, rows: Mapping[str, dict]) -> dict:
    one = next(iter(rows.values()))
    guesses = [row["predicted"] for row in rows.values() if row["predicted"]]
    end = max(
        [one["duration"], *(s[1] for s in one["segments"]), *(s[1] for s in guesses if s[1] < 2 * one["duration"])]
    )
    bars = [{"name": "truth", "kind": "truth", **_bars(one["segments"], end), "value": ""}]
    for name, row in rows.items():
        overlap = metrics.columns([row])["miou"][0]
        bar = _bars([row["predicted"]] if row["predicted"] else [], end)
        bars.append({"name": name, "kind": "guess", **bar, "value": _verdict(row) or f"tIoU {overlap:.2f}"})
    return {
        "id": ident,
        "query": one["query"],
        "video": one["video"],
        "seconds": end,
        "duration": one["duration"],
        "bars": bars,
        "answers": [(name, row["completion"]) for name, row in rows.items() if row["completion"]],
    }


def _verdict(row: dict) -> str | None:
    """Why an answer scores nothing, where its overlap does not say it."""
    if row["missing"] or row["predicted"] is None:
        return row["missing"] or "no readable answer"
    return "reversed" if row["predicted"][1] < row["predicted"][0] else None


def _bars(segments: list, end: float) -> dict:
    """Places of segments on a line of `end` seconds, in percent, kept inside it."""
    spans = [(100 * max(0.0, min(start, end)) / end, 100 * max(0.0, min(stop, end)) / end) for start, stop in segments]
    return {
        "spans": [(left, max(0.4, right - left)) for left, right in spans],
        "text": ", ".join(f"{start:.1f} to {stop:.1f} s" for start, stop in segments),
    }


# ---------------------------------------------------------------- what was missing, and how it was run


def missing(built: Mapping[str, Built]) -> list[dict]:
    """Every video that an evaluation went without, and how many of its answers counted as wrong."""
    found: dict[tuple[str, str], Counter] = {}
    for one in {s.ident: s for b in built.values() for several in b.found.values() for s in several}.values():
        for row in runs.read_rows(one.folder / "missing.jsonl"):
            found.setdefault((row["video"], row["missing"]), Counter())[one.ident] += 1
    return [
        {"video": video, "reason": reason, "answers": max(counts.values()), "evaluations": len(counts)}
        for (video, reason), counts in sorted(found.items())
    ]


def _fact(training: Training) -> dict:
    """A training with the arms that use it and what its run.json says."""
    folder, run = training.folder, training.run
    done = (folder / "model.done").exists()
    state = (
        "finished"
        if done or run.get("exit") == 0
        else f"exit {run['exit']}"
        if run.get("exit") is not None
        else "not finished"
    )
    versions = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())
    return {
        "id": folder.name,
        "used": _used(training),
        "state": state if run else "not run",
        "steps": _said(run.get("steps"), "{}"),
        "minutes": _said(run.get("seconds"), "{:.1f}", 1 / 60),
        "memory": _said(run.get("peak_memory_gb"), "{:.1f}"),
        "where": ", ".join(str(run[key]) for key in ("device", "precision", "policy") if run.get(key)),
        "commit": f"{run['commit'][:10]}{'*' if run.get('dirty') else ''}" if run.get("commit") else "",
        "started": str(run.get("started") or ""),
        "versions": versions,
    }


def _used(training: Training) -> list[str]:
    """The runs that train it; those that only start from it as a count."""
    own = [
        f"{experiment}/{arm}: {stage}, seed {seed}" for experiment, arm, seed, stage in training.used if stage != BASE
    ]
    started = len(training.used) - len(own)
    return own + ([f"start of {started} runs"] if started else [])


def _said(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(value * factor if factor != 1 else value)
