"""The plain policy against the library's own forward, token by token."""

import warnings

import numpy as np
import pytest
import torch

from tests.unit.tiny_model import asked, frames, tiny
from tvg.errors import TvgError
from tvg.model import plain
from tvg.model.pixels import patches
from tvg.model.plain import PlainPolicy
from tvg.model.policy import Context, Policy, Sampling
from tvg.model.positions import mrope
from tvg.model.sampling import choose, suppress, uniforms
from tvg.model.sight import sees_video

GREEDY = Sampling(12, temperature=0.0)
HOT = Sampling(12, temperature=1.5)


@pytest.fixture(scope="module")
def policy() -> PlainPolicy:
    return tiny()


@pytest.fixture(scope="module")
def contexts(policy) -> list[Context]:
    """Two groups of different lengths, the second with an odd number of wide frames at an odd rate."""
    short = asked(policy, "When does a person jump?", count=8)
    long = asked(policy, "Find the moment in the video: a person sits down.", count=13, width=84, fps=1.7, seed=1)
    return [short, short, long, long]


def library_logits(policy: PlainPolicy, context: Context, completion: list[int], own_positions: bool = True):
    """Logits (len + 1, V) for each token of the completion and the one after: one row, no cache, no padding."""
    ids = torch.cat([context.input_ids, torch.tensor(completion, dtype=torch.long)])
    inputs = {
        "input_ids": ids[None],
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values_videos": context.pixels,
        "video_grid_thw": torch.tensor([context.grid]),
        "second_per_grid_ts": torch.tensor([context.seconds_per_grid]),
        "mm_token_type_ids": (ids == policy.video_token).int()[None] * 2,
    }
    if own_positions:
        positions, _ = mrope(
            ids, video_token=policy.video_token, grid=context.grid, seconds_per_grid=context.seconds_per_grid,
            tokens_per_second=2,
        )  # fmt: skip
        inputs["position_ids"] = positions[:, None]
    return policy.model(**inputs).logits[0, len(context.input_ids) - 1 :].float()


def greedy_by_full_forwards(policy, context, count, completion=()) -> list[int]:
    completion = list(completion)
    with torch.no_grad():
        while len(completion) < count:
            logits = suppress(library_logits(policy, context, completion)[-1], policy.suppressed)
            completion.append(logits.argmax().item())
    return completion


# ---------------------------------------------------------------- prompts


def test_it_is_a_policy(policy):
    as_interface: Policy = policy
    assert all(hasattr(as_interface, name) for name in ("model", "encode_group", "generate", "score"))


@pytest.mark.parametrize(("count", "height", "width"), [(19, 56, 84), (4, 28, 28), (20, 112, 56)])
def test_patches_equal_the_library_video_processor(count, height, width):
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    pixels = frames(count, height, width).pixels
    ours, grid = patches(pixels)
    theirs = Qwen2VLVideoProcessor()(
        videos=[torch.from_numpy(pixels).permute(0, 3, 1, 2)], do_resize=False, do_sample_frames=False,
        return_tensors="pt",
    )  # fmt: skip
    assert theirs.video_grid_thw.tolist() == [list(grid)]
    assert ours.dtype == torch.float32 and (ours - theirs.pixel_values_videos).abs().max() <= 1e-6


def test_few_frames_are_filled_up_with_the_last():
    pixels = frames(3).pixels
    filled, grid = patches(pixels)
    assert grid == (2, 4, 4)
    assert filled.equal(patches(np.concatenate([pixels, pixels[-1:]]))[0])
    assert patches(pixels[:1])[1] == (2, 4, 4)


def test_frames_of_a_read_only_map_raise_no_warning():
    pixels = frames(4).pixels
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patches(pixels)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 30, 28, 3), np.uint8), np.zeros((4, 28, 28, 3), np.float32), np.zeros((0, 28, 28, 3), np.uint8)],
)
def test_other_shapes_are_refused(pixels):
    with pytest.raises(TvgError, match="multiples of 28"):
        patches(pixels)


@pytest.mark.parametrize("video_first", [False, True])
def test_prompt_holds_text_and_expanded_video_in_the_training_order(policy, video_first):
    asking = PlainPolicy(policy.model, policy.tokenizer, video_first)
    context = asking.encode_group(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}], frames(19)
    )
    video = "<|vision_start|>" + "<|video_pad|>" * 40 + "<|vision_end|>"
    user = video + "When?" if video_first else "When?" + video
    expected = f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    assert asking.tokenizer.decode(context.input_ids.tolist()) == expected
    assert context.grid == (10, 4, 4) and context.pixels.shape == (160, 1176) and context.seconds_per_grid == 1.0


def test_a_query_cannot_smuggle_in_a_placeholder(policy):
    with pytest.raises(TvgError, match="placeholder"):
        policy.encode_group([{"role": "user", "content": "<|video_pad|>"}], frames())


def test_text_only_prompt(policy):
    context = policy.encode_group([{"role": "user", "content": "hello"}], None)
    assert context.pixels is None
    assert len(policy.generate([context], GREEDY, [0])[0]) == 12


