"""M-RoPE by the original rule, against golden values of transformers 4.57.6 and of the rule itself."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tvg.model.positions import mrope

CASES = json.loads((REPO / "tests/vectors/mrope.json").read_text())["cases"]
VIDEO = 9


def prompt(case) -> torch.Tensor:
    return torch.tensor([1] * 15 + [VIDEO] * case["video_tokens"] + [2] * 6)


def of(ids, grid, seconds):
    return mrope(ids, video_token=VIDEO, grid=grid, seconds_per_grid=seconds, tokens_per_second=2)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_golden_values(case):
    ids, grid = prompt(case), tuple(case["grid_thw"])
    positions, resume = of(ids, grid, case["second_per_grid"])
    t, h, w = grid[0], grid[1] // 2, grid[2] // 2
    video = positions[:, 15:-6].view(3, t, h, w)
    assert positions[:, :15].tolist() == [list(range(15))] * 3
    assert video[0].tolist() == [[[when] * w] * h for when in case["temporal"]]
    assert video[1, 0, :, 0].tolist() == case["height"] and video[2, 0, 0].tolist() == case["width"]
    assert (video[1:] == video[1:, :1]).all(), "height and width do not change with time"
    assert positions[:, -6:].tolist() == [case["text_after"]] * 3
    assert resume == case["text_after"][-1] + 1 == case["rope_delta"] + len(ids)


@pytest.mark.parametrize("case", [CASES[0]], ids=[CASES[0]["id"]])
def test_library_has_the_defect_that_we_pass_positions_for(case):
    """If this fails, transformers is mended: our positions stay right, only the reason to pass them is gone."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"depth": 1, "hidden_size": 16, "num_heads": 1, "out_hidden_size": 16, "tokens_per_second": 2}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    text |= {"vocab_size": 16, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    ids = prompt(case)[None]
    theirs, delta = model.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == VIDEO).int() * 2,
        video_grid_thw=torch.tensor([case["grid_thw"]]),
        second_per_grid_ts=torch.tensor([case["second_per_grid"]]),
    )
    ours, _ = of(ids[0], tuple(case["grid_thw"]), case["second_per_grid"])
    assert theirs[:, 0, :-6].equal(ours[:, :-6])
    assert theirs[0, 0, -6:].tolist() == [17, 18, 19, 20, 21, 22] and delta.item() == -27


def test_text_alone_counts_up():
    positions, resume = of(torch.tensor([1, 2, 3]), None, None)
    assert positions.tolist() == [[0, 1, 2]] * 3 and resume == 3


def test_a_time_step_that_is_whole_but_for_rounding_loses_no_position():
    positions, _ = of(torch.tensor([VIDEO] * 4), (4, 2, 2), 2 / 1.9999999999999998 * 0.9999999999)
    assert positions[0].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("ids", "grid"),
    [([VIDEO] * 3, (4, 2, 2)), ([VIDEO, 1, VIDEO], (2, 2, 2)), ([1, 2], (1, 2, 2)), ([VIDEO], None)],
)
def test_placeholders_that_are_not_the_video_are_refused(ids, grid):
    with pytest.raises(ValueError, match="placeholders"):
        of(torch.tensor(ids), grid, 1.0)


@given(
    before=st.integers(0, 5), after=st.integers(0, 5), t=st.integers(1, 8), h=st.integers(1, 4), w=st.integers(1, 4),
    seconds=st.floats(0.05, 10),
)  # fmt: skip
def test_text_after_a_video_comes_after_all_of_it(before, after, t, h, w, seconds):
    ids = torch.tensor([1] * before + [VIDEO] * (t * h * w) + [2] * after)
    positions, resume = of(ids, (t, 2 * h, 2 * w), seconds)
    assert positions.shape == (3, len(ids))
    assert resume == positions.max() + 1
    video = positions[:, before : before + t * h * w]
    assert video.min() == before
    if after:
        assert positions[:, -after:].min() > video.max()
