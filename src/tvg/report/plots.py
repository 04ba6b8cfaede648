"""Plots as PNG files under results/{scale}/plots: what training did, and what the evaluations gave."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvg.evaluate import metrics
from tvg.report.build import RUN, Built, build, leading
from tvg.report.layout import MEASURES, Row
from tvg.report.runs import BASE, Scored, Training
from tvg.report.values import smooth

log = logging.getLogger(__name__)

INK, PAPER, QUIET = "#22313f", "#b5651d", "#8a959e"
COLOURS = ("#1f6f8b", "#d1495b", "#66a182", "#8d5a97", "#edae49", "#5d737e", "#c17c74", "#2e4057", "#99b2dd", "#7a9e7e")
MAIN = "main"  # the arm without edits
Leading = Mapping[str, tuple[Row, Scored]]
Histories = dict[str, dict[str, list[dict]]]
CURVES = {
    "train/reward": "reward",
    "train/reward_std": "spread of rewards in a group",
    "train/length": "completion length (tokens)",
    "train/loss": "loss",
    "train/grad_norm": "gradient norm",
    "train/kl": "KL to the reference",
    "train/entropy": "entropy (nats a token)",
    "train/zero_std_groups": "groups without spread (share)",
    "train/unparsed": "unreadable answers (share)",
    "train/mean_anchors": "anchors of a rollout",
    "train/anchors_over_cap": "rollouts with too many anchors (share)",
    "train/refined": "rollouts that refine (share)",
    "train/top_verb_share": "share of the most frequent verb",
    "fixed_set/r1_at_0.5": "fixed training samples: R1@0.5",
    "fixed_set/miou": "fixed training samples: mean tIoU",
    "fixed_set/format_rate": "fixed training samples: format",
    "fixed_set/complete_verb": "fixed training samples: VC",
    "fixed_set/recognise_action": "fixed training samples: AR",
    "fixed_set/describe": "fixed training samples: VD",
}
ACROSS = 4  # panels of bars side by side
FEW = 12  # points of a curve that are shown one by one
OFFSET_LIMIT = 15.0  # seconds; what lies beyond is counted in the outermost bins
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e6eaed",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}


def draw(built: Mapping[str, Built], trainings: Sequence[Training], folder: Path) -> list[Path]:
    """rewards.png, curves.png, offsets.png, and {table}.png for each table; drawn even where nothing was run yet."""
    trained, shown = histories(trainings), leading(built.values())
    with matplotlib.rc_context(STYLE):
        figures = {"rewards": rewards(trained), "curves": curves(_of_rows(shown, trainings)), "offsets": offsets(shown)}
        figures |= {name: of_table(one) for name, one in built.items()}
        return [_save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def write(name: str, root: Path, config: Path = Path("config")) -> Path:
    """plots/{name}.png under `root` (results/{scale}), of config/tables/{name}.yaml."""
    with matplotlib.rc_context(STYLE):
        return _save(of_table(build(name, root, config)), root / "plots" / f"{name}.png")


def of_table(built: Built) -> Figure:
    """A curve where the rows have a place on an x axis, else bars."""
    return curve(built) if built.table.is_curve else bars(built)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=150, bbox_inches="tight", facecolor="white")
    partial.replace(path)
    return path


def _nothing(figure: Figure, why: str) -> Figure:
    figure.set_size_inches(6, 1.2)
    figure.text(0.5, 0.5, why, ha="center", va="center", color=QUIET)
    return figure


# ---------------------------------------------------------------- training


def histories(trainings: Iterable[Training]) -> Histories:
    """experiment -> label -> the metric rows of one training; arms that share a training share its line."""
    found: Histories = {}
    for training in trainings:
        for experiment in {experiment for experiment, *_ in training.used}:
            names = [use for use in training.used if use[0] == experiment and use[3] != BASE]
            if names and training.history:
                found.setdefault(experiment, {})[", ".join(map(_name, names))] = training.history
    return {
        experiment: dict(sorted(by_label.items(), key=lambda item: not _is_main(item[0])))
        for experiment, by_label in sorted(found.items())
    }


def _of_rows(shown: Leading, trainings: Sequence[Training]) -> dict[str, list[dict]]:
    """The metric rows of the training behind each leading row."""
    by_run = {use[:3]: training.history for training in trainings for use in training.used if use[3] != BASE}
    found = {label: by_run.get((row.experiment, row.arm, one.seed)) for label, (row, one) in shown.items()}
    return {label: history for label, history in found.items() if history}


def _name(use: tuple[str, str, int, str]) -> str:
    _, arm, seed, _ = use
    return f"{arm} (seed {seed})" if seed else arm


def rewards(trained: Histories) -> Figure:
    """The reward of every training: one panel an experiment, one line a training, raw values faint behind."""
    found = {
        experiment: {label: rows for label, rows in by_label.items() if any("train/reward" in row for row in rows)}
        for experiment, by_label in trained.items()
    }
    found = {experiment: by_label for experiment, by_label in found.items() if by_label}
    if not found:
        return _nothing(Figure(), "no training with rewards yet")
    figure = Figure(figsize=(8.5, 3.4 * len(found)), layout="constrained")
    for axes, (experiment, by_label) in zip(_rows(figure, len(found)), found.items(), strict=True):
        for colour, (label, rows) in zip(_colours(len(by_label)), by_label.items(), strict=True):
            _curve(axes, rows, "train/reward", colour, label, 2.4 if _is_main(label) else 1.4)
        axes.set(title=experiment, xlabel="step", ylabel="reward, mean of the batch")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure


def curves(found: Mapping[str, list[dict]]) -> Figure:
    """What else these trainings logged: label -> metric rows."""
    keys = {key for rows in found.values() for row in rows for key in row}
    parts = {
        key: key.removeprefix("train/rewards/") + " reward" for key in sorted(keys) if key.startswith("train/rewards/")
    }
    shown = {key: title for key, title in (CURVES | parts).items() if key in keys}
    if not shown:
        return _nothing(Figure(), "no training yet")
    height = -(-len(shown) // 3)
    figure = Figure(figsize=(10, 2.6 * height), layout="constrained")
    panels = figure.subplots(height, 3, squeeze=False).ravel()
    for axes, (key, title) in zip(panels, shown.items(), strict=False):
        for colour, (experiment, rows) in zip(COLOURS, found.items(), strict=False):
            _curve(axes, rows, key, colour, experiment)
        axes.set(title=title, xlabel="step")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _is_main(label: str) -> bool:
    return re.split("[ ,]", label)[0] == MAIN


def _curve(axes: Axes, rows: Sequence[dict], key: str, colour: str, label: str, width: float = 1.6) -> None:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    if points:
        steps, values = np.array(points, dtype=float).T
        axes.plot(steps, values, color=colour, alpha=0.18, linewidth=0.8)
        marker = "o" if len(values) <= FEW else None
        axes.plot(
            steps, smooth(values), color=colour, linewidth=width, marker=marker, markersize=3, label=label,
            zorder=2 + width / 10,
        )  # fmt: skip


def _colours(count: int) -> list[str]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def _rows(figure: Figure, count: int) -> Iterable[Axes]:
    return figure.subplots(count, 1, squeeze=False).ravel()


# ---------------------------------------------------------------- evaluation


def bars(built: Built) -> Figure:
    """Our runs as bars with 95 % intervals, a row of panels for each benchmark, the paper's below in their own panels.

    The row that others are compared with stands as a dashed line.
    """
    strips = [strip for part in _parts(built) for strip in _strips(part, built.table.metrics)]
    if built.table.kind == "figure":
        strips += [
            strip
            for part in _parts(built, ours=False)
            for strip in _strips(part, [f"paper_{metric}" for metric in built.published_metrics])
        ]
    if not strips:
        return _nothing(Figure(), f"{built.table.title}: not run yet. {_silence(built)}")
    across = max(len(shown) for *_, shown in strips)
    heights = [0.75 + 0.3 * len(lines) for _, lines, _ in strips]
    figure = Figure(figsize=(2.6 + 1.9 * across, 0.4 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(strips), across, squeeze=False, height_ratios=heights)
    for panels, (title, lines, shown) in zip(grid, strips, strict=True):
        for axes, metric in zip(panels, shown, strict=False):
            _bars(axes, built, lines, metric, title if axes is panels[0] else None)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
    figure.supxlabel(f"95 % intervals; scale {built.scale}{_reduced(built)}. {_silence(built)}".rstrip(), fontsize=8)
    return figure


Part = tuple[str | None, list[dict]]  # lines of one benchmark under its title


def _parts(built: Built, ours: bool = True) -> list[Part]:
    """The lines with numbers of ours, or of the paper, for each benchmark."""
    pairs = [
        (line.title, numbers)
        for line, numbers in zip(built.rows, built.lines, strict=True)
        if (numbers["status"] == RUN if ours else any(numbers[f"paper_{m}"] for m in built.published_metrics))
    ]
    return [(title, [line for _, line in found]) for title, found in groupby(pairs, key=lambda pair: pair[0])]


def _strips(part: Part, metrics: Sequence[str]) -> list[tuple[str | None, list[dict], list[str]]]:
    """Panels of one part, at most ACROSS side by side, without metrics that no line has."""
    title, lines = part
    shown = [metric for metric in metrics if any(not np.isnan(_number(line.get(metric))) for line in lines)]
    rows = -(-len(shown) // ACROSS)
    each = -(-len(shown) // max(1, rows))
    return [(title, lines, shown[row * each : (row + 1) * each]) for row in range(rows)]


def _bars(axes: Axes, built: Built, lines: Sequence[dict], metric: str, title: str | None) -> None:
    """One panel: a metric of ours, or `paper_{metric}`. title: the benchmark's, for the first panel of its row."""
    measure, paper = MEASURES[metric.removeprefix("paper_")], metric.startswith("paper_")
    places = np.arange(len(lines))[::-1]
    values, lows, highs = (
        np.array([_number(line.get(f"{metric}{end}")) for line in lines]) for end in ("", "_low", "_high")
    )
    axes.barh(places, values, color=PAPER if paper else _bar_colours(built, lines), height=0.62)
    errors = np.array([values - lows, highs - values]).clip(min=0)  # NaN where there is no interval: nothing is drawn
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2)
    for place, line, value in zip(places, lines, values, strict=True):
        if line["label"] == built.table.against:
            axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        if paper or np.isnan(value):
            text, at, colour = (line[metric], value, PAPER) if line[metric] else ("no number", 0, QUIET)
            axes.annotate(text, (at, place), (4, 0), textcoords="offset points", va="center", color=colour)
    heading = f"{measure.header}, paper: as printed" if paper else measure.header
    axes.set(
        title=f"{title}\n{heading}" if title else heading,
        xlabel=measure.unit,
        xlim=(0, 1.2 * np.nanmax(values) if paper else None if np.nanmax(values) > 0 else 1),
        ylim=(-0.6, len(lines) - 0.4),
    )
    axes.grid(axis="y", visible=False)
    named = axes.get_subplotspec().is_first_col()
    axes.set_yticks(places, [line["label"] for line in lines] if named else [])


