"""The numbers of a table: our runs and the paper's, side by side and apart."""

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from tvg.errors import TvgError
from tvg.evaluate import metrics
from tvg.evaluate.intervals import bootstrap
from tvg.report import runs
from tvg.report.layout import PUBLISHED_AS, Published, Row, Table, load
from tvg.report.runs import Scored
from tvg.store import Store

log = logging.getLogger(__name__)

RUN, NOT_RUN, PUBLISHED_ONLY = "run", "not run", "published only"
AT_MOST = 6  # models that examples, curves and offsets show
TOLD = ("size", "source", "note")
SEVERAL = " | "


@dataclass(frozen=True)
class Built:
    """A table with its numbers, in percent: one line of `frame` for each row; `found`: the evaluations of each row."""

    name: str
    table: Table
    root: Path
    frame: pd.DataFrame
    found: dict[str, list[Scored]]

    @property
    def scale(self) -> str:
        return self.root.name

    @property
    def lines(self) -> list[dict]:
        """The frame's lines, None where a value is absent."""
        return self.frame.astype(object).where(self.frame.notna(), None).to_dict("records")

    @property
    def command(self) -> str:
        """What makes every run of this table."""
        return f"snakemake --config scale={self.scale} -- {(self.root / 'tables' / self.name).as_posix()}.md"

    @property
    def reductions(self) -> list[str]:
        """In what our runs are smaller than the paper's."""
        scored = [one for several in self.found.values() for one in several]
        return sorted({word for one in scored for word in runs.reductions(one)}, reverse=True)

    @property
    def published_metrics(self) -> list[str]:
        """Those of the table's metrics for which the paper prints any number."""
        return [m for m in self.table.metrics if f"paper_{m}" in self.frame and self.frame[f"paper_{m}"].notna().any()]


def leading(built: Iterable[Built]) -> dict[str, tuple[Row, Scored]]:
    """The first models that the tables compare, first seed, by label: what examples, curves and offsets show."""
    for one in built:
        runs_of = {row.label: (row, one.found[row.label][0]) for row in one.table.rows if one.found[row.label]}
        models = {label: pair for label, pair in runs_of.items() if pair[1].metrics.get("format_rate") is not None}
        if models:
            return dict(list(models.items())[:AT_MOST])
    return {}


def build(name: str, root: Path, config: Path = Path("config"), seeds: Sequence[int] | None = None) -> Built:
    """The table config/tables/{name}.yaml, or one that planning made, at the scale of `root` (results/{scale}).

    seeds: which to count (default: all that were planned). What has not been scored yet is marked, never an error.
    """
    written, planned = config / "tables" / f"{name}.yaml", Store(root).table(name)
    table = load(written if written.exists() or not planned.exists() else planned)
    return assemble(name, table, root, config / "published", seeds)


def assemble(name: str, table: Table, root: Path, published: Path, seeds: Sequence[int] | None = None) -> Built:
    """As `build`, of a table at hand; the papers' numbers from the CSVs under `published`."""
    shown = tuple(row for row in table.rows if row.published or row.ours_at(root.name))
    table = table.model_copy(update={"rows": shown})
    found = {row.label: _scored(table, row, root, seeds) for row in shown}
    built = Built(name, table, root, pd.DataFrame(), found)
    lines = [_line(built, row) | _paper(table, row, published) for row in shown]
    return Built(name, table, root, pd.DataFrame(lines), found)


def _scored(table: Table, row: Row, root: Path, seeds: Sequence[int] | None) -> list[Scored]:
    if not row.ours_at(root.name):
        return []
    found = runs.scored(root, row.experiment, row.arm, table.benchmark)
    return [one for one in found if seeds is None or one.seed in seeds]


def _line(built: Built, row: Row) -> dict:
    everything = built.found[row.label]
    found = distinct(everything)
    status = RUN if found else f"{NOT_RUN}: {built.command}" if row.ours_at(built.scale) else PUBLISHED_ONLY
    line = {
        "group": row.group,
        "label": row.label,
        "x": row.x,
        "experiment": row.experiment,
        "arm": row.arm if row.experiment else None,
        "scale": built.scale if found else None,
        "seeds": " ".join(str(one.seed) for one in found) or None,
        "status": status,
    }
    for metric in built.table.metrics:
        line |= {f"{metric}{suffix}": number for suffix, number in _estimate(found, metric).items()}
    if built.table.against not in (None, row.label):
        line |= _against(everything, built.found[built.table.against])
    return line


