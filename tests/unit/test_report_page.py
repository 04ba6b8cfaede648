"""Plots and the page, made from a results folder that the test fills itself."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from tests.unit.report_results import filled, write_json
from tvg.report import build, page, plots, runs
from tvg.report.layout import load_all

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / "config" / "tables"


@pytest.fixture
def results(tmp_path):
    return filled(tmp_path)


def built(results, name, **more):
    return build.build(name, results.store.root, REPO / "config", **more)


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
