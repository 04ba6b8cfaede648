"""A GPU without memory left: what was on it, and what to turn, in place of a library's error."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tvg.errors import TvgError
from tvg.model.pixels import MERGE
from tvg.model.policy import Context

NAMED = 4  # samples that are named; more are counted


class Work:
    """What a job is doing, kept for the error that may come; told anew before everything that takes memory."""

    def __init__(self):
        self("starting")

    def __call__(
        self, doing: str, samples: Sequence[str] = (), contexts: Sequence[Context] = (), mask: Tensor | None = None
    ) -> None:
        """doing: in words. samples: the id of each row; contexts: its prompt; mask: (rows, tokens) of completions."""
        self.doing, self.samples, self.contexts, self.mask = doing, samples, contexts, mask

    @contextmanager
    def told(self, where: Callable[[], str], hint: str) -> Iterator[None]:
        """Raises TvgError where memory runs out, once what the failed work held is free again."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            peak = f"; {torch.cuda.max_memory_allocated() / 1e9:.1f} GB were taken" if torch.cuda.is_available() else ""
            found = TvgError(
                where(),
                f"no GPU memory left while {self.doing}",
                got=f"{str(error).split('. ')[0]}{peak}{self._rows()}",
                expected="work that fits",
                hint=hint,
            )
            traceback.clear_frames(error.__traceback__)  # their variables hold the pass's tensors
            raise found from error

    def _rows(self) -> str:
        """`; on toy-1 (3,584 visual tokens, completions of 256, 12), ...`."""
        lengths = self.mask.sum(1).tolist() if self.mask is not None else [None] * len(self.samples)
        rows: dict[str, tuple[Context, list[int]]] = {}
        for sample, one, length in zip(self.samples, self.contexts, lengths, strict=True):
            rows.setdefault(sample, (one, []))[1].append(length)
        told = [_row(sample, *row) for sample, row in rows.items()]
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        return f"; on {', '.join(told[:NAMED])}{more}" if told else ""


def _row(sample: str, context: Context, lengths: list[int | None]) -> str:
    t, h, w = context.grid or (0, 0, 0)
    known = [str(length) for length in lengths if length is not None]
    made = f"completions of {', '.join(known)} tokens" if known else f"{len(lengths)} completions"
    return f"{sample} ({t * h * w // MERGE**2:,} visual tokens, {made})"
