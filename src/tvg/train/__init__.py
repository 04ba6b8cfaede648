"""Training stages: the order of samples, SFT and GRPO on video, checkpoints, signals, what a run leaves behind."""

import tvg.model  # noqa: F401 - mends torchvision before trl can import it
