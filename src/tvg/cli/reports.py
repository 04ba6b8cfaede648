"""A scale's results folder in; tables, pages, MLflow out."""

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tvg.cli.shared import Arguments, Declare, say
from tvg.errors import TvgError

log = logging.getLogger(__name__)


def add(declare: Declare) -> None:
    for run, text, example in (
        (table, "write one table", "invert4tvg_2 --results results/mini"),
        (figure, "draw one table or figure", "invert4tvg_figure_5 --results results/mini"),
        (report, "write the report page and its plots", "demo --results results/mini --tables demo"),
        (track, "write everything that has run into MLflow", "--results results/mini"),
        (show, "print tables, and where their files lie", "demo --results results/mini"),
        (ui, "serve MLflow's pages of what has run", "--results results/mini"),
    ):
        parser = declare(run, text, example)
        parser.add_argument("--results", type=Path, required=True, help="the results of one scale")
        if run in (table, figure):
            parser.add_argument("table", help="a file of config/tables")
        if run is report:
            parser.add_argument("name", help="of the page")
            parser.add_argument("--tables", nargs="+", required=True)
        if run is show:
            parser.add_argument("tables", nargs="+")
        if run is track:
            parser.add_argument("--uri", help="an MLflow server (default: the results root's mlflow.db)")
            parser.add_argument("--follow", action="store_true", help="go on until stopped")
            parser.add_argument("--parent", type=int, help="with --follow: stop when this process is gone")
            parser.add_argument("--summary", type=Path, help="write what was done here, as JSON")
        if run is ui:
            parser.add_argument("--port", type=int, default=5000)


def table(a: Arguments) -> None:
    from tvg.report import tables

    for path in tables.write(a.table, a.results):
        log.info("wrote %s", path)


def figure(a: Arguments) -> None:
    from tvg.report import plots

    log.info("wrote %s", plots.write(a.table, a.results))


def report(a: Arguments) -> None:
    from tvg.report import page

    log.info("wrote %s", page.write(a.results, a.name, a.tables))


def track(a: Arguments) -> None:
    from tvg import track
    from tvg.sample import write_lines

    if a.follow:
        track.follow(a.results, a.uri, parent=a.parent)
        return
    summary = track.sweep(a.results, a.uri)
    if a.summary:
        write_lines(a.summary, [json.dumps(asdict(summary))])


def show(a: Arguments) -> None:
    from tvg.report import build, tables

    for name in a.tables:
        say(tables.as_text(build.build(name, a.results)) + "\n")
    made = [a.results / "tables" / f"{name}.{kind}" for name in a.tables for kind in ("md", "csv")]
    made += [*sorted(a.results.glob("plots/demo/*.png")), a.results / "report" / "demo.html"]
    say("\n".join(["Written:", *(f"  {path}" for path in made if path.exists())]))
    say("Every run, with its curves:  make ui")


def ui(a: Arguments) -> None:
    from tvg import track

    uri, experiment = track.store_uri(a.results), track.sweep(a.results).experiment
    if experiment is None:
        raise TvgError(
            uri, "nothing has been logged yet", got=f"no runs under {a.results}", expected="at least one",
            hint="run `make demo`",
        )  # fmt: skip
    say(f"Open {track.url(f'http://127.0.0.1:{a.port}', experiment)}\n(Ctrl-C ends the server.)")
    sys.stdout.flush()
    where = ["--backend-store-uri", uri, "--default-artifact-root", str(a.results.resolve().parent / "mlartifacts")]
    os.execvp("mlflow", ["mlflow", "server", *where, "--host", "127.0.0.1", "--port", str(a.port), "--workers", "1"])