def distinct(found: Sequence[Scored]) -> list[Scored]:
    """Each evaluation once: an untrained model is the same one under every seed, and that is no spread."""
    return list({one.ident: one for one in reversed(found)}.values())[::-1]


def _estimate(found: Sequence[Scored], metric: str) -> dict[str, float | None]:
    """The mean over seeds, its 95 % interval over videos and the seeds' range, in percent."""
    values = [v for one in found if (v := runs.value(one.metrics, metric)) is not None]
    if not values:
        return dict.fromkeys(("", "_low", "_high", "_seed_min", "_seed_max"))
    low, high = _interval(found, metric) or (None, None)
    numbers = {"": sum(values) / len(values), "_low": low, "_high": high}
    numbers |= {"_seed_min": min(values), "_seed_max": max(values)} if len(values) > 1 else {}
    return {suffix: None if number is None else 100 * number for suffix, number in numbers.items()}


def _interval(found: Sequence[Scored], metric: str) -> Sequence[float] | None:
    """One seed: as scored. Several: bootstrapped again over the videos of all, where their predictions are here."""
    if len(found) == 1:
        return found[0].metrics.get("intervals", {}).get(metric)
    rows = [row for one in found for row in one.predictions if row["task"] == "ground"]
    values = metrics.columns(rows).get(metric) if rows else None
    return bootstrap([row["video"] for row in rows], {metric: values})[metric] if values else None


def _against(found: Sequence[Scored], base: Sequence[Scored]) -> dict[str, float]:
    """The paired difference of the headline metric, over the seeds that both sides have."""
    sides: tuple[list, list] = ([], [])
    for one in found:
        for other in (b for b in base if b.seed == one.seed):
            for side, rows in zip(sides, (one.predictions, other.predictions), strict=True):
                side += [row | {"id": f"{one.seed}/{row['id']}"} for row in rows]
    if not all(sides):
        return {}
    try:
        gap = metrics.compare(*sides)[metrics.HEADLINE]
    except TvgError as error:
        log.warning("no comparison: %s", error)
        return {}
    return {
        "gain": 100 * gap["difference"],
        "gain_low": 100 * gap["interval"][0],
        "gain_high": 100 * gap["interval"][1],
    }


# ---------------------------------------------------------------- the papers' numbers


@cache
def read_published(path: Path) -> list[dict[str, str]]:
    """The rows of one paper's CSV, every value as printed."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except OSError as error:
        raise TvgError(
            path,
            "cannot read the published numbers",
            got=error,
            expected="one CSV a paper, see config/published/README.md",
            hint="check `published:` in config/tables",
        ) from error


def _paper(table: Table, row: Row, folder: Path) -> dict[str, str | None]:
    """The published values of a row, as printed, with their sources and notes; SEVERAL between two of these."""
    if not any(any_row.published for any_row in table.rows):
        return {}
    lines = [line for reference in row.published for line in _lookup(table, reference, folder)]
    by_metric = {line["metric"]: line["value"] for line in lines}
    values = {f"paper_{metric}": by_metric.get(PUBLISHED_AS.get(metric, "")) for metric in table.metrics}
    joined = {key: SEVERAL.join(dict.fromkeys(line[key] for line in lines if line[key])) for key in TOLD}
    return values | {f"paper_{key}": text or None for key, text in joined.items()}


def _lookup(table: Table, reference: Published, folder: Path) -> list[dict[str, str]]:
    path = folder / f"{reference.csv or table.published}.csv"
    wanted = {key: value or "" for key, value in reference.model_dump(exclude={"csv"}).items()} | {
        "benchmark": table.published_benchmark
    }
    lines = [line for line in read_published(path) if all(line[key] == value for key, value in wanted.items())]
    if not lines:
        raise TvgError(
            f"config/tables: {table.title}",
            "no such published row",
            got=wanted,
            expected=f"a row of {path}",
            hint="table, method, size, finetuned and published_benchmark must equal the CSV's, an empty one left out",
        )
    return lines
