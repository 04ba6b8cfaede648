"""The benchmarks of the model side run on a CPU, and the stock path that they compare with is what it claims to be."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import REPO
from tvg.model.plain import PlainPolicy

sys.path.append(str(REPO / "benchmarks"))  # Python does it for a script that lies there

import mini
import rollout
import step
import stock
import targets
from record import Record, arguments
from shapes import SHAPES, build, forward_flops, policy, prompt

TINY = ["--shape", "tiny", "--policy", "plain", "--device", "cpu", "--commit", "abc"]
SHAPE = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model():
    return build(SHAPE, "cpu")


@pytest.fixture(scope="module")
def contexts(model):
    """A group of two, and a row on another video."""
    first = prompt(model, SHAPE)
    return [first, first, prompt(model, SHAPE, seed=1)]


@pytest.fixture(scope="module")
def ids():
    return torch.randint(8, 1400, (3, 5), generator=torch.Generator().manual_seed(0))


def lines(file) -> list[dict]:
    return json.loads(file.read_text())


# ---------------------------------------------------------------- the scripts


def test_step_measures_every_part_and_appends(tmp_path, capsys):
    file = tmp_path / "step.json"
    file.write_text('[{"commit": "before"}]')
    assert step.main([*TINY, "--policy", "shared", "--repeats", "1", "--append", str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    before, run = lines(file)
    assert before == {"commit": "before"} and run == printed and run["failed"] == {} and run["commit"] == "abc"
    assert {"gpu", "versions", "shape", "dtype", "policy", "noise", *step.QUOTED} <= set(run)
    assert run["lengths"] == {"grid": [4, 8, 12], "visual": 96, "prompt": 116, "group": 4, "new_tokens": 6}
    parts = ["generate", "first_token", "vision", "score", "loss"]
    for name in ("stock", "ours"):
        assert all(run["parts"][name][f"{part}_s"] > 0 for part in parts)
        assert {"decode_ms_per_token", "bandwidth_fraction", "peak_gb", "attention"} <= set(run["parts"][name])
    assert run["ours_s"] == pytest.approx(run["parts"]["ours"]["generate_s"] + run["loss_s"], rel=1e-3)
    assert run["times_faster_than_stock"] == pytest.approx(run["stock_s"] / run["ours_s"], rel=1e-3)
    assert run["varlen_s"] is None and run["mfu"] is None, "not on a CPU"
    assert run["mean_abs_dlogp"] < 1e-5 and run["rollout_mismatch"] < 1e-5
    assert 0 < run["noise"]["mean_abs_dlogp"] < 0.01, "the vision tokens' share of a small vocabulary"


def test_rollout_counts_groups_and_queries(capsys):
    sizes = ["--groups", "1", "2", "--queries", "3", "--stock-queries", "2", "--batches", "2", "--new-tokens", "3"]
    assert rollout.main([*TINY, "--repeats", "1", *sizes]) == 0
    run = json.loads(capsys.readouterr().out)
    assert set(run["rollouts"]) == set(run["evaluation"]) == {"stock", "plain", "ours"}
    for rows in run["rollouts"].values():
        assert [(row["groups"], row["rollouts"]) for row in rows] == [(1, 4), (2, 8)]
        assert all(row["tokens_per_s"] == pytest.approx(6 * row["rollouts"] / row["seconds"], rel=1e-2) for row in rows)
    (ours,), (library,) = run["evaluation"]["ours"], run["evaluation"]["stock"]
    assert (ours["queries"], ours["batch"], library["queries"], library["batch"]) == (3, 2, 2, 1)
    assert run["times_faster_than_stock"] == pytest.approx(ours["queries_per_s"] / library["queries_per_s"], rel=1e-3)


def test_mini_trains_on_drawn_videos(capsys):
    sizes = ["--groups", "1", "--generations", "2", "--tokens", "4", "--steps", "1", "--warm", "1", "--videos", "1"]
    assert mini.main([*TINY, *sizes]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["steps_per_s"] > 0 and run["length"] == 4 and run["trained"] is False
    parts = {"contexts", "generate", "rewards", "score", "backward", "optimizer", "rest"}
    assert set(run["profile_ms"]) == parts and all(run["profile_ms"][part] > 0 for part in parts)


def test_a_part_that_fails_is_told_and_the_others_are_measured(tmp_path, capsys):
    file = tmp_path / "runs" / "x.json"
    record = Record("x", arguments("").parse_args(["--append", str(file), "--device", "cpu"]))
    with record.part("first"):
        record.add(parts={"a": 1})
        raise RuntimeError("out of memory")
    assert lines(file)[0]["parts"] == {"a": 1}, "on disk at once"
    with record.part("second"):
        record.add(parts={"b": 2})
    assert record.end() == 1
    assert json.loads(capsys.readouterr().out) == lines(file)[-1]
    assert lines(file)[-1]["parts"] == {"a": 1, "b": 2}
    assert lines(file)[-1]["failed"] == {"first": "RuntimeError: out of memory"}


def test_the_readme_shows_the_newest_runs(tmp_path, monkeypatch):
    readme = (REPO / "benchmarks" / "README.md").read_text()
    assert targets.PLACE.findall(readme) == [targets.table()], "python benchmarks/targets.py --write"
    monkeypatch.setattr(targets, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    runs = [{"commit": "0123456789", "loss_s": 0.5}, {"commit": "abc", "loss_s": None}]
    (tmp_path / "results" / "step-h200.json").write_text(json.dumps(runs))
    scaling = [{"commit": "0123456789", "runs": [{"gpus": n, "groups_per_second": 1.9 * n - 0.9} for n in (1, 2)]}]
    (tmp_path / "results" / "scaling-h200.json").write_text(json.dumps(scaling))
    assert targets.table().splitlines()[2:] == [
        "| loss forward + backward | 0.75 s | 0.5 s | 0.5 s | 0123456 |",
        "| groups a second, 2 GPUs against 1 | 1.85 | 1.95 | 2.9 | 0123456 |",
    ]


# ---------------------------------------------------------------- what they compare and count


def plain_without_suppression(model) -> PlainPolicy:
    """The library scores over the whole vocabulary."""
    plain = policy("plain", model)
    plain.suppressed = plain.suppressed[:0]
    return plain


@torch.no_grad()
def test_the_stock_path_with_our_positions_is_the_plain_policy(model, contexts, ids):
    """The library's own forward, pixels and all, patched in nothing but its positions."""
    expected = plain_without_suppression(model).score(contexts, ids, torch.ones_like(ids)).logps
    positions = stock.original(model, contexts, ids.shape[1])
    assert positions.shape == (3, 3, len(contexts[0].input_ids) + 5)
    assert (stock.Stock(model).logps(contexts, ids, positions) - expected).abs().max() < 1e-5


