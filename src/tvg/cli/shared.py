"""What verbs share: how one is declared, the plan of the configuration, output on stdout."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvg.errors import TvgError

CONFIG = Path("config")
Arguments = argparse.Namespace
Declare = Callable[..., argparse.ArgumentParser]  # declare(run, text, example, name=None)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def add_dials(parser: argparse.ArgumentParser) -> None:
    """`--config KEY=VALUE ...`, as Snakemake's."""
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="dials of config.yaml for this call: scale=3b"
    )


def plan_of(a: Arguments) -> Any:
    """The plan of config/config.yaml with the command line's `--config` over it."""
    from tvg.config import read_yaml
    from tvg.plan import Plan

    return Plan.load(read_yaml(CONFIG / "config.yaml") | _dials(getattr(a, "config", [])))


def resolver_of(a: Arguments) -> Any:
    """The resolver of config/config.yaml with `--config` over it; reads no experiment before it is asked for one."""
    from tvg.config import Config, check, read_yaml
    from tvg.resolve import Resolver

    path = CONFIG / "config.yaml"
    return Resolver(check(Config, read_yaml(path) | _dials(getattr(a, "config", [])), path), CONFIG)


def _dials(given: list[str]) -> dict[str, Any]:
    from tvg.config import parse_yaml

    dials = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise TvgError(
                "--config", "not KEY=VALUE", got=item, expected="such as scale=3b or seeds=[0,1]",
                hint="quote a value that holds spaces",
            )  # fmt: skip
        dials[key] = parse_yaml(value, f"--config {key}")
    return dials
