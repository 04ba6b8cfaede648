"""Tables, plots and the page, made from a results folder that the test fills itself."""

import csv
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from tvg.config import read_yaml
from tvg.errors import TvgError
from tvg.evaluate import metrics
from tvg.report import build, page, plots, runs, tables
from tvg.report.layout import Table, load, load_all
from tvg.settings import EvaluateSettings, FramesSettings, Prompt, RewardSettings
from tvg.spec import (
    DatasetIdentity,
    DataSpec,
    EvaluationSpec,
    Floor,
    FramesSpec,
    GrpoSpec,
    HubModel,
    SamplesSpec,
    ScratchModel,
    TrainedModel,
)
from tvg.store import Store, identify

REPO = Path(__file__).resolve().parents[2]
CONFIG, PUBLISHED = REPO / "config" / "tables", REPO / "config" / "published"
ANSWER = "<think>It starts at {0:.2f} and ends at {1:.2f}.</think> <answer>{0:.2f} to {1:.2f}</answer>"


class Results:
    """A results folder of one scale: add(experiment, arm, seed, noise) is one finished run."""

    def __init__(self, root: Path, kind: str = "mini", videos: int = 30):
        self.store, self.videos = Store(root), videos
        dataset = DatasetIdentity(name="drawn" if kind == "mini" else "charades_sta", kind=kind, version=1)
        frames = FramesSpec(dataset=dataset, frames=FramesSettings(), version=1)
        self.data = DataSpec(samples=SamplesSpec(dataset=dataset, split="test"), frames=frames)
        self.prompt = Prompt(texts={"ground": "When does {query} happen?"})
        own = ScratchModel(text={"hidden_size": 64}, vision={})
        self.base = own if kind == "mini" else HubModel(hub="Qwen/Qwen2.5-VL-3B-Instruct", revision="main")

    def add(self, experiment, arm="main", seed=0, noise=1.0, missing=0, floor=False, steps=60):
        stages, model = {}, Floor(floor="whole_video") if floor else self.base
        if steps and not floor and experiment != "zero_shot":
            rewards = {"tiou": RewardSettings(weight=1.0), "format": RewardSettings(weight=1.0)}
            spec = GrpoSpec(
                version=1,
                init=self.base,
                data=self.data,
                prompt=self.prompt,
                rewards=rewards,
                versions={"arm": len(arm)},
                seed=seed,
                learning_rate=1e-6 * (1 + hash_of(experiment, arm)),
            )
            stages, model = {"grpo": identify(spec)}, TrainedModel(stage=spec)
            self._train(spec, noise, steps)
        versions = {"run": hash_of(experiment, arm, seed)}
        spec = EvaluationSpec(
            version=1,
            benchmark="charades_test",
            model=model,
            data=self.data,
            prompt=self.prompt,
            versions=versions,
            settings=EvaluateSettings(),
        )
        ident = self.store.freeze(spec)
        self._predict(self.store.evaluation(ident), noise, missing, floor, random.Random(hash_of(arm, seed)))
        write_json(
            self.store.pointer(experiment, arm, seed),
            {
                "experiment": experiment,
                "arm": arm,
                "seed": seed,
                "stages": stages,
                "evaluations": {"charades_test": ident},
            },
        )
        return self.store.evaluation(ident)

    def _predict(self, folder, noise, missing, floor, rng):
        truth, rows = random.Random(0), []
        for k in range(self.videos * 3):
            start, length = truth.uniform(0, 18), truth.uniform(3, 10)
            guess = [max(0.0, start + rng.gauss(0, noise)), start + length + rng.gauss(0, noise)]
            lost, said = k // 3 < missing, rng.random() > 0.03 * noise
            rows.append(
                {
                    "id": f"q{k}",
                    "video": f"clip{k // 3:03d}.mp4",
                    "task": "ground",
                    "query": f"the red square moves <{k}>",
                    "segments": [[start, start + length]],
                    "duration": 30.0,
                    "verbs": None,
                    "legacy": None,
                    "tokens": 40,
                    "completion": None if lost or floor else ANSWER.format(*guess) if said else "I cannot tell.",
                    "predicted": None if lost or not said else guess,
                    "format": said and not lost and not floor,
                    "missing": "file not found" if lost else None,
                }
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        scores = metrics.score(rows)
        if not floor:
            scores["actions"] = {
                t: {"accuracy": 0.5, "n": 9} for t in ("complete_verb", "recognise_action", "describe")
            }
            scores["intervals"] |= {t: [0.4, 0.6] for t in scores["actions"]}
        write_json(folder / "metrics.json", scores)
        lost = [row for row in rows if row["missing"]]
        (folder / "missing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lost))

    def _train(self, spec, noise, steps):
        folder, rng = self.store.stage(spec), random.Random(7)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "step": s,
                "time": 1e9 + 4 * s,
                "train/reward": 1.6 - 1.1 * 0.97**s - 0.1 * noise + rng.gauss(0, 0.08),
                "train/rewards/tiou": 0.7 - 0.6 * 0.97**s + rng.gauss(0, 0.05),
                "train/rewards/format": 1 - 0.7 * 0.9**s,
                "train/reward_std": 0.3 * 0.99**s + rng.gauss(0, 0.02),
                "train/length": 60 - 0.2 * s + rng.gauss(0, 3),
                "train/loss": rng.gauss(0, 0.01),
                "train/grad_norm": abs(rng.gauss(1, 0.3)),
            }
            for s in range(1, steps + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6')
        write_json(
            folder / "run.json",
            {
                "started": "2026-11-20T10:00:00",
                "ended": "2026-11-20T10:04:00",
                "exit": 0,
                "host": "node1",
                "device": "cpu",
                "precision": "float32",
                "policy": "plain",
                "versions": {"torch": "2.13"},
                "commit": "0123456789abcdef",
                "dirty": True,
                "seconds": 240.5,
                "peak_memory_gb": 1.25,
                "steps": steps,
            },
        )


def hash_of(*parts) -> int:
    """The same number on every run, unlike hash()."""
    return sum(ord(c) * (i + 1) for i, c in enumerate("/".join(map(str, parts))))


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def results(tmp_path):
    """Base, floors and trained runs; two seeds of Invert4TVG; most arms not run."""
    found = Results(tmp_path / "results" / "mini")
    found.add("zero_shot", noise=6)
    found.add("zero_shot", "whole_video", noise=9, floor=True)
    found.add("time_r1", "finetune", noise=3)
    for seed in (0, 1):
        found.add("invert4tvg", seed=seed, noise=2)
    found.add("invert4tvg", "tvg_only", noise=3, missing=2)
    found.add("invert4tvg", "ground_0.8", noise=2)
    found.add("invert4tvg", "ground_1.0", noise=3)
    return found


def built(results, name, **more):
    return build.build(name, results.store.root, REPO / "config", **more)


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_table_reads_and_finds_its_published_rows(path, tmp_path):
    made = build.assemble(path.stem, load(path), tmp_path / "mini", PUBLISHED)
    assert len(made.frame) == len(made.table.rows) > 0
    assert not (made.frame["status"] == build.RUN).any()


def test_all_published_rows_of_the_shipped_tables_are_unambiguous():
    for table in load_all(CONFIG).values():
        for row in table.rows:
            keys = [line["metric"] for ref in row.published for line in build._lookup(table, ref, PUBLISHED)]
            assert len(keys) == len(set(keys)), row.label


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
        {"kind": "figure"},
        {"metrics": ["r1"]},
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
    assert all(row.label in text for row in built(results, name).table.rows)


def test_files_are_written_and_the_csv_reads_back(results):
    table, text = tables.write("demo", results.store.root, REPO / "config")
    lines = {line["label"]: line for line in csv.DictReader(table.open())}
    assert lines["whole video"]["format_rate"] == "" and float(lines["Time-R1"]["r1_at_0.5"]) > 0
    assert text.read_text().startswith("# ") and not list(table.parent.glob("*.partial"))


# ---------------------------------------------------------------- plots and the page


def test_trainings_are_listed_once_with_all_that_use_them(results):
    (one,) = runs.trainings(results.store.root, {("time_r1", "finetune")})
    assert one.used == [("time_r1", "finetune", 0, "grpo")]
    assert len(one.history) == 60  # the last line was cut short
    pointer = results.store.pointer("time_r1", "finetune", 0)
    write_json(results.store.pointer("time_r1", "twin", 0), json.loads(pointer.read_text()) | {"arm": "twin"})
    (one,) = runs.trainings(results.store.root, {("time_r1", "finetune"), ("time_r1", "twin")})
    assert [use[1] for use in one.used] == ["finetune", "twin"]
    assert list(plots.histories([one])) == ["time_r1"] and list(plots.histories([one])["time_r1"]) == ["finetune, twin"]


def test_smoothing_keeps_a_straight_line_and_its_ends():
    values = plots.smooth(np.full(100, 3.0))
    assert values.shape == (100,) and np.allclose(values, 3.0)
    assert plots.smooth(np.array([7.0])) == [7.0]


def test_the_page_holds_everything_and_asks_for_nothing(results):
    path = page.write(results.store.root, "all", list(load_all(CONFIG)), REPO / "config")
    text = path.read_text()
    assert path == results.store.root / "report" / "all.html"
    for kind in ("src", "href"):
        links = re.findall(rf'{kind}="([^"]*)"', text)
        assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "@import" not in text and "url(" not in text
    assert "the red square moves &lt;" in text and "the red square moves <" not in text
    assert "&lt;think&gt;" in text and "clip000.mp4" in text and "file not found" in text
    assert all(escape(table.title) in text for table in load_all(CONFIG).values())
    assert "0123456789*" in text and "no readable answer" in text
    drawn = list((results.store.root / "plots" / "all").iterdir())
    assert {path.name for path in drawn} == {
        f"{name}.png" for name in ("rewards", "curves", "offsets", *load_all(CONFIG))
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 2000 for path in drawn)


def test_the_page_of_an_empty_folder_says_what_to_do(tmp_path):
    path = page.write(tmp_path / "results" / "mini", "demo", ["demo"], REPO / "config")
    text = path.read_text()
    assert "not run ¹" in text and "snakemake --config scale=mini" in text and "No predictions yet" in text


def test_examples_go_from_best_to_worst(results):
    shown = build.leading([built(results, "demo")])
    assert list(shown) == ["base, zero-shot", "Time-R1", "Invert4TVG"]
    found = page.examples(shown)
    overlaps = [float(bar["value"][5:]) for one in found for bar in one["bars"][-1:] if bar["value"].startswith("tIoU")]
    assert len(found) == 7 and overlaps == sorted(overlaps, reverse=True)
    assert all(0 <= left <= 100 and width > 0 for one in found for bar in one["bars"] for left, width in bar["spans"])


def test_every_run_in_the_tables_is_an_arm_of_its_experiment():
    for table in load_all(CONFIG).values():
        for row in table.rows:
            if row.experiment:
                experiment = read_yaml(REPO / "config" / "experiments" / f"{row.experiment}.yaml")
                assert row.arm == plots.MAIN or row.arm in experiment["arms"], (table.title, row.label)
