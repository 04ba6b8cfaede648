"""Models made, saved, read back and adapted: nothing changes on the way, and nothing foreign comes in."""

import json

import pytest
import torch

from tests.unit.tiny_model import SCRATCH, asked, tiny
from tvg.errors import TvgError
from tvg.model import scratch
from tvg.model.adapt import apply, merge
from tvg.model.load import dtype_for, load, named, read, save
from tvg.model.plain import PlainPolicy, unwrap
from tvg.model.policy import Sampling
from tvg.settings import Lora, Optimiser
from tvg.spec import Floor, HubModel, PathModel, ScratchModel
from tvg.store import Store

CPU = {"device": "cpu", "dtype": torch.float32}
TOKENS = torch.tensor([[500, 501, 502, 503]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    policy = tiny()
    save(policy, folder)
    return folder, policy


def weights(model) -> dict[str, torch.Tensor]:
    return unwrap(model).state_dict()


def scores(policy, model=None) -> torch.Tensor:
    with torch.no_grad():
        return policy.score([asked(policy, "When?")], TOKENS, torch.ones_like(TOKENS), model=model).logps


# ---------------------------------------------------------------- scratch


def test_the_same_spec_gives_the_same_model_and_tokenizer():
    torch.manual_seed(5)
    (first, one), state = scratch.build(SCRATCH), torch.random.get_rng_state()
    torch.manual_seed(6)
    second, two = scratch.build(SCRATCH)
    assert all(first.state_dict()[name].equal(weight) for name, weight in second.state_dict().items())
    assert one.backend_tokenizer.to_str() == two.backend_tokenizer.to_str()
    torch.manual_seed(5)
    assert torch.random.get_rng_state().equal(state), "building draws from its own random state"
    other, _ = scratch.build(SCRATCH.model_copy(update={"seed": 1}))
    assert not other.lm_head.weight.equal(first.lm_head.weight)


def test_scratch_is_shaped_as_released_models_are():
    model, tokenizer = scratch.build(SCRATCH)
    config = model.config
    assert config.vision_config.tokens_per_second == 2 and config.vision_config.out_hidden_size == 64
    assert config.text_config.rope_parameters["mrope_section"] == [2, 3, 3]
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert tokenizer.convert_ids_to_tokens(config.video_token_id) == "<|video_pad|>"
    half = scratch.build(ScratchModel(text={**SCRATCH.text, "vocab_size": 4096}, vision=SCRATCH.vision))[0]
    assert half.lm_head.weight.shape == (4096, 64)


def test_prompts_are_short_and_anything_encodes():
    tokenizer = scratch.tokenizers.build()
    prompt = (
        'Find the moment in the video that this sentence describes: "a person spins around and then sits down.". When '
        "does it start and when does it end? Give the answer inside <answer> </answer>: the start and the end in "
        "seconds with two decimals, for example <answer>12.54 to 17.83</answer>."
    )
    assert len(tokenizer(prompt)["input_ids"]) < 1.5 * len(prompt.split())
    assert tokenizer.tokenize("12.54") == ["1", "2", ".", "5", "4"]
    for text in (prompt, "Zürich 東京 🙂\tx\n\n  y", "<think></think>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("part", "sizes", "named"),
    [("text", {"hidden": 64}, "hidden"), ("vision", {"windows": 56}, "windows"), ("text", None, "hidden_size")],
)
def test_sizes_that_the_library_would_ignore_are_refused(part, sizes, named):
    given = {**getattr(SCRATCH, part), **sizes} if sizes else {}
    with pytest.raises(TvgError, match=named):
        scratch.build(SCRATCH.model_copy(update={part: given}))


# ---------------------------------------------------------------- folders


def test_what_is_saved_is_read_back_whole(saved, tmp_path):
    folder, policy = saved
    again = load(PathModel(path=str(folder)), Store(tmp_path), **CPU)
    assert weights(again.model).keys() == weights(policy.model).keys()
    assert all(weights(again.model)[name].equal(weight) for name, weight in weights(policy.model).items())
    assert again.tokenizer.get_chat_template() == policy.tokenizer.get_chat_template()
    context = asked(again, "When does a person jump?")
    assert context.input_ids.equal(asked(policy, "When does a person jump?").input_ids)
    greedy = Sampling(8, temperature=0.0)
    assert again.generate([context], greedy, [0]) == policy.generate([context], greedy, [0])
    assert again.ends == policy.ends and again.suppressed.equal(policy.suppressed)


def test_a_saved_folder_is_whole_safe_and_replaceable(saved):
    folder, policy = saved
    save(policy, folder)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".py"))]
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no half-written folder stays"


