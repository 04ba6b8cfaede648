"""What MLflow's page shows first: its runs table opens without metrics, and in a mode for something else."""

import json
import re
from collections.abc import Iterable
from typing import Any

from tvg.track.runs import HEADLINES, Run

SUPERSEDED = "superseded"  # the state of an arm whose plan was changed: it stays, and its number is no longer the arm's
VIEW = "tvg"  # key of the runs table as a link opens it
ABOUT = (
    "One run for each arm and seed; open it for its stages (training curves) and evaluations. `test/` is the arm's "
    "first benchmark, named in the tag `benchmark`. All numbers are fractions in [0, 1]; R1@m counts tIoU > m. "
    "Filled by `tvg track` from the results folder, which is the truth: this may be deleted and filled again."
)


def experiment_tags(runs: Iterable[Run]) -> dict[str, str]:
    """The description, the mode that older servers open in, and the view that `url` opens."""
    return {
        "mlflow.note.content": ABOUT,
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view(runs)),
    }


def view(runs: Iterable[Run]) -> dict[str, Any]:
    """MLflow's shared view: the headline metrics as columns, superseded arms hidden. Only this order shows the tree."""
    benchmarks = {child.tags["benchmark"]: None for run in runs for child in run.children if "benchmark" in child.tags}
    several = [f"{benchmark}/{name}" for benchmark in benchmarks for name in HEADLINES] if len(benchmarks) > 1 else []
    shown = [*(f"test/{name}" for name in HEADLINES), *several]
    widths = {"attributes.`Run Name`": 260}
    widths |= {f"metrics.`{metric_name(name)}`": 45 + 5 * len(name) for name in shown}
    widths |= {"tags.`benchmark`": 130, "tags.`table`": 130, "tags.`git`": 110}
    return {
        "selectedColumns": list(widths)[1:],
        "columnOrder": list(widths),
        "columnWidths": widths,
        "searchFilter": f"tags.state != '{SUPERSEDED}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
    }


def url(server: str, experiment: str) -> str:
    """The page of an experiment, as runs table with metric columns, on an MLflow server."""
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?{query}"


def metric_name(metric: str) -> str:
    """MLflow allows letters, digits and _ - . : / and space."""
    return re.sub(r"[^\w\-.:/ ]", "_", metric, flags=re.ASCII)