@torch.no_grad()
def test_the_library_positions_change_the_log_probabilities(model, contexts, ids):
    """As long as transformers places the text after a video inside the video's time range."""
    path, context = stock.Stock(model), contexts[0]
    own, ours = (path.logps(contexts, ids, at) for at in (None, stock.original(model, contexts, ids.shape[1])))
    assert (own - ours).abs().max() > 1e-4
    library, _ = model.model.get_rope_index(
        context.input_ids[None], video_grid_thw=torch.tensor([context.grid]),
        second_per_grid_ts=torch.tensor([1.0]), mm_token_type_ids=(context.input_ids[None] == 7).int() * 2,
    )  # fmt: skip
    after = (context.input_ids == model.config.video_token_id).nonzero().max() + 1
    true = stock.original(model, [context], 0)
    assert library[..., :after].equal(true[..., :after]), "up to the video they agree"
    assert (library[..., after:] < true[..., after:]).all(), "the text after it stands too early"
    assert (library[:, 0, after] <= library[0, 0, :after].max()).all(), "inside the video's time"


def test_the_gradients_of_the_stock_path_are_the_plain_policys(model, contexts, ids):
    plain, library = plain_without_suppression(model), stock.Stock(model)
    positions = stock.original(model, contexts, ids.shape[1])
    found = []
    for logps in (plain.score(contexts, ids, torch.ones_like(ids)).logps, library.logps(contexts, ids, positions)):
        model.zero_grad()
        logps.sum().backward()
        found.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    model.zero_grad()
    for name, gradient in found[0].items():
        assert (gradient - found[1][name]).norm() <= 1e-4 * gradient.norm() + 1e-7, name


def test_every_path_makes_exactly_as_many_tokens(model, contexts):
    made = stock.Stock(model).generate(contexts, 12)
    assert made.shape == (3, 12) and not set(made.flatten().tolist()) & set(stock.Stock(model).suppressed)
    assert not made[0].equal(made[1]), "sampled"
    greedy = stock.Stock(model).generate(contexts, 4, temperature=0)
    assert greedy[0].equal(greedy[1])
    mine = step.ours(policy("plain", model), contexts).generate(12)
    assert mine.shape == (3, 12)


@torch.no_grad()
def test_varlen_gives_every_window_to_one_call(model, contexts, monkeypatch):
    """torch has the kernel on CUDA alone; here something else does its work."""
    calls = []

    def windows(query, key, value, cut, _cut, longest, _longest):
        calls.append(cut.tolist())
        assert longest == cut.diff().max() and cut.dtype == torch.int32
        pieces = (part.transpose(0, 1).split(cut.diff().tolist(), dim=1) for part in (query, key, value))
        out = [torch.nn.functional.scaled_dot_product_attention(*each) for each in zip(*pieces, strict=True)]
        return torch.cat(out, dim=1).transpose(0, 1)

    monkeypatch.setattr(stock, "varlen_attn", windows)
    context = contexts[0]
    pixels, grid = context.pixels, torch.tensor([context.grid])
    expected = model.model.get_video_features(pixels, grid).pooler_output[0]
    with stock.untouched(model, stock.NAME):
        found = model.model.get_video_features(pixels, grid).pooler_output[0]
    assert (found - expected).abs().max() < 1e-5
    assert [len(cut) - 1 for cut in calls] == [8, 4], "2 windows in each of 4 frames, then whole frames"
    model.model.get_video_features(pixels, grid)
    assert len(calls) == 2, "back to the library's loop"


def test_untouched_undoes_what_a_policy_has_put_in(model):
    configs = model.model.visual.config, model.model.language_model.config
    for config in configs:
        config._attn_implementation = "eager"
    with stock.untouched(model):
        assert [config._attn_implementation for config in configs] == ["sdpa", "sdpa"]
    assert [config._attn_implementation for config in configs] == ["eager", "eager"]
    for config in configs:
        config._attn_implementation = "sdpa"


def test_flops_are_those_of_the_matrix_products(model, contexts):
    shape, ids = replace(SHAPE, group=1), torch.full((1, SHAPE.new_tokens), 9)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        policy("plain", model).score(contexts[:1], ids, torch.ones_like(ids))
    counted = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten
    products = sum(counted.get(op, 0) for op in (aten.mm, aten.addmm, aten.convolution))
    one_more = 2 * model.lm_head.weight.numel()  # plain takes the logits of one token too many
    assert products == forward_flops(model, shape) + one_more