def test_other_programs_load_it_with_their_processor(saved):
    from transformers import AutoProcessor

    folder, policy = saved
    processor = AutoProcessor.from_pretrained(folder)
    parts = [{"type": "text", "text": "When?"}, {"type": "video"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    context = asked(policy, "When?", count=8)
    metadata = {"total_num_frames": 8, "fps": 2.0, "frames_indices": list(range(8)), "duration": 4.0}
    video = torch.zeros(8, 3, 56, 56, dtype=torch.uint8)
    theirs = processor(
        text=[text], videos=[video], video_metadata=[metadata], do_resize=False, do_sample_frames=False,
        return_tensors="pt",
    )  # fmt: skip
    assert theirs["input_ids"][0].equal(context.input_ids)
    assert theirs["second_per_grid_ts"].tolist() == [context.seconds_per_grid]


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(TvgError, match="no such folder") as caught:
        load(PathModel(path=str(tmp_path / "absent")), Store(tmp_path), **CPU)
    assert "unpack" in caught.value.hint


def test_a_foreign_model_is_refused(saved, tmp_path):
    config = json.loads((saved[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    with pytest.raises(TvgError, match="model type qwen2"):
        read(tmp_path, torch.float32)


def test_missing_weights_are_not_made_up(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if "merger" in name)
    save_file(
        {name: t for name, t in tensors.items() if name != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(TvgError, match="merger"):
        read(tmp_path, torch.float32)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TvgError, match="cannot load"):
        read(tmp_path, torch.float32)


def test_a_tokenizer_without_the_video_layout_gets_it(saved, tmp_path):
    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    tokenizer = read(tmp_path, torch.float32)[1]
    assert tokenizer.chat_template == saved[1].tokenizer.chat_template


@pytest.mark.parametrize(
    ("model", "hint"),
    [(HubModel(hub="not a name", revision="main"), "revision"), (Floor(floor="whole_video"), "predict")],
)
def test_what_cannot_be_loaded_says_why(model, hint, tmp_path):
    with pytest.raises(TvgError) as caught:
        load(model, Store(tmp_path), **CPU)
    assert hint in caught.value.hint


def test_types_of_weights(tmp_path):
    policy = load(SCRATCH, Store(tmp_path), device="cpu", dtype=torch.bfloat16, gradient_checkpointing=True)
    assert scores(policy).dtype == torch.float32
    save(policy, tmp_path / "model")
    exact = dict(scratch.build(SCRATCH)[0].named_buffers())
    again = load(PathModel(path=str(tmp_path / "model")), Store(tmp_path), device="cpu", dtype=torch.bfloat16)
    for half in (policy, again):
        assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
        assert half.model.dtype == torch.bfloat16 and half.model.is_gradient_checkpointing == (half is policy)
        frequencies = {name: b for name, b in half.model.named_buffers() if "inv_freq" in name}
        assert frequencies and all(b.equal(exact[name]) for name, b in frequencies.items()), "not rounded"


def test_precision_of_a_runtime():
    assert dtype_for("auto", "cpu") == dtype_for("float32", "cuda") == torch.float32
    assert dtype_for("auto", "cuda:1") == dtype_for("bfloat16", "cpu") == torch.bfloat16


def test_names_of_models(tmp_path):
    assert named(str(tmp_path)) == PathModel(path=str(tmp_path))
    assert named("results/mini/stages/sft-0/model").source == "path", "absent, but no hub name: an error about a folder"
    assert named("Qwen/Qwen2.5-VL-3B-Instruct") == HubModel(hub="Qwen/Qwen2.5-VL-3B-Instruct", revision="main")
    assert named("ekko126/Invert4TVG-3B@abc").revision == "abc"


# ---------------------------------------------------------------- adapting


def trained(model) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_freezing_leaves_the_merger_and_the_language_model():
    model = tiny().model
    names = trained(apply(model, Optimiser(freeze_vision=True)))
    assert all("visual" not in name or "visual.merger" in name for name in names)
    assert any("visual.merger" in name for name in names) and any("language_model" in name for name in names)
    assert trained(apply(model, Optimiser(freeze_vision=False))) == {name for name, _ in model.named_parameters()}


def test_lora_is_on_the_language_model_alone_and_merges_without_a_trace(tmp_path):
    policy = tiny()
    before = scores(policy)
    policy.model = apply(policy.model, Optimiser(lora=Lora(r=4, alpha=8), seed=3))
    names = trained(policy.model)
    assert len(names) == 2 * 7 * 2 and all("lora_" in name and "language_model" in name for name in names)
    assert scores(policy).equal(before), "fresh adapters change nothing"
    torch.manual_seed(0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted = scores(policy)
    with policy.model.disable_adapter():
        assert scores(policy).equal(before), "the reference is the model with its adapters off"
    save(policy, tmp_path / "model")
    again = PlainPolicy(*read(tmp_path / "model", torch.float32))
    assert (adapted - before).abs().max() > 1e-3
    assert (scores(again) - adapted).abs().max() < 1e-4
    assert all(weights(again.model)[name].equal(weight) for name, weight in weights(policy.model).items())
    assert merge(policy.model) is policy.model


def test_adapters_start_from_their_seed():
    def first(seed):
        return next(
            w for n, w in apply(tiny().model, Optimiser(lora=Lora(), seed=seed)).named_parameters() if "lora_A" in n
        )

    assert first(1).equal(first(1)) and not first(1).equal(first(2))


def test_gradient_reaches_the_merger_through_a_frozen_tower():
    policy = tiny()
    apply(policy.model, Optimiser(freeze_vision=True))
    context = asked(policy, "When?")
    policy.score([context] * 2, TOKENS.expand(2, -1), torch.ones(2, 4)).logps.sum().backward()
    grads = {name for name, weight in policy.model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert any("visual.merger" in name for name in grads) and not any("visual.blocks" in name for name in grads)
