"""Where the numbers of a configuration file come from: its comments, read beside its values.

The rule. An entry is a key and its value. A number has a source if one of these stands in the file, nearest first:

1. a comment at the end of the number's own line;
2. a comment at the end of the entry that it belongs to, that is of the innermost entry that starts a line of its own
   (`tasks: {ground: 0.8, describe: 0.2}   # paper` covers both shares, over several lines too);
3. a comment on the key's line of a block that holds it (`finetune:   # released code, ...` covers the lines under it);
4. for an arm: comment lines directly above it, or above the arms before it with no blank line and no other comment line
   between (`# Table 2: ... (paper)` covers the arms under it).

A comment goes on over the lines below that hold nothing but `#` in the same column. Comment lines elsewhere are prose:
they cover nothing. `seeds` and `revision` need no source, words and booleans neither.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tvg.config import parse_yaml, read_yaml
from tvg.errors import TvgError

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NO_SOURCE_NEEDED = {"seeds", "revision"}
EDITOR = "yaml-language-server"  # the line that points an editor at the schema
PAPER = re.compile(r"\b(?:paper|article) ([-+]?\d(?:[\d.,]*\d)?(?:e[-+]?\d+)?)", re.IGNORECASE)
OURS = re.compile(r"\bours?\b|\bdiffers?\b", re.IGNORECASE)


class Unsourced(NamedTuple):
    """A number that nobody vouches for. `line` counts from 1, `path` is dotted."""

    line: int
    path: str
    value: float


class _Comment(NamedTuple):
    column: int
    text: str
    alone: bool  # nothing else stands on the line


@dataclass(frozen=True)
class _Entry:
    path: tuple[str, ...]
    node: Node
    source: str | None


def sources(path: Path) -> dict[str, str]:
    """Dotted path -> the comment that covers it, for every key, list item and arm that one covers."""
    return {".".join(entry.path): entry.source for entry in _entries(path) if entry.source}


def unsourced(path: Path) -> list[Unsourced]:
    """The numbers of a file without a source, in order of lines."""
    return [
        Unsourced(entry.node.start_mark.line + 1, ".".join(entry.path), parse_yaml(entry.node.value, path))
        for entry in _entries(path)
        if entry.node.tag in NUMBERS and entry.source is None and not NO_SOURCE_NEEDED & set(entry.path)
    ]


def require_sources(path: Path) -> None:
    """Raises TvgError at the file's first number without a source."""
    found = unsourced(path)
    if found:
        first, others = found[0], len(found) - 1
        raise TvgError(
            f"{path}:{first.line}",
            "a number without a source",
            got=f"{first.path}: {first.value}" + (f", and {others} more in this file" if others else ""),
            expected="a comment at the end of its line: # paper, Table 2; # released code; # ours, and why",
            hint="say where it comes from; `# not given; our default` is an answer too",
        )


def header(path: Path) -> str:
    """The comment lines on top of a file as one paragraph, without the editor's line; empty if there are none."""
    top = takewhile(lambda line: not line or line.startswith("#"), map(str.strip, _read(path).splitlines()))
    paragraphs = re.split(
        r"\n\s*\n", "\n".join(line.lstrip("# ") if EDITOR not in line else "" for line in top).strip()
    )
    return " ".join(paragraphs[0].split())


def paper_value(comment: str | None) -> str | None:
    """The paper's value where ours differs.

    >>> paper_value("paper 5e-5, code's log 1e-6")
    '5e-5'
    """
    found = PAPER.search(comment or "")
    return found[1] if found else None


def is_ours(comment: str | None) -> bool:
    """Does a comment say that the paper has it otherwise or not at all? `ours`, `our default`, `paper 5e-5`."""
    return bool(comment and (OURS.search(comment) or PAPER.search(comment)))


def _read(path: Path) -> str:
    read_yaml(path)  # refuses with file and line what is no YAML
    return path.read_text(encoding="utf-8")


def _entries(path: Path) -> Iterator[_Entry]:
    text = _read(path)
    root = YAML(typ="safe", pure=True).compose(text)
    comments = _comments(text)
    yield from _below(root, (), None, comments, _groups(root, comments, text.splitlines()))


