"""What would run, what has run, and can it run here: the plan of the configuration, asked before and while it runs."""

from tvg.cli.shared import Declare


def add(declare: Declare) -> None:
    pass
