"""A built table as files and text: CSV for programs, Markdown for people, plain text for the console."""

import logging
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tvg.evaluate.intervals import RESAMPLES
from tvg.evaluate.metrics import HEADLINE
from tvg.report import runs
from tvg.report.build import NOT_RUN, RUN, SEVERAL, Built, build, distinct
from tvg.report.layout import MEASURES
from tvg.sample import write_lines

log = logging.getLogger(__name__)

NOT_PUBLISHED, NOTHING = "not published", "–"
GAIN = f"Δ {MEASURES[HEADLINE].header}"


@dataclass(frozen=True)
class Block:
    """Columns under one title, `about` in brackets; `cells` has one list for each row of the table."""

    title: str
    about: str
    headers: list[str]
    cells: list[list[str]]


def write(name: str, root: Path, config: Path = Path("config")) -> list[Path]:
    """tables/{name}.csv and .md under `root` (results/{scale}), from config/tables/{name}.yaml."""
    built = build(name, root, config)
    paths = [root / "tables" / f"{name}.csv", root / "tables" / f"{name}.md"]
    write_lines(paths[0], built.frame.to_csv(index=False, float_format="%.6g").splitlines())
    write_lines(paths[1], as_markdown(built).splitlines())
    log.info("wrote %s", paths[1])
    return paths


def blocks(built: Built, cell: Callable[[dict, str], str]) -> list[Block]:
    """Our columns and the paper's, apart. `cell` writes one of our numbers; see `full`, `short` and `plain`."""
    lines = built.lines
    reduced = ", ".join(built.reductions)
    ours = [[_ours(line, metric, cell) for metric in built.table.metrics] for line in lines]
    headers = [MEASURES[metric].header for metric in built.table.metrics]
    if built.table.against and "gain" in built.frame:
        headers.append(GAIN)
        for line, cells in zip(lines, ours, strict=True):
            cells.append(cell(line, "gain") if line.get("gain") is not None else NOTHING)
    found = [Block(f"ours, {built.scale}{'†' if reduced else ''}", reduced, headers, ours)]
    if built.table.unpublished:
        return [*found, Block("paper", built.table.paper or "", ["its numbers"], [[NOT_PUBLISHED]] * len(lines))]
    return found + ([_paper_block(built, lines)] if built.published_metrics else [])


def _paper_block(built: Built, lines: list[dict]) -> Block:
    printed = built.published_metrics
    sizes = {line["paper_size"] for line in lines} - {None}
    alike = len(sizes) <= 1
    cells = [
        ([] if alike else [line["paper_size"] or NOTHING]) + [line[f"paper_{m}"] or NOT_PUBLISHED for m in printed]
        for line in lines
    ]
    title = f"paper, {next(iter(sizes))}" if sizes and alike else "paper"
    headers = ([] if alike else ["size"]) + [MEASURES[metric].header for metric in printed]
    return Block(title, built.table.paper or "", headers, cells)


def _ours(line: dict, metric: str, cell: Callable[[dict, str], str]) -> str:
    if line["status"] == RUN:
        return cell(line, metric) if line[metric] is not None else NOTHING
    return f"{NOT_RUN} ¹" if line["status"].startswith(NOT_RUN) else NOTHING


def full(line: dict, metric: str) -> str:
    """41.3 (40.8 to 42.1) [39.7, 42.9]: mean, range of the seeds if there are several, 95 % interval."""
    text = _number(line, metric)
    if line.get(f"{metric}_seed_min") is not None:
        text += f" ({_number(line, metric, '_seed_min')} to {_number(line, metric, '_seed_max')})"
    if line.get(f"{metric}_low") is not None:
        text += f" [{_number(line, metric, '_low')}, {_number(line, metric, '_high')}]"
    return text


def short(line: dict, metric: str) -> str:
    """41.3 ±1.6: mean and half the width of the 95 % interval."""
    if line.get(f"{metric}_low") is None:
        return _number(line, metric)
    return f"{_number(line, metric)} ±{(line[f'{metric}_high'] - line[f'{metric}_low']) / 2:{_form(metric)}}"


def plain(line: dict, metric: str) -> str:
    """41.3; the headline and the gain keep their interval."""
    return short(line, metric) if metric in (HEADLINE, "gain") else _number(line, metric)


def _number(line: dict, metric: str, end: str = "") -> str:
    return f"{line[metric + end]:{'+' if metric == 'gain' else ''}{_form(metric)}}"


def _form(metric: str) -> str:
    return MEASURES[HEADLINE if metric == "gain" else metric].form


# ---------------------------------------------------------------- Markdown and text


def as_markdown(built: Built) -> str:
    """One table: ours, then the paper's columns; below it, how every number was made."""
    parts = blocks(built, full)
    headers = ["", *(f"{block.title}: {name}" for block in parts for name in block.headers)]
    about = "; ".join(f"**{block.title}**: {block.about}" for block in parts if block.about)
    lines = [f"# {built.table.title}", "", *([about, ""] if about else []), _row(headers)]
    lines.append(_row([":--", *("--:" for _ in headers[1:])]))
    group = None
    for k, line in enumerate(built.rows):
        if line.group and line.group != group:
            lines.append(_row([f"**{line.group}**", *("" for _ in headers[1:])]))
        group = line.group
        lines.append(_row([line.row.label, *(cell for block in parts for cell in block.cells[k])]))
    return "\n".join([*lines, "", *(f"- {line}" for line in footer(built)), ""])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_text(built: Built, width: int = 100) -> str:
    """For the console: aligned, at most `width` columns; what does not fit goes below, with its labels again."""
    pages = [page for block in blocks(built, short) for page in _pages(built, block, width)]
    if len(pages) > len(blocks(built, short)):
        pages = [page for block in blocks(built, plain) for page in _pages(built, block, width)]
    told = [line for text in legend(built, brief=True) for line in _wrapped(text, width)]
    return "\n".join([built.table.title, *(line for page in pages for line in ["", *page]), "", *told])


