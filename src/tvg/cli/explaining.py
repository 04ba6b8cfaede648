"""Experiments in words, and the start of a new one."""

from tvg.cli.shared import CONFIG, Arguments, Declare, add_dials, resolver_of, say


def add(declare: Declare) -> None:
    parser = declare(
        explain, "say what an experiment is, as a paper's methods section would", "invert4tvg-cosine --config scale=3b"
    )
    parser.add_argument(
        "experiment", metavar="EXPERIMENT[-ARM]", help="a file of config/experiments, and one of its arms"
    )
    add_dials(parser)
    parser = declare(new, "write the skeleton of a new experiment", "tar_tvg --paper arXiv:2508.07683 --prompt")
    parser.add_argument("name", metavar="PAPER", help="its name: letters a-z, digits and _")
    parser.add_argument("--paper", default="unpublished", help="where it is described")
    parser.add_argument("--prompt", action="store_true", help="write a prompt file of its own too")


def explain(a: Arguments) -> None:
    from tvg.overview import explain

    say("\n".join(explain.explain(a.experiment, resolver_of(a))))


def new(a: Arguments) -> None:
    from tvg.overview import skeleton

    written = skeleton.write(CONFIG, a.name, a.paper, with_prompt=a.prompt)
    say("\n".join(skeleton.next_steps(a.name, written)))
