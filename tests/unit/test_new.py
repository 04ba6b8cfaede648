"""`tvg new` writes an experiment that plans, explains itself and has no number without a source."""

import re
import shutil

import pytest

from tests.conftest import REPO
from tests.unit.test_config import SCALES
from tvg import cli, rewards
from tvg.errors import TvgError
from tvg.overview import skeleton
from tvg.overview.explain import explain
from tvg.overview.sources import unsourced
from tvg.plan import Plan
from tvg.settings import CollectSettings, FilterSettings


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(REPO / "config", tmp_path / "config")
    return tmp_path / "config"


@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_the_skeleton_plans_at_once_and_has_its_sources(folder, scale, with_prompt):
    written = skeleton.write(folder, "my_paper", "arXiv:1234.5678", with_prompt)
    assert [path.name for path in written] == ["my_paper.yaml"] * (2 if with_prompt else 1)
    plan = Plan.load({"experiments": ["my_paper"], "scale": scale}, folder)
    assert {arm for _, arm, _ in plan.runs} == {"main", "no_format", "no_kl"}
    assert all(plan.inputs(ident) is not None for ident in plan.specs)
    prompt = plan.runs["my_paper", "main", 0].stages["grpo"].prompt
    assert plan.resolver.experiment("my_paper").prompt == ("my_paper" if with_prompt else "time_r1")
    assert "{query}" in prompt.texts["ground"] and unsourced(written[0]) == []
    text = " ".join(" ".join(explain("my_paper-no_kl", plan.resolver)).split())
    assert "my_paper (arXiv:1234.5678)" in text and "`stages.grpo.beta`: from 0.04 to 0" in text
    assert all(len(line) <= 120 for path in written for line in path.read_text().splitlines())


def test_it_lists_what_there_is(folder):
    text = skeleton.write(folder, "my_paper", "x")[0].read_text()
    for known in (*rewards.REWARDS, *(option for options in rewards.OPTIONS.values() for option in options)):
        assert f"#   {known}" in text.replace("#     ", "#   ")
    assert "roles: charades_train" in text and "charades_val (at mini)" in text and "match: binary or cosine" in text


def test_the_stages_that_make_data_are_shown_as_they_may_be_written(folder):
    path = skeleton.write(folder, "my_paper", "x")[0]
    text = path.read_text()
    for kind in (FilterSettings, CollectSettings):
        for name, field in kind.model_fields.items():
            assert name == "kind" or f"#     {name}: {field.description}"[:100] in text
    shown = re.findall(r"^# ( (?:hard|traces): \{kind: .*\n)", text.replace("#   ", "#  "), re.MULTILINE)
    cold = "  cold: {kind: sft, data: traces}\n"
    text = text.replace("\nstages:\n", f"\nstages:\n {' '.join(shown)}{cold}").replace(
        "evaluate: grpo", "evaluate: cold"
    )
    path.write_text(text.replace("init: base\n    data: charades_train", "init: base\n    data: hard"))
    plan = Plan.load({"experiments": ["my_paper"]}, folder)
    kinds = {name: spec.kind for name, spec in plan.runs["my_paper", "main", 0].stages.items()}
    assert kinds == {"hard": "filter", "grpo": "grpo", "traces": "collect", "cold": "sft"} and unsourced(path) == []


@pytest.mark.parametrize("name", ["", "a-b", "A", "../x", "a/b", "a..b", "a.", ".a", "a b", "a;b", "$(x)", "a\n", "é",
                                  "stages", "specs", "report", "track", "fetched"])  # fmt: skip
def test_a_name_that_cannot_be_one_is_refused(folder, name):
    before = sorted(folder.rglob("*"))
    with pytest.raises(TvgError, match="not the name of an experiment"):
        skeleton.write(folder, name, "x", with_prompt=True)
    assert sorted(folder.rglob("*")) == before


def test_nothing_is_overwritten(folder):
    (folder / "prompts" / "mine.yaml").write_text("mine\n")
    for name in ("time_r1", "mine"):
        with pytest.raises(TvgError, match="this file exists"):
            skeleton.write(folder, name, "x", with_prompt=True)
    assert not (folder / "experiments" / "mine.yaml").exists()


@pytest.mark.parametrize(
    "paper", ["arXiv:1 # 2", "a: b", "[x", "'", 'he said "x"', "1.5", "null", "two\nlines", "Müller é"]
)
def test_any_text_names_a_paper(folder, paper):
    skeleton.write(folder, "my_paper", paper)
    found = Plan.load({"experiments": ["my_paper"]}, folder).resolver.experiment("my_paper").paper
    assert found == " ".join(paper.split())


def test_the_verb_says_what_to_do_next(folder, monkeypatch, capsys, caplog):
    monkeypatch.chdir(folder.parent)
    assert cli.main(["new", "my_paper", "--paper", "arXiv:1", "--prompt"]) == 0
    out = capsys.readouterr().out
    assert "Wrote config/prompts/my_paper.yaml" in out and "tvg explain my_paper" in out and "snakemake -n all" in out
    assert cli.main(["explain", "my_paper"]) == 0
    assert cli.main(["new", "my_paper"]) == 1 and "this file exists" in caplog.text


def test_outside_a_repository_it_says_so(tmp_path):
    with pytest.raises(TvgError) as error:
        skeleton.write(tmp_path, "my_paper", "x")
    assert "repository's root" in error.value.hint
