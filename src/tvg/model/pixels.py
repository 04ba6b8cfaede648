"""Frames as the vision tower takes them, and the processor files that tell other programs the same.

Equals transformers' Qwen2VLVideoProcessor on frames that are already of their final size, without torchvision.
"""

import numpy as np
import torch
from torch import Tensor

from tvg.errors import TvgError

PATCH, MERGE, TEMPORAL = 14, 2, 2  # pixels a side of a patch, patches a side of a token, frames of a temporal patch
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
LEAST_FRAMES = 4


def patches(frames: np.ndarray) -> tuple[Tensor, tuple[int, int, int]]:
    """(T, H, W, 3) uint8 -> patches (t*h*w, 3*2*14*14) float32 and their grid (t, h, w).

    The last frame is repeated up to four frames and to an even count. Patches run over time, then over 2x2 blocks
    row by row. H and W are multiples of 28. Raises TvgError for other shapes.
    """
    count, height, width = _checked(frames)
    missing = max(LEAST_FRAMES - count, 0) or count % TEMPORAL
    whole = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])  # a copy: the cache is read-only
    t, h, w = len(whole) // TEMPORAL, height // PATCH, width // PATCH
    blocks = torch.from_numpy(whole).view(t, TEMPORAL, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH, 3)
    flat = blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(t * h * w, 3, TEMPORAL * PATCH * PATCH).float()
    mean, std = (torch.tensor(rgb).mul(255).view(1, 3, 1) for rgb in (MEAN, STD))
    return ((flat - mean) / std).flatten(1), (t, h, w)


def _checked(frames: np.ndarray) -> tuple[int, int, int]:
    side = PATCH * MERGE
    if frames.ndim != 4 or frames.dtype != np.uint8 or 0 in frames.shape or frames.shape[3] != 3:
        fits = False
    else:
        fits = frames.shape[1] % side == 0 and frames.shape[2] % side == 0
    if not fits:
        raise TvgError(
            "frames",
            "the vision tower cannot take this shape",
            got=f"{frames.shape} {frames.dtype}",
            expected=f"(T, H, W, 3) uint8, T > 0, H and W multiples of {side}",
            hint="take frames from the frame cache, or resize them with tvg.video",
        )
    return frames.shape[0], frames.shape[1], frames.shape[2]


def processor_files() -> dict[str, dict]:
    """The files that let AutoProcessor load beside our weights: name -> content. Resizing is the reader's choice."""
    shared = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL,
        "merge_size": MERGE,
        "processor_class": "Qwen2_5_VLProcessor",
    }
    size = {"shortest_edge": 16 * 28 * 28, "longest_edge": 768 * 28 * 28}  # pixels a frame: systems.md 1.1
    return {
        "preprocessor_config.json": {**shared, "image_processor_type": "Qwen2VLImageProcessor", "size": size},
        "video_preprocessor_config.json": {**shared, "video_processor_type": "Qwen2VLVideoProcessor", "size": size},
    }
