"""Experiments in words, and the start of a new one."""

from tvg.cli.shared import Declare


def add(declare: Declare) -> None:
    pass