def _pages(built: Built, block: Block, width: int) -> Iterator[list[str]]:
    """The block as aligned lines, cut into pages of whole columns; rows with nothing on a page are left out there."""
    labels = ["", *(line.name for line in built.rows)]
    first = max(map(len, labels))
    columns = [[name, *(cells[k] for cells in block.cells)] for k, name in enumerate(block.headers)]
    while columns:
        page = [columns.pop(0)]
        while columns and first + sum(2 + _wide(column) for column in [*page, columns[0]]) <= width:
            page.append(columns.pop(0))
        yield [
            " " * (first + 2) + block.title + (f" ({block.about})" if block.about else ""),
            *(
                label.ljust(first) + "".join("  " + column[k].rjust(_wide(column)) for column in page)
                for k, label in enumerate(labels)
                if any(column[k] != NOTHING for column in page)
            ),
        ]


def _wrapped(text: str, width: int) -> list[str]:
    """A command to copy stays on its own line, whole."""
    head, _, command = text.partition(": snakemake ")
    lines = textwrap.wrap(head + (":" if command else ""), width)
    return [*lines, f"  snakemake {command}"] if command else lines


def _wide(column: list[str]) -> int:
    return max(map(len, column))


# ---------------------------------------------------------------- how it was made


def legend(built: Built, brief: bool = False) -> list[str]:
    """What the marks mean; `brief` for numbers as `short` writes them."""
    status, lines = built.frame["status"].astype(str), []
    if not built.rows:
        lines.append(f"No row of this table runs at the scale {built.scale}.")
    if status.str.startswith(NOT_RUN).any():
        lines.append(f"¹ not run yet; make it with: {built.command}")
    if (status == RUN).any() and any(_of_queries(metric) for metric in built.table.metrics):
        several = built.frame["seeds"].dropna().str.contains(" ").any()
        spread = ("Mean over seeds. " if brief else "(low to high): range over seeds. ") if several else ""
        interval = "±: half of the 95 % interval" if brief else "[low, high]: 95 % interval"
        lines.append(f"Ours: percent of all annotated queries. {spread}{interval}, {RESAMPLES:,} resamples of videos.")
    if "gain" in built.frame:
        lines.append(f"{GAIN}: difference to '{built.table.against}' on the same queries, in points.")
    if built.reductions:
        warning = ": not the paper's setting. Compare rows with rows, never ours with the paper's"
        lines.append(f"† {', '.join(built.reductions)}{warning if built.published_metrics else ''}.")
    return lines


def _of_queries(metric: str) -> bool:
    """Whether it is a share of queries, and not something with a definition of its own."""
    return MEASURES[metric].unit == "percent" and MEASURES[metric].means is None


def footer(built: Built) -> list[str]:
    """The legend, the protocol of our numbers, and the source of each published one."""
    lines = legend(built) + ([built.table.note.strip()] if built.table.note else [])
    lines += [f"{one.header}: {one.means}." for m in built.table.metrics if (one := MEASURES[m]).means]
    if built.table.unpublished:
        lines.append(f"{NOT_PUBLISHED.capitalize()}: no public source gives the numbers of {built.table.paper}.")
    benchmarks = ", ".join(dict.fromkeys(line.benchmark for line in built.rows))
    lines += [f"Threshold: R1@m counts tIoU > m. Scale: {built.scale}. Benchmark: {benchmarks}."]
    lines += [f"{key.capitalize()}: {text}" for key, text in protocol(built).items()]
    sources, notes = (_by_row(built, f"paper_{key}") for key in ("source", "note"))
    if sources:
        lines.append(f"Published numbers: {'; '.join(sources)}")
    return lines + [f"Published ({', '.join(rows)}): {note}" for note, rows in notes.items()]


def protocol(built: Built) -> dict[str, str]:
    """Each fact once where all rows agree; where they differ, or it is of some only, with the rows that have it."""
    seen: dict[str, dict[str, list[str]]] = {}
    for label, found in built.found.items():
        for one in found:
            facts = runs.protocol(one) | {"seeds": ", ".join(str(each.seed) for each in distinct(found))}
            for key, text in (facts | _missing(one)).items():
                rows = seen.setdefault(key, {}).setdefault(text, [])
                rows += [] if label in rows else [label]
    return {
        key: next(iter(texts))
        if len(texts) == 1 and key not in runs.OF_SOME
        else "; ".join(f"{text} ({', '.join(rows)})" for text, rows in texts.items())
        for key, texts in seen.items()
    }


def _missing(one: runs.Scored) -> dict[str, str]:
    return {"without their video, counted as wrong": f"{one.metrics['missing']} of {one.metrics['n']} queries"}


def _by_row(built: Built, column: str) -> dict[str, list[str]]:
    """Each text of a column, and the labels of the rows that have it."""
    found: dict[str, list[str]] = {}
    for row, line in zip(built.rows, built.lines, strict=True):
        for part in (line.get(column) or "").split(SEVERAL):
            found.setdefault(part, []).append(row.name)
    return {text: labels for text, labels in found.items() if text}