def _silence(built: Built) -> str:
    """What a plot says in place of numbers that nobody can look up."""
    return f"The numbers of {built.table.paper} are in no public source." if built.table.unpublished else ""


def _reduced(built: Built) -> str:
    return f" ({', '.join(built.reductions)})" if built.reductions else ""


def _bar_colours(built: Built, lines: Sequence[dict]) -> list[str]:
    """Grey for what the others are measured against and for floors."""
    floors = {
        row.row.label
        for row in built.rows
        if any(one.metrics.get("format_rate") is None for one in built.found[row.name])
    }
    return ["#b8c2c9" if line["label"] in floors | {built.table.against} else COLOURS[0] for line in lines]


def _number(value: float | str | None) -> float:
    return np.nan if value is None else float(value)


def curve(built: Built) -> Figure:
    """Our runs over x; below, on an axis of its own, the points that the paper prints: the two are never one curve."""
    x = [line["x"] for line in built.lines]
    lines, printed = [line for line in built.lines if line["status"] == RUN], built.published_metrics
    if not lines and not printed:
        return _nothing(Figure(), f"{built.table.title}: not run yet. {_silence(built)}")
    figure = Figure(figsize=(7.5, 4.6 if printed else 3.2), layout="constrained")
    panels = figure.subplots(
        1 + bool(printed), 1, sharex=True, squeeze=False, height_ratios=[2, 1.2][: 1 + bool(printed)]
    ).ravel()
    ours, unit = panels[0], MEASURES[built.table.metrics[0]].unit
    for colour, metric in zip(COLOURS, built.table.metrics, strict=False):
        points = [[_number(line.get(f"{metric}{end}")) for end in ("", "_low", "_high")] for line in built.lines]
        values, lows, highs = np.array(points).T  # a hole where an arm was not run: no line across it
        ours.fill_between(x, lows, highs, color=colour, alpha=0.12, linewidth=0)
        ours.vlines(x, lows, highs, color=colour, alpha=0.5, linewidth=1)
        ours.plot(x, values, "o-", color=colour, label=MEASURES[metric].header, markersize=4)
    ours.set(title=f"ours, {built.scale}{_reduced(built)}", ylabel=unit)
    ours.set_ylim(bottom=0)
    if lines:
        ours.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        ours.text(0.5, 0.5, "not run yet", transform=ours.transAxes, ha="center", color=QUIET)
    for metric in printed:
        points = [
            (at, line[f"paper_{metric}"]) for at, line in zip(x, built.lines, strict=True) if line[f"paper_{metric}"]
        ]
        at, values = zip(*((a, float(value)) for a, value in points), strict=True)
        panels[1].plot(at, values, "D", color=PAPER, markersize=6, label=f"{MEASURES[metric].header}, paper")
        for a, value in points:
            panels[1].annotate(value, (a, float(value)), (8, -3), textcoords="offset points", color=PAPER, fontsize=8)
    if printed:
        panels[1].set(title=f"paper ({built.table.paper}): the points it prints", ylabel=unit)
        panels[1].margins(y=0.35)
        panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    panels[-1].set(xlabel=built.table.x_label or "")
    panels[-1].set_xticks(x)
    return figure


