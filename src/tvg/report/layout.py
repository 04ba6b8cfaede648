"""What a table or a figure is: `config/tables/<name>.yaml`, closed. No results in it: those come from runs and CSVs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from tvg.config import check, read_yaml
from tvg.settings import Closed

Metric = Literal[
    "r1_at_0.3",
    "r1_at_0.5",
    "r1_at_0.7",
    "r1_ge_0.3",
    "r1_ge_0.5",
    "r1_ge_0.7",
    "miou",
    "format_rate",
    "complete_verb",
    "recognise_action",
    "describe",
]
HEADERS: dict[str, str] = {
    **{f"r1_at_{m}": f"R1@{m}" for m in (0.3, 0.5, 0.7)},
    **{f"r1_ge_{m}": f"R1≥{m}" for m in (0.3, 0.5, 0.7)},
    "miou": "mIoU",
    "format_rate": "format",
    "complete_verb": "VC",
    "recognise_action": "AR",
    "describe": "VD",
}
HEADERS_OF_ARMS = [name for name in HEADERS if not name.startswith("r1_ge")]
PUBLISHED_AS: dict[str, str] = {**{f"r1_at_{m}": f"r1_{m}" for m in (0.3, 0.5, 0.7)}, "miou": "miou"}


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


class Row(Closed):
    """One line: a run of ours, a published one, or both."""

    label: str
    """what it is called"""
    experiment: str | None = None
    """our run: a file of experiments/"""
    arm: str = "main"
    """and one of its arms"""
    published: tuple[Published, ...] = ()
    """the paper's number: one reference, or a list of them"""
    scales: tuple[str, ...] | None = None
    """where our run belongs in this row; without it, everywhere"""
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


class Table(Closed):
    """A table, or a figure whose rows lie at their `x`."""

    kind: Literal["table", "figure"] = "table"
    """a figure is a table with a plot"""
    ablation: bool = False
    """whether `snakemake ablations` makes it"""
    title: str
    """its heading"""
    paper: str | None = None
    """which table of which paper it repeats"""
    published: str | None = None
    """stem of a file of published/"""
    published_benchmark: str | None = None
    """the benchmark, as that CSV names it"""
    benchmark: str
    """the benchmark, as the scales name it, or `dataset.split`"""
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

    @model_validator(mode="after")
    def fits_together(self) -> "Table":
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError("two rows have one label")
        if self.against is not None and self.against not in labels:
            raise ValueError("`against` is no row's label")
        if self.kind == "figure" and any(row.x is None for row in self.rows):
            raise ValueError("every row of a figure needs an x")
        references = [reference for row in self.rows for reference in row.published]
        if references and not self.published_benchmark:
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


def of_arms(experiment: str, paper: str, benchmark: str, arms: Sequence[str]) -> Table:
    """The table that nobody wrote: every arm of an experiment on one benchmark, against its main arm."""
    return Table(
        title=f"{experiment}: every arm on {benchmark}",
        paper=paper,
        benchmark=benchmark,
        metrics=tuple(HEADERS_OF_ARMS),
        rows=tuple(Row(label=arm, experiment=experiment, arm=arm) for arm in arms),
        against="main" if "main" in arms and len(arms) > 1 else None,
        note=f"Made from config/experiments/{experiment}.yaml: one row an arm.",
    )
