"""Parameters, bytes to download and bytes to keep: against what the code that writes them really writes."""

import json

import pytest
import torch

from tests.conftest import REPO
from tests.training import TEXT, VISION
from tests.unit.test_overview_forecast import grpo, make  # noqa: F401 - a fixture
from tvg.config import Scale, read
from tvg.model import adapt, load, scratch
from tvg.model.plain import PlainPolicy
from tvg.overview.cost import space, weights
from tvg.overview.cost.counts import Counts
from tvg.overview.cost.figures import OWN_VOCABULARY, QWEN
from tvg.overview.cost.sizes import parameters, trained
from tvg.overview.layout import amount, between, duration, size, table
from tvg.settings import FramesSettings, GrpoSettings, Lora, Runtime
from tvg.spec import HubModel, PathModel, ScratchModel, TrainedModel
from tvg.train import checkpoints
from tvg.video.budget import fit

TINY = ScratchModel(text=TEXT, vision=VISION)
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_parameters_of_models_from_scratch_are_counted_right():
    shipped = read(Scale, REPO / "config" / "scales", "mini").scratch
    for spec in (TINY, ScratchModel(**shipped.model_dump())):
        model, tokenizer = scratch.build(spec)
        counts, visual = parameters(spec), model.model.visual
        assert counts.total == sum(weight.numel() for weight in model.parameters())
        assert counts.vision == sum(weight.numel() for weight in visual.parameters())
        assert counts.merger == sum(weight.numel() for weight in visual.merger.parameters())
        assert model.config.text_config.vocab_size == OWN_VOCABULARY >= len(tokenizer)


@pytest.mark.parametrize("named", ["3B", "7B"])
def test_parameters_of_released_models_are_the_library_s(named):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    shape = QWEN[named]
    vision = {**shape.vision, "num_heads": 16, "out_hidden_size": shape.text["hidden_size"]}
    config = Qwen2_5_VLConfig(text_config=shape.text, vision_config=vision, tie_word_embeddings=shape.tied)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    counts = parameters(HubModel(hub=f"Qwen/Qwen2.5-VL-{named}-Instruct", revision=REVISION))
    assert counts.total == sum(weight.numel() for weight in model.parameters())
    assert counts.total == {"3B": 3_754_622_976, "7B": 8_292_166_656}[named]


@pytest.mark.parametrize(
    ("hub", "total"),
    [("Boshenxx/Time-R1-7B", 8_292_166_656), ("OpenGVLab/VideoChat-R1_7B", 8_292_166_656),
     ("ekko126/Invert4TVG-3B", 3_754_622_976), ("someone/model-72B", None), ("someone/model", None)],
)  # fmt: skip
def test_the_size_of_a_released_model_is_in_its_name(hub, total):
    counts = parameters(HubModel(hub=hub, revision="main"))
    assert (counts and counts.total) == total


def test_the_shape_of_weights_in_a_folder_is_read_from_their_config(tmp_path):
    model, _ = scratch.build(TINY)
    model.config.save_pretrained(tmp_path / "model")
    assert parameters(PathModel(path=str(tmp_path / "model"))).total == parameters(TINY).total
    assert parameters(PathModel(path=str(tmp_path))) is None


@pytest.mark.parametrize("settings", [{}, {"freeze_vision": False}, {"lora": Lora(r=4)}])
def test_trained_parameters_are_those_that_learn(settings):
    options = GrpoSettings(**settings)
    model = adapt.apply(scratch.build(TINY)[0], options)
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trained(options, parameters(TINY)) == learning


def test_a_saved_model_is_as_large_as_foretold(tmp_path, make):  # noqa: F811
    spec = grpo(make()).model_copy(update={"init": TINY})
    load.save(PlainPolicy(*scratch.build(TINY)), tmp_path / "model")
    written = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert space.model_bytes(spec, parameters(TINY), Runtime()) == pytest.approx(written, rel=0.02)
    adapters = spec.model_copy(update={"lora": Lora()})
    assert space.model_bytes(adapters, parameters(TINY), Runtime()) == parameters(TINY).total * 2


def test_checkpoints_are_counted_as_they_are_kept():
    assert space.CHECKPOINTS == checkpoints.KEEP + 1


def test_frames_of_a_drawn_video_are_as_large_as_cached(make):  # noqa: F811
    plan = make()
    frames = grpo(plan).data.frames
    each, source, most = space.bytes_a_video(plan.store, frames)
    assert each == 47 * 56 * 56 * 3 and not most and "56 x 56" in source
    count = space.frame_count(12.2, frames.frames)
    assert count == 25 and fit(112, 112, count, frames.frames) == (56, 56)


