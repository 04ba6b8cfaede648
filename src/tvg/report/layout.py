"""What a table or a figure is: `config/tables/<name>.yaml`, closed. No results in it: those come from runs and CSVs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from tvg.config import check, read_yaml
from tvg.settings import Closed


@dataclass(frozen=True)
class Measure:
    """A column: its heading, its unit, how a number is written, and what it is where the heading does not say it."""

    header: str
    unit: str = "percent"
    form: str = ".1f"
    means: str | None = None

    @property
    def factor(self) -> float:
        """From the number as stored, a share, to the number as shown."""
        return 100.0 if self.unit == "percent" else 1.0


MEASURES: dict[str, Measure] = {
    **{f"r1_at_{m}": Measure(f"R1@{m}") for m in (0.3, 0.5, 0.7)},
    **{f"r1_ge_{m}": Measure(f"R1≥{m}") for m in (0.3, 0.5, 0.7)},
    "miou": Measure("mIoU"),
    "format_rate": Measure("format"),
    "complete_verb": Measure("VC"),
    "recognise_action": Measure("AR"),
    "describe": Measure("VD"),
    # what the reasoning holds
    "timestamp_rate": Measure("times", means="reasoning that names a time (our detector: the paper's is not public)"),
    "anchored_rate": Measure("anchored", means="answers with at least two readable anchors"),
    "refinement_rate": Measure("refined", means="anchors nearer to the truth than the one before"),
    "mean_anchors": Measure("anchors", "anchors", ".2f", "mean number of readable anchors in an answer"),
    # how the row's last training went
    "reward_variance": Measure(
        "reward variance", "reward²", ".4f", "mean over steps of the squared standard deviation within a group"
    ),
    "grad_norm_variance": Measure(
        "grad-norm variance", "norm²", ".4f", "variance over steps of the gradient's norm, before it is clipped"
    ),
    "steps_to_90": Measure(
        "steps to 90 %", "steps", ",.0f",
        "first step where the reward, averaged over a tenth of the training, has made 90 % of its whole rise",
    ),
    # what the row cost
    "gpu_hours": Measure("GPU-hours", "hours", ",.2f", "hours of the device below, in all trainings of the row"),
    "step_seconds": Measure("s a step", "seconds", ",.2f", "of an optimiser step of the last training, in the mean"),
    "probe_share": Measure("second forward, %", means="its share of a step: the frames are shuffled, and scored again"),
    "rollout_tokens": Measure("tokens a rollout", "tokens", ",.0f", "in the last training, in the mean"),
    "query_seconds": Measure("s a query", "seconds", ",.2f", "generation over answers, which run in batches"),
    "query_tokens": Measure("tokens a query", "tokens", ",.0f", "tokens of an answer, in the mean"),
}  # fmt: skip
Metric = Literal[*MEASURES]
OF_ARMS = (
    "r1_at_0.3",
    "r1_at_0.5",
    "r1_at_0.7",
    "miou",
    "format_rate",
    "complete_verb",
    "recognise_action",
    "describe",
)
PUBLISHED_AS: dict[str, str] = {
    **{f"r1_at_{m}": f"r1_{m}" for m in (0.3, 0.5, 0.7)},
    "miou": "miou",
    "timestamp_rate": "timestamp_ratio",
}


class Published(Closed):
    """Which rows of a published CSV stand beside a run; a value left out means that the CSV leaves it empty."""

    csv: str | None = None
    """stem of a file of published/; without it, the table's"""
    table: str
    """the CSV's column of that name, as the next three"""
    method: str
    """the system"""
    size: str | None = None
    """of the model"""
    finetuned: Literal["yes", "no"] | None = None
    """whether it was trained on the benchmark's own training split"""

    @field_validator("finetuned", mode="before")
    @classmethod
    def yes_is_a_word(cls, value: Any) -> Any:
        """Readers of YAML 1.1 take a bare yes for a boolean."""
        return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


class Benchmark(Closed):
    """One of a table's several benchmarks."""

    benchmark: str
    """as the scales name it, or `dataset.split`"""
    published: str | None = None
    """as the published CSVs name it"""


class Row(Closed):
    """One line, or one for each of the table's benchmarks: a run of ours, a published one, or both."""

    label: str
    """what it is called"""
    experiment: str | None = None
    """our run: a file of experiments/"""
    arm: str = "main"
    """and one of its arms"""
    published: tuple[Published, ...] = ()
    """the paper's number: one reference, or a list of them"""
    scales: tuple[str, ...] | None = None
    """where our run belongs in this row; without it, wherever the arm exists"""
    on: tuple[str, ...] | None = None
    """on which of the table's several benchmarks; without it, on all"""
    group: str | None = None
    """a heading over this row and its neighbours of the same group"""
    x: float | None = None
    """its place in a figure"""

    @field_validator("published", mode="before", json_schema_input_type=Published | tuple[Published, ...])
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def not_empty(self) -> "Row":
        if self.experiment is None and not self.published:
            raise ValueError("a row needs an experiment, a published number, or both")
        return self

    def ours_at(self, scale: str) -> bool:
        return self.experiment is not None and (self.scales is None or scale in self.scales)


