"""The numbers of a table: our runs and the paper's, side by side and apart."""

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from tvg.config import read_yaml
from tvg.errors import TvgError
from tvg.evaluate import metrics
from tvg.evaluate.intervals import bootstrap
from tvg.report import runs
from tvg.report.layout import MEASURES, PUBLISHED_AS, Line, Published, Row, Table, load, located
from tvg.report.runs import Scored
from tvg.report.values import value
from tvg.store import Store

log = logging.getLogger(__name__)

RUN, NOT_RUN, PUBLISHED_ONLY = "run", "not run", "published only"
AT_MOST = 6  # models that examples, curves and offsets show
TOLD = ("size", "source", "note")
SEVERAL = " | "


@dataclass(frozen=True)
class Built:
    """A table with its numbers, in the units of layout.MEASURES.

    rows: those that are shown, each on one benchmark; frame: one line for each; found: its evaluations, by its name.
    """

    name: str
    table: Table
    root: Path
    rows: list[Line]
    found: dict[str, list[Scored]]
    frame: pd.DataFrame

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
        runs_of = {line.name: (line.row, one.found[line.name][0]) for line in one.rows if one.found[line.name]}
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
    return assemble(name, located(table, lambda one: _file_of(config, one)), root, config / "published", seeds)


def _file_of(config: Path, experiment: str) -> dict:
    path = config / "experiments" / f"{experiment}.yaml"
    return read_yaml(path) if path.exists() else {}


def assemble(name: str, table: Table, root: Path, published: Path, seeds: Sequence[int] | None = None) -> Built:
    """As `build`, of a table at hand; the papers' numbers from the CSVs under `published`."""
    _check_published(table, published)
    papers = {line.name: _lookup_all(table, line, published) for line in table.lines}
    rows = [line for line in table.lines if papers[line.name] or line.row.ours_at(root.name)]
    found = {line.name: _scored(line, root, seeds) for line in rows}
    built = Built(name, table, root, rows, found, pd.DataFrame())
    lines = [_line(built, line) | _paper(table, papers[line.name]) for line in rows]
    return replace(built, frame=pd.DataFrame(lines, columns=None if lines else ["label", "status"]))


def _scored(line: Line, root: Path, seeds: Sequence[int] | None) -> list[Scored]:
    if not line.row.ours_at(root.name):
        return []
    found = runs.scored(root, line.row.experiment, line.row.arm, line.benchmark)
    return [one for one in found if seeds is None or one.seed in seeds]


def _line(built: Built, line: Line) -> dict:
    row, everything = line.row, built.found[line.name]
    found = distinct(everything)
    status = RUN if found else f"{NOT_RUN}: {built.command}" if row.ours_at(built.scale) else PUBLISHED_ONLY
    numbers = {
        "group": line.group,
        "label": row.label,
        "benchmark": line.benchmark,
        "x": row.x,
        "experiment": row.experiment,
        "arm": row.arm if row.experiment else None,
        "scale": built.scale if found else None,
        "seeds": " ".join(str(one.seed) for one in found) or None,
        "status": status,
    }
    for metric in built.table.metrics:
        numbers |= {f"{metric}{suffix}": number for suffix, number in _estimate(found, metric).items()}
    base = next((one for one in built.rows if (one.row.label, one.title) == (built.table.against, line.title)), line)
    return numbers if base is line else numbers | _against(everything, built.found[base.name])


def distinct(found: Sequence[Scored]) -> list[Scored]:
    """Each evaluation once: an untrained model is the same one under every seed, and that is no spread."""
    return list({one.ident: one for one in reversed(found)}.values())[::-1]


def _estimate(found: Sequence[Scored], metric: str) -> dict[str, float | None]:
    """The mean over seeds, its 95 % interval over videos and the seeds' range, in the metric's unit."""
    values = [v for one in found if (v := value(one, metric)) is not None]
    if not values:
        return dict.fromkeys(("", "_low", "_high", "_seed_min", "_seed_max"))
    low, high = _interval(found, metric) or (None, None)
    numbers = {"": sum(values) / len(values), "_low": low, "_high": high}
    numbers |= {"_seed_min": min(values), "_seed_max": max(values)} if len(values) > 1 else {}
    factor = MEASURES[metric].factor
    return {suffix: None if number is None else factor * number for suffix, number in numbers.items()}


def _interval(found: Sequence[Scored], metric: str) -> Sequence[float] | None:
    """One seed: as scored. Several: bootstrapped again over the videos of all, where their predictions are here."""
    if len(found) == 1:
        return found[0].metrics.get("intervals", {}).get(metric)
    rows = [row for one in found for row in one.predictions if row["task"] == "ground"]
    contract = found[0].spec.prompt.answer if found[0].spec else None
    values = metrics.columns(rows, contract=contract).get(metric) if rows else None
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


def _paper(table: Table, lines: list[dict[str, str]]) -> dict[str, str | None]:
    """The published values of a row, as printed, with their sources and notes; SEVERAL between two of these."""
    if not any(row.published for row in table.rows):
        return {}
    by_metric = {line["metric"]: line["value"] for line in lines}
    values = {f"paper_{metric}": by_metric.get(PUBLISHED_AS.get(metric, "")) for metric in table.metrics}
    joined = {key: SEVERAL.join(dict.fromkeys(line[key] for line in lines if line[key])) for key in TOLD}
    return values | {f"paper_{key}": text or None for key, text in joined.items()}


def _lookup_all(table: Table, line: Line, folder: Path) -> list[dict[str, str]]:
    """The published lines of a row on its benchmark; [] where the paper has none there."""
    return [found for reference in line.row.published for found in _lookup(table, reference, line.published, folder)]


def _lookup(table: Table, reference: Published, benchmark: str | None, folder: Path) -> list[dict[str, str]]:
    wanted = {key: value or "" for key, value in reference.model_dump(exclude={"csv"}).items()}
    wanted["benchmark"] = benchmark
    lines = read_published(folder / f"{reference.csv or table.published}.csv")
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


def _check_published(table: Table, folder: Path) -> None:
    """A reference that finds nothing on any of its row's benchmarks is a mistyped one."""
    for row in table.rows:
        benchmarks = [line.published for line in table.lines if line.row is row]
        for reference in row.published:
            if not any(_lookup(table, reference, benchmark, folder) for benchmark in benchmarks):
                raise TvgError(
                    f"config/tables: {table.title}",
                    "no such published row",
                    got=f"{reference.model_dump(exclude_none=True)} on {', '.join(map(str, benchmarks))}",
                    expected=f"a row of {folder / f'{reference.csv or table.published}.csv'}",
                    hint="every key must equal the CSV's, the benchmark too; one that is empty there is left out",
                )
