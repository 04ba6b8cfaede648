"""Words that a shell offers after Tab. Fast on a login node: YAML is listed, little of it read, nothing planned."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tvg.cli.shared import CONFIG, Arguments, Declare, say

SHELLS = {
    "bash": 'eval "$(tvg completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(tvg completion zsh)" in ~/.zshrc, after compinit',
    "fish": "tvg completion fish | source in ~/.config/fish/config.fish",
}


def add(declare: Declare) -> None:
    parser = declare(completion, f"print what lets a shell complete tvg's words: {SHELLS['bash']}", "bash")
    parser.add_argument("shell", choices=list(SHELLS), help="; ".join(SHELLS.values()))


def completion(a: Arguments) -> None:
    import argcomplete

    say(argcomplete.shellcode(["tvg"], shell=a.shell))


def complete(top: argparse.ArgumentParser) -> None:
    """Answer the shell that is asking (argcomplete's protocol, in the environment) and end this process."""
    import argcomplete

    for action in _actions(top):
        completer = OFFERED.get(action.metavar) or OFFERED.get(action.dest)
        if completer and action.choices is None:
            action.completer = completer
    argcomplete.autocomplete(top)
    sys.exit(1)  # not reached: autocomplete exits


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)


# ---------------------------------------------------------------- what is offered


def experiments(prefix: str = "", **_: object) -> list[str]:
    """`EXPERIMENT`, and once a name is written out, `EXPERIMENT-ARM`."""
    names = files("experiments")
    name, dash, _ = prefix.partition("-")
    if name in names and (dash or sum(other.startswith(name) for other in names) == 1):
        return [name, f"{name}-main", *(f"{name}-{arm}" for arm in _arms(name))]
    return names


def dials(prefix: str = "", **_: object) -> list[str]:
    """`KEY=` of config.yaml, and the values of those that have a list."""
    key, equals, value = prefix.partition("=")
    if not equals:
        return [f"{name}=" for name in _dial_names()]
    values = {"scale": files("scales"), "experiments": ["all", *_list(value, files("experiments"))]}
    return [f"{key}={one}" for one in values.get(key, [])]


def files(kind: str) -> list[str]:
    """The names under config/{kind}."""
    return sorted(path.stem for path in (CONFIG / kind).glob("*.yaml"))


def _list(begun: str, names: list[str]) -> list[str]:
    """`[a,b`: each way to go on with one more name, and to end the list."""
    if not begun.startswith("["):
        return [f"[{name}]" for name in names]
    before, _, _ = begun[1:].rpartition(",")
    taken = before.split(",") if before else []
    return [f"[{','.join([*taken, name])}]" for name in names if name not in taken]


def _dial_names() -> list[str]:
    from tvg.config import Config

    return list(Config.model_fields)


def _arms(name: str) -> list[str]:
    from tvg.errors import TvgError
    from tvg.validation import read_yaml

    try:
        return [str(arm) for arm in read_yaml(CONFIG / "experiments" / f"{name}.yaml").get("arms") or {}]
    except TvgError:  # a file that is being written: nothing to offer
        return []


def _of(kind: str) -> Callable[..., list[str]]:
    return lambda **_: files(kind)


def _results(**_: object) -> list[str]:
    return [str(path) for path in sorted(Path("results").glob("*")) if (path / "specs").is_dir()]


OFFERED: dict[object, Callable[..., list[str]]] = {  # by an argument's metavar, else by its name
    "EXPERIMENT[-ARM]": experiments,
    "KEY=VALUE": dials,
    "prompt": _of("prompts"),
    "table": _of("tables"),
    "tables": _of("tables"),
    "results": _results,
}