def test_decode_keeps_our_elements_and_drops_special_tokens(policy):
    text = "<think>a <timestep>1.50 to 2.00</timestep></think> <answer>12.54 to 17.83</answer>"
    ids = policy.tokenizer(text + "<|im_end|>")["input_ids"]
    assert policy.decode(ids) == text


def test_a_context_that_lost_its_pixels_is_refused(policy, contexts):
    blind = Context(contexts[0].input_ids, None, contexts[0].grid, 1.0)
    with pytest.raises(ValueError, match="no pixels"):
        policy.generate([blind], GREEDY, [0])


# ---------------------------------------------------------------- generation


def test_greedy_equals_repeated_full_forwards(policy, contexts):
    completions = policy.generate(contexts, GREEDY, range(4))
    assert completions[0] == completions[1] == greedy_by_full_forwards(policy, contexts[0], 12)
    assert completions[2] == completions[3] == greedy_by_full_forwards(policy, contexts[2], 12)
    assert completions[0] != completions[2] and len(set(completions[0])) > 2, "the test would see a mistake"


def test_the_library_positions_give_other_logits(policy, contexts):
    """As long as transformers places the text inside the video's time range."""
    with torch.no_grad():
        ours, theirs = (library_logits(policy, contexts[0], [], own) for own in (True, False))
    assert (ours - theirs).abs().max() > 1e-3


def test_a_rollout_depends_on_its_seed_alone(policy, contexts):
    together = policy.generate(contexts, HOT, [3, 4, 3, 4])
    assert together[0] != together[1] and together[0] != together[2]
    for context, seed, rollout in zip(contexts, [3, 4, 3, 4], together, strict=True):
        assert policy.generate([context], HOT, [seed]) == [rollout]
    assert policy.generate(contexts[::-1], HOT, [4, 3, 4, 3]) == together[::-1]


def test_a_forced_prefix_is_returned_and_continued(policy, contexts):
    prefixes = [[900, 901, 902], [], [700], []]
    forced = policy.generate(contexts, GREEDY, range(4), prefixes)
    assert forced[0] == greedy_by_full_forwards(policy, contexts[0], 12, prefixes[0])
    assert forced[2] == greedy_by_full_forwards(policy, contexts[2], 12, prefixes[2])
    assert [forced[1], forced[3]] == policy.generate(contexts[1::2], GREEDY, [1, 3])
    with pytest.raises(ValueError, match="prefix of 13"):
        policy.generate(contexts[:1], GREEDY, [0], [[900] * 13])


def test_a_rollout_stops_at_the_end_token_and_the_others_go_on(policy, contexts):
    stopping = PlainPolicy(policy.model, policy.tokenizer)
    whole = policy.generate(contexts[1:3], HOT, [7, 8])
    stopping.ends = frozenset({whole[0][4]})
    cut = stopping.generate(contexts[1:3], HOT, [7, 8])
    assert cut[0] == whole[0][: whole[0].index(whole[0][4]) + 1]
    assert cut[1] == (whole[1] if whole[0][4] not in whole[1] else whole[1][: whole[1].index(whole[0][4]) + 1])
    stopping.ends = frozenset({900})
    assert stopping.generate(contexts[:1], GREEDY, [0], [[900, 901]])[0][:2] == [900, 901], "forced past an end"


