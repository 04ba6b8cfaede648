"""Data of the user's own."""

from tvg.cli.shared import Declare


def add(declare: Declare) -> None:
    pass
