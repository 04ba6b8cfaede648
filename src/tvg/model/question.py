"""A sample as the model sees it: which frames its task may look at, and the prompt that asks."""

from tvg.errors import TvgError
from tvg.model.policy import Context, Policy
from tvg.prompts import render
from tvg.sample import INVERSION_TASKS, Sample
from tvg.settings import Prompt
from tvg.video.decode import Frames

LONGER = 1.0  # seconds by which a file must exceed its stated clip to be the uncut file (systems.md 8, row 6)


def visible(sample: Sample, frames: Frames) -> Frames:
    """The frames that the task may see: an inversion task only the true segment, every other the whole clip.

    A sample with a `clip` sees that part of its file, unless the file is the cut already. Frames stay those of the
    file's own sampling times: a clip that starts between two of them starts at the later one, at most 1 / fps off.
    """
    if sample.clip is not None and frames.duration > sample.duration + LONGER:
        frames = frames.crop(sample.clip)
    return frames.crop(sample.segments[0]) if sample.task in INVERSION_TASKS else frames


def context(policy: Policy, prompt: Prompt, sample: Sample, frames: Frames) -> Context:
    """The sample's prompt and video, ready for the model. Raises TvgError where the video did not get in."""
    made = policy.encode_group(render(prompt, sample), visible(sample, frames))
    if made.pixels is None or made.grid is None or not made.seconds_per_grid:
        raise TvgError(
            f"sample {sample.id}", "the prompt was encoded without its video",
            got=f"grid {made.grid}, seconds per grid {made.seconds_per_grid}",
            expected="pixels, their grid and their time step",
            hint="the policy's encode_group must not drop the frames that it is given",
        )  # fmt: skip
    return made