def test_frames_take_at_most_the_pixel_budget(make):  # noqa: F811
    plan = make("3b")
    each, _, most = space.bytes_a_video(plan.store, grpo(plan).data.frames)
    settings = FramesSettings()
    height, width = fit(480, 854, 62, settings)
    assert most and 62 * height * width * 3 <= each * 62 / 61 and 15e6 < each < 17.5e6
    unknown, source, _ = space.bytes_a_video(plan.store, grpo(plan, "time_r1").data.frames)
    assert unknown > each and "any video" in source


def test_shards_that_are_whole_are_not_counted_again(make):  # noqa: F811
    plan = make()
    frames = grpo(plan).data.frames
    empty = space._frames(plan.store, Counts(plan.store), frames).size
    for path in plan.store.shards(frames, plan.scale.shards)[:3]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert space._frames(plan.store, Counts(plan.store), frames).size == pytest.approx(empty / 4)


# ---------------------------------------------------------------- downloads


def downloads(plan, *arms):
    from tvg.overview.forecast import forecast

    return {item.what: item.size for item in forecast(plan, arms).downloads}


def test_charades_and_the_base_model_are_downloaded_once(make):  # noqa: F811
    plan = make("3b")
    found = downloads(plan, "invert4tvg")
    assert found["Charades_v1_480.zip of charades_sta"] == 13e9
    assert found["weights Qwen/Qwen2.5-VL-3B-Instruct"] == 2 * 3_754_622_976 and len(found) == 2


def test_what_is_fetched_is_not_downloaded(make):  # noqa: F811
    plan = make("3b")
    data = grpo(plan).data.samples.dataset
    path = plan.store.fetched(data)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dataset": "charades_sta", "videos": 6000}))
    assert not [what for what in downloads(plan, "invert4tvg") if "charades" in what]
    assert Counts(plan.store).all_videos(data).value == 6000


def test_an_archive_that_is_there_is_not_downloaded(make):  # noqa: F811
    plan = make("3b")
    folder = plan.store.dataset(grpo(plan).data.samples.dataset)
    folder.mkdir(parents=True)
    (folder / "Charades_v1_480.zip").write_bytes(b"zip")
    assert not [what for what in downloads(plan, "invert4tvg") if "charades" in what]


def test_an_archive_of_unknown_size_stays_unknown(make):  # noqa: F811
    plan = make("3b")
    identity = grpo(plan).data.samples.dataset
    other = identity.model_copy(update={"settings": {"videos": {"url": "https://example.org/all.zip"}}})
    (item,) = space.downloads(plan.store, Counts(plan.store), [other], [])
    assert item.size is None and "not known" in item.source
    assert space.total([item]) == (0, [item])


def test_weights_in_the_hub_s_cache_are_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = HubModel(hub="Qwen/Qwen2.5-VL-3B-Instruct", revision=REVISION)
    folder = tmp_path / "models--Qwen--Qwen2.5-VL-3B-Instruct" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    assert not weights.cached(model)
    (folder / "config.json").write_text("{}")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / weights.INDEX).write_text(json.dumps({"weight_map": shards}))
    (folder / "model-1.safetensors").write_bytes(b"")
    assert not weights.cached(model), "a shard lacks"
    (folder / "model-2.safetensors").write_bytes(b"")
    assert weights.cached(model) and not space.released([model])


def test_a_trained_model_is_as_large_as_what_it_began_as(make):  # noqa: F811
    spec = grpo(make())
    assert parameters(TrainedModel(stage=spec)) == parameters(spec.init)


# ---------------------------------------------------------------- quantities


def test_quantities_read_well():
    assert [duration(s) for s in (None, 4.4, 89, 600, 5400, 36000, 4.5e6)] == [
        "unknown", "4 s", "89 s", "10 min", "1.5 h", "10 h", "1,250 h"]  # fmt: skip
    assert (between(60, 60), between(36000, 72000), between(60, 7200)) == ("60 s", "10 to 20 h", "60 s to 2.0 h")
    assert [size(n) for n in (None, 0, 5e3, 6.7e6, 13e9, 999.9e9, 2.5e12)] == [
        "unknown", "0 kB", "5.0 kB", "6.7 MB", "13 GB", "1000 GB", "2.5 TB"]  # fmt: skip
    assert (amount(12), amount(1.26e6), amount(3.754e9)) == ("12", "1.26 million", "3.75 billion")


def test_the_last_column_wraps():
    lines = table(("a", "b"), [("x", "word " * 40)], width=40)
    assert max(map(len, lines)) <= 40 and all(line.startswith("   ") for line in lines[2:])