def test_every_end_token_of_qwen_ends(policy):
    assert policy.ends == {policy.tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_vision_tokens_are_never_emitted(policy, contexts):
    hottest = policy.generate(contexts * 4, Sampling(64, temperature=1e4), range(16))
    drawn = {token for rollout in hottest for token in rollout}
    assert len(drawn) > 300 and not drawn & set(policy.suppressed.tolist())
    assert max(drawn) < len(policy.tokenizer)


def test_generation_leaves_training_mode_and_checkpointing_alone(contexts):
    training = tiny()
    expected = training.generate(contexts, GREEDY, range(4))
    training.model.gradient_checkpointing_enable({"use_reentrant": False})
    training.model.train()
    assert training.generate(contexts, GREEDY, range(4)) == expected
    assert training.model.training


def test_choose_draws_from_the_distribution():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    logits, steps = probabilities.log().expand(100, -1), (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    assert torch.bincount(choose(logits, steps, 1.0, 1.0), minlength=4).tolist() == [50, 0, 30, 20]
    nucleus = torch.bincount(choose(logits, steps, 1.0, 0.7), minlength=4).tolist()
    assert nucleus in ([62, 0, 38, 0], [63, 0, 37, 0]), "the smallest set that reaches 0.7 is {0, 2}"
    assert choose(logits, steps, 1.0, 0.4).unique().tolist() == [0]
    assert choose(logits, steps, 0.0, 1.0).unique().tolist() == [0]
    squared = torch.bincount(choose(logits, steps, 0.5, 1.0), minlength=4).tolist()
    assert squared == [66, 0, 24, 10] or abs(squared[0] - 100 * 0.25 / 0.38) <= 1


def test_extreme_draws_stay_inside_the_vocabulary():
    logits = suppress(torch.zeros(2, 5), torch.tensor([0, 4]))
    assert choose(logits, torch.tensor([0.0, 1 - 2**-24]).double(), 1.0, 1.0).tolist() == [1, 3]
    assert uniforms([5, 6], 3)[1].equal(uniforms([6], 3)[0])


# ---------------------------------------------------------------- scoring


@pytest.fixture(scope="module")
def scored(policy, contexts):
    """Completions of different lengths, padded with an id that is no token, and what the library makes of each."""
    torch.manual_seed(0)
    lengths = [5, 3, 6, 1]
    ids = torch.full((4, 6), -100)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(20, 1300, (length,))
    mask = (ids != -100).long()
    return ids, mask, lengths


def stock_scores(policy, contexts, ids, lengths, temperature=1.0):
    """Row by row through the library's forward: log-probabilities and entropies, 0 in the padding."""
    logps, spread = torch.zeros(ids.shape), torch.zeros(ids.shape)
    for row, (context, length) in enumerate(zip(contexts, lengths, strict=True)):
        logits = library_logits(policy, context, ids[row, :length].tolist())[:length] / temperature
        rest = torch.ones(logits.shape[1], dtype=torch.bool)
        rest[policy.suppressed] = False
        table = torch.full_like(logits, float("-inf"))
        table[:, rest] = torch.log_softmax(logits[:, rest], -1)
        logps[row, :length] = table.gather(1, ids[row, :length, None])[:, 0]
        spread[row, :length] = torch.distributions.Categorical(logits=table[:, rest]).entropy()
    return logps, spread


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_equal_the_library_forward(policy, contexts, scored, temperature):
    ids, mask, lengths = scored
    with torch.no_grad():
        scores = policy.score(contexts, ids, mask, temperature, entropies=True)
        logps, spread = stock_scores(policy, contexts, ids, lengths, temperature)
    assert scores.logps.dtype == torch.float32
    assert (scores.logps - logps).abs().max() < 1e-5 and (scores.entropies - spread).abs().max() < 1e-5
    assert (scores.logps[mask == 0] == 0).all() and (scores.logps[mask == 1] < 0).all()


def test_a_rollout_is_scored_as_it_was_sampled(policy, contexts):
    """The likeliest token by `score` is the one that greedy decoding takes."""
    greedy = torch.tensor([policy.generate(contexts[:1], GREEDY, [0])[0]])
    with torch.no_grad():
        best = policy.score(contexts[:1], greedy, torch.ones_like(greedy)).logps
        other = policy.score(contexts[:1], (greedy + 1) % 1300 + 10, torch.ones_like(greedy)).logps
    assert (best[0, 0] > other[0, 0]) and best.min() > -10


def gradients(policy, loss) -> dict[str, torch.Tensor]:
    policy.model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in policy.model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("how", ["plain", "checkpointing", "few logits at once"])
def test_gradients_equal_the_library_forward(contexts, scored, how, monkeypatch):
    policy, (ids, mask, lengths) = tiny(), scored
    expected = gradients(policy, stock_scores(policy, contexts, ids, lengths)[0].sum())
    if how == "checkpointing":
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    if how == "few logits at once":
        monkeypatch.setattr(plain, "LOGITS_AT_ONCE", 6 * 1472)
    got = gradients(policy, policy.score(contexts, ids, mask, entropies=True).logps.sum())
    assert got.keys() == expected.keys() and any(".visual.blocks." in name for name in got)
    for name, gradient in expected.items():
        assert torch.allclose(got[name], gradient, atol=1e-4 * gradient.abs().max().item() + 1e-7), name


def test_scoring_a_given_model_and_a_wrapped_one(policy, contexts, scored):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, **inputs):
            self.calls += 1
            return self.module(**inputs)

    ids, mask, _ = scored
    other, wrapped = tiny(), Wrapper(policy.model)
    torch.nn.init.normal_(other.model.model.visual.merger.mlp[2].weight)
    with torch.no_grad():
        expected = policy.score(contexts, ids, mask).logps
        assert policy.score(contexts, ids, mask, model=wrapped).logps.equal(expected) and wrapped.calls == 1
        assert policy.score(contexts, ids, mask, model=other.model).logps.equal(other.score(contexts, ids, mask).logps)
        assert not other.score(contexts, ids, mask).logps.equal(expected)


def test_a_group_is_encoded_once(policy, contexts, monkeypatch):
    seen = []
    encode = policy.model.model.get_video_features
    monkeypatch.setattr(policy.model.model, "get_video_features", lambda p, g: seen.append(len(g)) or encode(p, g))
    policy.generate(contexts, GREEDY, range(4))
    with torch.no_grad():
        policy.score(contexts, torch.ones(4, 2, dtype=torch.long), torch.ones(4, 2))
    assert seen == [2, 2]


# ---------------------------------------------------------------- does it see?


def test_pixels_matter(policy, contexts):
    assert sees_video(policy, contexts[0]) > 1e-3


def test_a_policy_that_loses_its_pixels_is_found_out(policy, contexts):
    class Blind(PlainPolicy):
        @staticmethod
        def _features(core, contexts):
            return [torch.zeros_like(made) for made in PlainPolicy._features(core, contexts)]

    assert sees_video(Blind(policy.model, policy.tokenizer), contexts[0]) == 0