def offsets(shown: Leading) -> Figure:
    """How late the answers of each model start and end; 0 is the true boundary."""
    gaps = {label: np.array(found) for label, (_, one) in shown.items() if (found := _offsets(one))}
    if not gaps:
        return _nothing(Figure(), "no predictions yet")
    figure = Figure(figsize=(8.5, 1.0 + 1.25 * len(gaps)), layout="constrained")
    panels = figure.subplots(len(gaps), 2, sharex=True, sharey="row", squeeze=False)
    bins = np.linspace(-OFFSET_LIMIT, OFFSET_LIMIT, 61)
    for row, colour, (name, pairs) in zip(panels, COLOURS, gaps.items(), strict=False):
        for axes, values in zip(row, pairs.T, strict=True):
            axes.hist(
                values.clip(-OFFSET_LIMIT, OFFSET_LIMIT),
                bins=bins,
                color=colour,
                weights=np.full(len(values), 100 / len(values)),
            )
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.annotate(
                f"median {np.median(values).round(1) + 0.0:+.1f} s".replace("-", "−"),
                (0.98, 0.85),
                xycoords="axes fraction",
                ha="right",
                fontsize=8,
            )
        row[0].set_ylabel(name)
    panels[0][0].set_title("start: predicted − true")
    panels[0][1].set_title("end: predicted − true")
    figure.supxlabel(
        f"seconds (outermost bins: {OFFSET_LIMIT:g} s and more); height: percent of readable answers", fontsize=8
    )
    return figure


def _offsets(one: Scored) -> list[tuple[float, float]]:
    return metrics.offsets(row for row in one.predictions if row["task"] == "ground" and row["missing"] is None)