def _below(
    node: Node, path: tuple[str, ...], source: str | None, comments: dict[int, _Comment], groups: dict[str, str | None]
) -> Iterator[_Entry]:
    """The entries inside a block, which `source` covers where nothing nearer does."""
    for part, key, value in _children(node):
        here = (*path, part)
        above = (groups.get(part) if path == ("arms",) else None) or source
        if isinstance(value, ScalarNode) or value.flow_style:
            yield from _inside(value, here, _trailing(_last_line(value), comments) or above, comments)
        else:
            covers = (_trailing(key.end_mark.line, comments) if key is not None else None) or above
            yield _Entry(here, value, covers)
            yield from _below(value, here, covers, comments, groups)


def _inside(node: Node, path: tuple[str, ...], source: str | None, comments: dict[int, _Comment]) -> Iterator[_Entry]:
    """A scalar, or a flow collection and all that is in it, whose entry ends with `source`."""
    own = _trailing(_last_line(node), comments) or source
    yield _Entry(path, node, own)
    for part, _, value in _children(node):
        yield from _inside(value, (*path, part), own, comments)


def _children(node: Node) -> Iterator[tuple[str, Node | None, Node]]:
    """(name or index, the key, the value)."""
    if isinstance(node, MappingNode):
        yield from ((str(key.value), key, value) for key, value in node.value)
    elif isinstance(node, SequenceNode):
        yield from ((str(index), None, item) for index, item in enumerate(node.value))


def _last_line(node: Node) -> int:
    """Where a comment that ends the entry stands; a text block's end mark lies on the line after it."""
    block = isinstance(node, ScalarNode) and node.style in ("|", ">")
    return node.start_mark.line if block else node.end_mark.line


def _comments(text: str) -> dict[int, _Comment]:
    """Line, from 0 -> the comment on it. The scanner says where comments are: a # inside quotes is none."""
    lines, found = text.splitlines(), {}
    for token in YAML().scan(text):
        for comment in _flat(token.comment):
            for number, line in enumerate(comment.value.lstrip("\n").splitlines(), comment.start_mark.line):
                if line.strip():
                    column = comment.column if number == comment.start_mark.line else lines[number].index("#")
                    before = lines[number][:column]
                    found[number] = _Comment(column, line.strip().lstrip("#").strip(), not before.strip())
    return found


def _flat(comment: object) -> Iterator:
    """The comment tokens in ruamel's nested lists; what a text block keeps is a bare string, and no number's."""
    if isinstance(comment, list):
        for item in comment:
            yield from _flat(item)
    elif hasattr(comment, "start_mark"):
        yield comment


def _trailing(line: int, comments: dict[int, _Comment]) -> str | None:
    """The comment at the end of a line, with the lines on which it goes on."""
    first = comments.get(line)
    if first is None or first.alone:
        return None
    parts = [first.text]
    while (below := comments.get(line := line + 1)) and below.alone and below.column == first.column:
        parts.append(below.text)
    return " ".join(filter(None, parts)) or None


def _groups(root: Node, comments: dict[int, _Comment], lines: list[str]) -> dict[str, str | None]:
    """Arm -> the comment lines above it, or above the arms before it."""
    for part, key, arms in _children(root):
        if part == "arms" and isinstance(arms, MappingNode) and arms.flow_style is False:
            starts = {str(arm.value): arm.start_mark for arm, _ in arms.value}
            return {
                arm: _above(mark.line, key.start_mark.line, mark.column, comments, lines)
                for arm, mark in starts.items()
            }
    return {}


def _above(line: int, top: int, column: int, comments: dict[int, _Comment], lines: list[str]) -> str | None:
    """The nearest comment lines in this column above `line` and below `top`, with no blank line between."""

    def heads(number: int) -> bool:
        comment = comments.get(number)
        return comment is not None and comment.alone and comment.column == column

    line -= 1
    while line > top and lines[line].strip() and not heads(line):
        line -= 1
    found = []
    while heads(line):
        found.insert(0, comments[line].text)
        line -= 1
    return " ".join(found) or None
