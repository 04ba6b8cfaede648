"""Every number of a configuration file carries its source, and the rule says exactly which comment that is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tvg.config import read_yaml
from tvg.errors import TvgError
from tvg.overview.sources import header, is_ours, paper_value, require_sources, sources, unsourced

SHIPPED = sorted(
    path for kind in ("experiments", "scales", "datasets") for path in (REPO / "config" / kind).glob("*.yaml")
)


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "x.yaml").write_text(text)
        return tmp_path / "x.yaml"

    return write


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_shipped_number_lacks_a_source(path):
    assert unsourced(path) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_without_comments_every_number_lacks_one(path, file):
    """All numbers are found, at any depth, and only comments vouch for them."""
    bare = file(re.sub(r"(^|\s)#.*", "", path.read_text(), flags=re.MULTILINE))
    assert len(unsourced(bare)) == count(read_yaml(bare))


def count(node):
    if isinstance(node, dict):
        return sum(count(value) for key, value in node.items() if key not in ("seeds", "revision"))
    if isinstance(node, list):
        return sum(map(count, node))
    return isinstance(node, int | float) and not isinstance(node, bool)


def test_a_comment_covers_the_line_and_the_entry_that_it_ends(file):
    path = file("a: {b: 1,   # first\n    c: 2,\n    d: [3, 4]}   # last\ne: 5\nf: 6   # six\n")
    assert sources(path) == {
        "a": "last", "a.b": "first", "a.c": "last", "a.d": "last", "a.d.0": "last", "a.d.1": "last", "f": "six"
    }  # fmt: skip
    assert unsourced(path) == [(4, "e", 5)]


def test_a_comment_on_a_key_covers_the_block_under_it_and_nothing_after(file):
    path = file("set:   # ours\n  grpo:\n    steps: 60\n  sft: {batch: 16}   # own\nshards: 4\n")
    assert sources(path)["set.grpo.steps"] == "ours" and sources(path)["set.sft.batch"] == "own"
    assert unsourced(path) == [(5, "shards", 4)]


def test_a_comment_goes_on_in_its_column(file):
    path = file("a: 1   # paper,\n       # Table 2\n  # prose\nb: 2\n")
    assert sources(path) == {"a": "paper, Table 2"} and unsourced(path) == [(4, "b", 2)]


def test_lines_above_arms_cover_their_group(file):
    first = "  # Table 2\n  # (paper)\n  a: {x: 1}\n  b: {x: 2}   # ours\n  c:\n    x: 3\n"
    path = file(f"arms:\n{first}  # Table 3\n  d: {{x: 4}}\n\n  e: {{x: 5}}\n")
    assert {key: found for key, found in sources(path).items() if key.endswith("x")} == {
        "arms.a.x": "Table 2 (paper)", "arms.b.x": "ours", "arms.c.x": "Table 2 (paper)", "arms.d.x": "Table 3",
    }  # fmt: skip
    assert unsourced(path) == [(11, "arms.e.x", 5)]


def test_lines_above_anything_else_are_prose(file):
    assert len(unsourced(file("# about\na: 1\nstages:\n  # about\n  b: {c: 2.5}\n"))) == 2


def test_words_booleans_seeds_and_revisions_need_none(file):
    assert unsourced(file("a: word\nb: true\nc: null\nd: '12'\nseeds: [0, 1]\nbase: {hub: x, revision: 123}\n")) == []


def test_a_hash_inside_quotes_or_a_text_block_is_no_comment(file):
    assert [found.path for found in unsourced(file('a: ["x # y", 1]\nb: |\n  # z\nc: 2\n'))] == ["a.1", "c"]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["1", "2.5", "1e-6", "[1, 2]", "{k: 3}", "word"])), max_size=8)
)
def test_exactly_the_commented_entries_have_a_source(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("x") / "x.yaml"
    lines = [f"  k{i}: {value}{'   # ours' if told else ''}" for i, (told, value) in enumerate(entries)]
    path.write_text("\n".join(["top:", *(lines or ["  k: word"])]) + "\n")
    bare = {f"k{i}" for i, (told, value) in enumerate(entries) if not told and value != "word"}
    assert {found.path.split(".")[1] for found in unsourced(path)} == bare


def test_a_number_without_a_source_is_refused_with_its_line(file):
    path = file("a: 1   # ours\nb: {c: 2, d: 3}\n")
    with pytest.raises(TvgError, match="a number without a source") as error:
        require_sources(path)
    assert error.value.where == f"{path}:2" and error.value.got == "b.c: 2, and 1 more in this file"
    require_sources(file("a: 1   # ours\n"))


@pytest.mark.parametrize(
    ("comment", "theirs", "ours"),
    [
        ("paper 5e-5, code's log 1e-6", "5e-5", True),
        ("article 1,024; ours for one GPU", "1,024", True),
        ("released code 200; our default, systems.md 8", None, True),
        ("paper, Table 2", None, False),
        ("released code", None, False),
        ("four hours on one GPU", None, False),
        (None, None, False),
    ],
)
def test_what_a_comment_says_of_the_paper(comment, theirs, ours):
    assert paper_value(comment) == theirs and is_ours(comment) == ours


def test_the_header_is_the_first_paragraph_without_the_editors_line(file):
    path = file("# yaml-language-server: $schema=../x.json\n# One\n# two.\n\n# More.\na: 1   # ours\n# end\n")
    assert header(path) == "One two." and header(file("a: word\n")) == ""
