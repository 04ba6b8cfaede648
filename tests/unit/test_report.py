"""Tables and their numbers, made from a results folder that the test fills itself."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.unit.report_results import Results, filled, write_json
from tvg.config import read_yaml
from tvg.errors import TvgError
from tvg.evaluate import metrics
from tvg.report import build, runs, tables, values
from tvg.report.layout import Table, load, load_all, located, target
from tvg.rewards.similarity import similarity
from tvg.settings import RewardSettings
from tvg.spec import CollectSpec, SftSpec, TrainedModel

REPO = Path(__file__).resolve().parents[2]
CONFIG, PUBLISHED = REPO / "config" / "tables", REPO / "config" / "published"


@pytest.fixture
def results(tmp_path):
    return filled(tmp_path)


def built(results, name, **more):
    return build.build(name, results.store.root, REPO / "config", **more)


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_table_reads_and_finds_its_published_rows(path, tmp_path):
    made = build.assemble(path.stem, load(path), tmp_path / "mini", PUBLISHED)
    assert len(made.frame) == len(made.rows) > 0 and all(line.row in made.table.rows for line in made.rows)
    assert not (made.frame["status"] == build.RUN).any()


def test_all_published_rows_of_the_shipped_tables_are_unambiguous():
    for table in load_all(CONFIG).values():
        for line in table.lines:
            keys = [found["metric"] for found in build._lookup_all(table, line, PUBLISHED)]
            assert len(keys) == len(set(keys)), line.name


def test_every_run_in_the_tables_is_an_arm_that_is_evaluated_there():
    for table in load_all(CONFIG).values():
        for line in table.lines:
            if line.row.experiment:
                experiment = read_yaml(REPO / "config" / "experiments" / f"{line.row.experiment}.yaml")
                arm = {"main": {}, **experiment["arms"]}[line.row.arm]
                assert line.benchmark in (arm or {}).get("benchmarks", experiment["benchmarks"]), (
                    table.title,
                    line.name,
                )


def test_layout_mistakes_name_file_and_key(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("title: t\nbenchmark: charades_test\nmetrics: [miou]\nrows: [{label: a, experiment: b, amr: c}]\n")
    with pytest.raises(TvgError, match=r"x\.yaml.*amr"):
        load(path)
    row = {"label": "a", "experiment": "b"}
    good = {"title": "t", "benchmark": "charades_test", "metrics": ["miou"], "rows": [row]}
    for bad in (
        {"rows": [row, row]},
        {"rows": [{"label": "a"}]},
        {"against": "z"},
        {"rows": [row | {"x": 1}]},
        {"metrics": ["r1"]},
        {"benchmark": None},
        {"benchmarks": {"Charades": {"benchmark": "charades_test"}}},
        {"rows": [row | {"on": ["Charades"]}]},
    ):
        with pytest.raises(ValueError):
            Table.model_validate(good | bad)


def test_bare_yes_is_the_word():
    published = {"table": "T", "method": "m", "finetuned": True}
    row = {"label": "a", "published": published}
    table = Table.model_validate(
        {
            "title": "t",
            "benchmark": "b",
            "metrics": ["miou"],
            "rows": [row],
            "published": "p",
            "published_benchmark": "c",
        }
    )
    assert table.rows[0].published[0].finetuned == "yes"


# ---------------------------------------------------------------- numbers


def test_ours_and_the_papers_numbers_stand_apart(results):
    made = built(results, "invert4tvg_2")
    line = made.frame.set_index("label").loc["TVG only"]
    own = results.store.evaluation(runs.scored(made.root, "invert4tvg", "tvg_only", "charades_test")[0].ident)
    scores = json.loads((own / "metrics.json").read_text())
    assert line["r1_at_0.5"] == pytest.approx(100 * scores["r1_at_0.5"])
    assert [line["r1_at_0.5_low"], line["r1_at_0.5_high"]] == pytest.approx(
        [100 * v for v in scores["intervals"]["r1_at_0.5"]]
    )
    ours, paper = tables.blocks(made, tables.full)
    assert (ours.title, ours.about) == ("ours, mini†", "own model, drawn videos") and paper.title == "paper, 3B"
    printed = [
        line["value"] for line in csv.DictReader((PUBLISHED / "invert4tvg.csv").open()) if "TVG only" in line["method"]
    ]
    assert paper.cells[0] == printed


def test_several_seeds_give_mean_range_and_a_pooled_interval(results):
    made = built(results, "invert4tvg_2")
    line = made.frame.set_index("label").loc["VC+AR+VD"]
    each = [one.metrics["r1_at_0.5"] for one in made.found["VC+AR+VD"]]
    assert len(each) == 2 and line["seeds"] == "0 1"
    assert line["r1_at_0.5"] == pytest.approx(50 * sum(each))
    assert [line["r1_at_0.5_seed_min"], line["r1_at_0.5_seed_max"]] == pytest.approx([100 * min(each), 100 * max(each)])
    assert line["r1_at_0.5_low"] < line["r1_at_0.5"] < line["r1_at_0.5_high"]
    assert built(results, "invert4tvg_2", seeds=[1]).frame.set_index("label").loc["VC+AR+VD"]["seeds"] == "1"


def test_one_evaluation_under_two_seeds_is_no_spread(results):
    pointer = json.loads(results.store.pointer("zero_shot", "main", 0).read_text())
    write_json(results.store.pointer("zero_shot", "main", 1), pointer | {"seed": 1})
    made = built(results, "demo")
    line = made.frame.set_index("label").loc["base, zero-shot"]
    assert line["seeds"] == "0" and np.isnan(line["r1_at_0.5_seed_min"]) and line["r1_at_0.5_low"] >= 0
    alone = built(results, "demo", seeds=[0]).frame.set_index("label").loc["Invert4TVG", "gain_high"]
    assert made.frame.set_index("label").loc["Invert4TVG", "gain_high"] != alone  # now both seeds have their pair


def test_the_gain_over_a_row_is_paired(results):
    made = built(results, "invert4tvg_2")
    line = made.frame.set_index("label").loc["VC+AR+VD"]
    one = {r: made.found[r][0].predictions for r in ("VC+AR+VD", "TVG only")}
    want = metrics.compare(one["VC+AR+VD"], one["TVG only"])["r1_at_0.5"]
    assert line["gain"] == pytest.approx(100 * want["difference"])
    assert "Δ R1@0.5: difference to 'TVG only'" in tables.as_markdown(made)


def test_a_cell_without_a_run_says_how_to_make_it(results):
    made = built(results, "invert4tvg_2")
    command = f"snakemake --config scale=mini -- {results.store.root.as_posix()}/tables/invert4tvg_2.md"
    assert made.frame.set_index("label").loc["VD", "status"] == f"not run: {command}"
    text = tables.as_markdown(made)
    assert re.search(r"\| VD \| not run ¹", text) and command in text


def test_a_number_the_paper_lacks_says_so(results):
    made = built(results, "invert4tvg_figure_5")
    _, paper = tables.blocks(made, tables.full)
    assert paper.cells[0][0] == "36.9" and paper.cells[2] == ["not published"]
    assert made.published_metrics == ["r1_at_0.7"]


def test_a_published_row_that_does_not_exist_is_an_error(results):
    table = load(CONFIG / "invert4tvg_3.yaml")
    wrong = table.rows[0].published[0].model_copy(update={"size": "9B"})
    rows = (table.rows[0].model_copy(update={"published": (wrong,)}), *table.rows[1:])
    with pytest.raises(TvgError, match="no such published row"):
        build.assemble("x", table.model_copy(update={"rows": rows, "against": None}), results.store.root, PUBLISHED)


def test_the_scale_decides_which_row_holds_our_run(tmp_path):
    found = Results(tmp_path / "7b", kind="charades_sta")
    found.add("invert4tvg", noise=2)
    made = built(found, "invert4tvg_1").frame.set_index("label")
    assert made.loc["Invert4TVG 7B", "status"] == build.RUN
    assert made.loc["Invert4TVG 3B", "status"] == build.PUBLISHED_ONLY
    ours, _ = tables.blocks(built(found, "invert4tvg_1"), tables.full)
    assert (ours.title, ours.about) == ("ours, 7b", "")  # outside weights on all of a real benchmark: no mark


def test_the_footer_says_how_the_numbers_were_made(results):
    text = "\n".join(tables.footer(built(results, "invert4tvg_2")))
    for word in ("strict_answer", "2 a second", "2,809,856", "greedy", "0123456789 with uncommitted edits", "tIoU > m"):
        assert word in text
    assert "Seeds: 0 (TVG only); 0, 1 (VC+AR+VD)" in text
    assert "6 of 90 queries (TVG only)" in text
    assert "P: arXiv 2508.07388 Table 2" in text


def test_damaged_and_partial_results_do_not_stop_a_report(results):
    results.store.pointer("invert4tvg", "vd", 0).parent.mkdir(parents=True)
    results.store.pointer("invert4tvg", "vd", 0).write_text("{")
    folder = runs.scored(results.store.root, "invert4tvg", "tvg_only", "charades_test")[0].folder
    (folder / "metrics.json").unlink()
    made = built(results, "invert4tvg_2")
    assert made.frame.set_index("label").loc["VD", "status"].startswith(build.NOT_RUN)
    assert made.frame.set_index("label").loc["TVG only", "status"].startswith(build.NOT_RUN)
    for one in made.found["VC+AR+VD"]:
        (one.folder / "predictions.jsonl").unlink()
        one.store.spec(one.ident).unlink()
    assert "unknown protocol" in tables.as_markdown(built(results, "invert4tvg_2"))


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG.glob("*.yaml")))
def test_console_text_is_aligned_and_fits(results, name):
    text = tables.as_text(built(results, name))
    assert max(len(line) for line in text.splitlines() if "snakemake" not in line) <= 100
    assert all(line.name in text for line in built(results, name).rows)


def test_files_are_written_and_the_csv_reads_back(results):
    table, text = tables.write("demo", results.store.root, REPO / "config")
    lines = {line["label"]: line for line in csv.DictReader(table.open())}
    assert lines["whole video"]["format_rate"] == "" and float(lines["Time-R1"]["r1_at_0.5"]) > 0
    assert text.read_text().startswith("# ") and not list(table.parent.glob("*.partial"))


# ---------------------------------------------------------------- several benchmarks, scales, silence


SEVERAL = {
    "title": "t",
    "benchmarks": {"A": {"benchmark": "charades_test", "published": "charades_sta"}, "B": {"benchmark": "tacos_test"}},
    "metrics": ["r1_at_0.5"],
    "against": "base",
    "published": "invert4tvg",
    "rows": [
        {"label": "base", "experiment": "zero_shot"},
        {"label": "paper", "published": {"table": "text", "method": "Invert4TVG", "size": "3B", "finetuned": "yes"}},
        {"label": "ours", "group": "trained", "experiment": "invert4tvg"},
        {"label": "only there", "experiment": "time_r1", "on": ["B"]},
    ],
}


def test_each_benchmark_has_the_rows_again_and_its_own_comparison(tmp_path):
    found = Results(tmp_path / "mini")
    found.add("zero_shot", noise=6, benchmarks=("charades_test", "tacos_test"))
    found.add("invert4tvg", noise=2, benchmarks=("charades_test",))
    found.add("time_r1", noise=1, benchmarks=("tacos_test",))
    made = build.assemble("x", Table.model_validate(SEVERAL), found.store.root, PUBLISHED)
    assert [line.name for line in made.rows] == [
        "base, A",
        "paper, A",
        "ours, A",
        "base, B",
        "ours, B",
        "only there, B",
    ]
    assert [line["group"] for line in made.lines] == ["A", "A", "A: trained", "B", "B: trained", "B"]
    status = [line["status"].split(":")[0] for line in made.lines]
    assert status == [build.RUN, build.PUBLISHED_ONLY, build.RUN, build.RUN, build.NOT_RUN, build.RUN]
    assert [line["gain"] is not None for line in made.lines] == [False, False, True, False, False, True]
    text = tables.as_markdown(made)
    assert text.index("**A**") < text.index("**A: trained**") < text.index("**B**") < text.index("only there")
    assert "charades_test, tacos_test" in text and "ours, B" in tables.as_text(made)


def test_a_published_row_must_be_found_on_one_of_the_benchmarks(tmp_path):
    rows = [*SEVERAL["rows"][:1], SEVERAL["rows"][1] | {"on": ["B"]}]
    with pytest.raises(TvgError, match="no such published row"):
        build.assemble("x", Table.model_validate(SEVERAL | {"rows": rows}), tmp_path / "mini", PUBLISHED)


def test_a_row_lives_where_its_arm_does():
    files = {"a": {"arms": {"big": {"scales": ["3b", "7b"]}, "main_too": None}}, "b": {"scales": ["7b"]}}
    rows = [
        {"label": "0", "experiment": "a"},
        {"label": "1", "experiment": "a", "arm": "big", "scales": ["mini", "3b"]},
        {"label": "2", "experiment": "b"},
        {"label": "3", "experiment": "of another folder"},
    ]
    table = Table.model_validate({"title": "t", "benchmark": "b", "metrics": ["miou"], "rows": rows})
    placed = located(table, lambda name: files.get(name, {}))
    assert [row.scales for row in placed.rows] == [None, ("3b",), ("7b",), None]


def test_a_table_with_no_row_at_this_scale_says_so(tmp_path):
    rows = [{"label": "0", "experiment": "a", "scales": ["3b"]}]
    table = Table.model_validate({"title": "t", "benchmark": "b", "metrics": ["miou"], "rows": rows})
    made = build.assemble("x", table, tmp_path / "mini", PUBLISHED)
    assert "No row of this table runs at the scale mini" in tables.as_markdown(made)


def test_numbers_that_no_public_source_gives_are_said_to_be_missing(results):
    made = built(results, "invert4tvg_figure_1")
    _, paper = tables.blocks(made, tables.full)
    assert paper.cells == [["not published"]] * 3
    assert "no public source gives the numbers of arXiv:2508.07388, Figure 1" in tables.as_markdown(made)


def test_the_papers_tables_and_figures_have_targets():
    found = {target(name, table) for name, table in load_all(CONFIG).items()}
    wanted = {
        **{f"table_invert4tvg_{n}": 1 for n in (1, 2, 3)},
        **{f"figure_invert4tvg_{n}": 1 for n in (1, 4, 5, 6)},
        **{f"table_tar_{name}": 1 for name in ("main", "anchors", "components", "stages")},
        **{f"table_taro_{name}": 1 for name in ("main", "small", "ablation")},
    }
    assert found > wanted.keys() | {"table_timezero_3", "table_timezero_4", "table_time_r1_main", "table_cost"}
    assert found > {"table_time_r1_ablation", "table_tvg_r1_main", "table_cross_dataset"}


# ---------------------------------------------------------------- trainings and costs


def test_units_are_not_all_percents(results):
    made = built(results, "cost").frame.set_index("label")
    assert made.loc["Time-R1*", "gpu_hours"] == pytest.approx(240.5 / 3600)
    assert made.loc["Time-R1*", "step_seconds"] == 4 and made.loc["Time-R1*", "query_seconds"] == 0.5
    assert np.isnan(made.loc["base", "gpu_hours"]) and made.loc["base", "query_tokens"] == 40
    text = tables.as_markdown(built(results, "cost"))
    assert "| base | – | – | – | – | 0.50 | 40 |" in text and "percent of all" not in text


def test_the_second_forward_is_a_share_of_a_step(results):
    one = runs.scored(results.store.root, "time_r1", "finetune", "charades_test")[0]
    rows = [{"step": 1, "train/step_seconds": 4.0, "train/probe_seconds": 1.0}, {"step": 2, "train/step_seconds": 4.0}]
    (one.trainings[0].folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert values.value(one, "probe_share") == 0.125


def test_how_a_training_went(results):
    one = runs.scored(results.store.root, "time_r1", "finetune", "charades_test")[0]
    rows = [
        {"step": s, "train/reward": s / 100, "train/reward_std": 0.1 * (s % 2), "train/grad_norm": 1 + s % 2}
        for s in range(1, 101)
    ]
    path = one.trainings[0].folder / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert values.value(one, "reward_variance") == pytest.approx(0.005)
    assert values.value(one, "grad_norm_variance") == pytest.approx(0.25)
    assert 86 <= values.value(one, "steps_to_90") <= 90
    falling = [row | {"train/reward": -row["step"]} for row in rows]
    path.write_text("\n".join(map(json.dumps, falling)))
    again = runs.scored(results.store.root, "time_r1", "finetune", "charades_test")[0]
    assert values.value(again, "steps_to_90") is None


def test_a_cosine_says_what_its_vectors_are_worth(tmp_path):
    found = Results(tmp_path / "results" / "mini")
    found.add("invert4tvg", "cosine", rewards={"verbs": RewardSettings(weight=1.0, match="cosine")})
    found.add("invert4tvg", rewards={"verbs": RewardSettings(weight=1.0)})
    text = tables.as_markdown(built(found, "invert4tvg_3"))
    assert f"Cosine of run and eat: {similarity('run', 'eat'):.2f}, where the paper quotes 0.2 (cosine)" in text


def test_the_yield_of_data_stages_stands_in_the_protocol(results):
    data = results.data
    first = CollectSpec(version=1, data=data, prompt=results.prompt, versions={}, min_tiou=0.5)
    second = first.model_copy(update={"data": data.model_copy(update={"made_by": first}), "min_tiou": 0.7})
    stage = SftSpec(
        version=1, init=results.base, data=data.model_copy(update={"made_by": second}), prompt=results.prompt, seed=0
    )
    for spec, kept, passed, read in ((first, 30, 30, 186), (second, 3, 1, 30)):
        write_json(results.store.stage(spec) / "report.json", {"kept": kept, "passed": passed, "read": read})
    ident = runs.scored(results.store.root, "zero_shot", "main", "charades_test")[0].ident
    spec = runs.read_evaluation(results.store, ident).model_copy(update={"model": TrainedModel(stage=stage)})
    one = runs.Scored(results.store, results.store.freeze(spec), 0, {"n": 5})
    assert runs.protocol(one)["yield"] == (
        "collect kept 30 of 186 (16.1 %), then collect kept 3 of 30 (10.0 %), of which 1 pass its thresholds"
    )