@dataclass(frozen=True)
class Line:
    """A row on one benchmark; title: the benchmark's, where the table has several."""

    row: Row
    benchmark: str
    published: str | None
    title: str | None

    @property
    def name(self) -> str:
        """No other line of the table has it."""
        return self.row.label if self.title is None else f"{self.row.label}, {self.title}"

    @property
    def group(self) -> str | None:
        """The heading above it."""
        return ": ".join(filter(None, (self.title, self.row.group))) or None


class Table(Closed):
    """A table, or a figure: bars, or a curve whose rows lie at their `x`."""

    kind: Literal["table", "figure"] = "table"
    """a figure is a table with a plot of its own"""
    ablation: bool = False
    """whether `snakemake ablations` makes it"""
    title: str
    """its heading"""
    paper: str | None = None
    """which table of which paper it repeats"""
    unpublished: bool = False
    """no public source gives the paper's numbers: the table says so"""
    published: str | None = None
    """stem of a file of published/"""
    published_benchmark: str | None = None
    """the benchmark, as that CSV names it"""
    benchmark: str | None = None
    """the benchmark, as the scales name it, or `dataset.split`"""
    benchmarks: dict[str, Benchmark] = {}
    """or several, by their title: each has the rows again, under a heading"""
    metrics: tuple[Metric, ...]
    """its columns"""
    rows: tuple[Row, ...]
    """its lines"""
    against: str | None = None
    """label of the row that the others are compared with, query by query"""
    x_label: str | None = None
    """what a figure's x axis shows"""
    note: str | None = None
    """a line below it"""

    @property
    def lines(self) -> list[Line]:
        """Every row on every benchmark, in the order of the table."""
        if self.benchmark is not None:
            return [Line(row, self.benchmark, self.published_benchmark, None) for row in self.rows]
        return [
            Line(row, one.benchmark, one.published, title)
            for title, one in self.benchmarks.items()
            for row in self.rows
            if row.on is None or title in row.on
        ]

    @property
    def is_curve(self) -> bool:
        """Whether its rows have a place on an x axis."""
        return any(row.x is not None for row in self.rows)

    @model_validator(mode="after")
    def fits_together(self) -> "Table":
        if (self.benchmark is None) == (not self.benchmarks):
            raise ValueError("a table needs `benchmark` or `benchmarks`, and not both")
        if unknown := {title for row in self.rows for title in row.on or ()} - self.benchmarks.keys():
            raise ValueError(f"`on` names no benchmark of the table: {', '.join(sorted(unknown))}")
        names = [line.name for line in self.lines]
        if len(set(names)) < len(names):
            raise ValueError("two rows have one label")
        if self.against is not None and self.against not in {row.label for row in self.rows}:
            raise ValueError("`against` is no row's label")
        if self.is_curve and (self.kind != "figure" or self.benchmarks or any(row.x is None for row in self.rows)):
            raise ValueError("an x is for every row of a figure on one benchmark, or for none")
        references = [reference for row in self.rows for reference in row.published]
        if references and not any(line.published for line in self.lines):
            raise ValueError("published rows need `published_benchmark`")
        if not self.published and any(reference.csv is None for reference in references):
            raise ValueError("published rows need `published`, or a `csv` of their own")
        return self


def load(path: Path) -> Table:
    """Raises TvgError that names the file and the key."""
    return check(Table, read_yaml(path), path)


def load_all(folder: Path) -> dict[str, Table]:
    """Every table of `folder` (config/tables), by name."""
    return {path.stem: load(path) for path in sorted(folder.glob("*.yaml"))}


def located(table: Table, read: Callable[[str], Mapping[str, Any]]) -> Table:
    """The table whose rows know at which scales their arms exist; read(experiment): its file's content, {} for none."""

    def placed(row: Row) -> Row:
        content = read(row.experiment) if row.experiment else {}
        own = ((content.get("arms") or {}).get(row.arm) or {}).get("scales", content.get("scales"))
        if own is None:
            return row
        return row.model_copy(update={"scales": tuple(scale for scale in own if row.ours_at(scale))})

    return table.model_copy(update={"rows": tuple(map(placed, table.rows))})


def target(name: str, table: Table) -> str:
    """What a person types after `snakemake`: table_cost, figure_invert4tvg_5."""
    return f"{table.kind}_{name.replace('figure_', '')}"


def of_arms(experiment: str, paper: str, benchmark: str, arms: Sequence[str]) -> Table:
    """The table that nobody wrote: every arm of an experiment on one benchmark, against its main arm."""
    return Table(
        title=f"{experiment}: every arm on {benchmark}",
        paper=paper,
        benchmark=benchmark,
        metrics=OF_ARMS,
        rows=tuple(Row(label=arm, experiment=experiment, arm=arm) for arm in arms),
        against="main" if "main" in arms and len(arms) > 1 else None,
        note=f"Made from config/experiments/{experiment}.yaml: one row an arm.",
    )
