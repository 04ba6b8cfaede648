"""M-RoPE positions by the rule that Qwen2.5-VL was trained with (stack.md section 4, tests/vectors/mrope.json).

transformers >= 5.3 puts the text after a video inside the video's time range, and older versions truncate the time
step, so every forward of ours passes these positions and never lets the library compute its own.
"""

import torch
from torch import Tensor

ROUNDING = 1e-6  # a time that is whole but for rounding, such as 3 x 0.3333333 x 2, is not a grid early


def mrope(
    input_ids: Tensor,
    *,
    video_token: int,
    grid: tuple[int, int, int] | None,
    seconds_per_grid: float | None,
    tokens_per_second: float,
    merge: int = 2,
) -> tuple[Tensor, int]:
    """Positions (3, L) int64 (time, height, width) of one prompt with at most one video, and the next text position.

    input_ids: (L,), the video's placeholders expanded. grid: (t, h, w) in patches before the spatial merge.
    Time steps start + floor(k x seconds_per_grid x tokens_per_second), height and width start + merged index, text
    after the video at the largest position + 1. Raises ValueError if the placeholders are not the grid's one run.
    """
    places = (input_ids == video_token).nonzero().flatten().tolist()
    if grid is None or seconds_per_grid is None:
        if places:
            raise ValueError(f"{len(places)} video placeholders, but no grid or time step")
        return torch.arange(len(input_ids)).expand(3, -1), len(input_ids)
    video = _video(grid, seconds_per_grid * tokens_per_second, merge)
    start, count = (places[0] if places else 0), video.shape[1]
    if places != list(range(start, start + count)):
        raise ValueError(f"{len(places)} video placeholders from {start}, the grid {grid} needs {count} in one run")
    resume = start + int(video.max()) + 1
    after = torch.arange(len(input_ids) - start - count)
    before = torch.arange(start).expand(3, -1)
    return torch.cat([before, start + video, (resume + after).expand(3, -1)], dim=1), resume + len(after)


def _video(grid: tuple[int, int, int], interval: float, merge: int) -> Tensor:
    """Positions (3, tokens) of a video that starts at 0; `interval` in positions from one grid to the next."""
    t, h, w = grid[0], grid[1] // merge, grid[2] // merge
    time = torch.floor(torch.arange(t, dtype=torch.float64) * interval + ROUNDING).long()
    return torch.stack(torch.meshgrid(time, torch.arange(h), torch.arange(w), indexing="ij")).reshape(3, -1)
