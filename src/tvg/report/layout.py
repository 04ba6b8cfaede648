"""What a table or a figure is: `config/tables/<name>.yaml`, closed. No results in it: those come from runs and CSVs."""

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from tvg.config import check, read_yaml
from tvg.spec import Closed

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
PUBLISHED_AS: dict[str, str] = {**{f"r1_at_{m}": f"r1_{m}" for m in (0.3, 0.5, 0.7)}, "miou": "miou"}


class Published(Closed):
    """Which rows of a published CSV stand beside a run; a value left out means that the CSV leaves it empty."""

    table: str
    method: str
    size: str | None = None
    finetuned: Literal["yes", "no"] | None = None

    @field_validator("finetuned", mode="before")
    @classmethod
    def yes_is_a_word(cls, value: Any) -> Any:
        """Readers of YAML 1.1 take a bare yes for a boolean."""
        return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


class Row(Closed):
    """One line: a run of ours, a published one, or both. `scales`: where our run belongs in this row (default: all)."""

    label: str
    experiment: str | None = None
    arm: str = "main"
    published: tuple[Published, ...] = ()
    scales: tuple[str, ...] | None = None
    group: str | None = None
    x: float | None = None

    @field_validator("published", mode="before")
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
    """A table, or a figure whose rows lie at their `x`.

    published: stem of the CSV; published_benchmark: the benchmark as the CSV names it; benchmark: the role here.
    ablation: whether `snakemake ablations` makes it. against: label of the row that the others are compared with, query
    by query.
    """

    kind: Literal["table", "figure"] = "table"
    ablation: bool = False
    title: str
    paper: str | None = None
    published: str | None = None
    published_benchmark: str | None = None
    benchmark: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    against: str | None = None
    x_label: str | None = None
    note: str | None = None

    @model_validator(mode="after")
    def fits_together(self) -> "Table":
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError("two rows have one label")
        if self.against is not None and self.against not in labels:
            raise ValueError("`against` is no row's label")
        if self.kind == "figure" and any(row.x is None for row in self.rows):
            raise ValueError("every row of a figure needs an x")
        if any(row.published for row in self.rows) and not (self.published and self.published_benchmark):
            raise ValueError("published rows need `published` and `published_benchmark`")
        return self


def load(path: Path) -> Table:
    """Raises TvgError that names the file and the key."""
    return check(Table, read_yaml(path), path)


def load_all(folder: Path) -> dict[str, Table]:
    """Every table of `folder` (config/tables), by name."""
    return {path.stem: load(path) for path in sorted(folder.glob("*.yaml"))}
