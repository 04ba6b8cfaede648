"""Several processes that train one stage together, one a GPU, and what they tell each other.

Each holds the whole model and works on its share of every step's prompts (tvg.train.balance); the first one alone
writes files. A process that stopped by itself would leave the others waiting for it. So whatever ends a training early
is agreed upon: all of them call `most` or `gathered` at the same places, equally often, and go on or stop together.

What is told goes over the CPU (gloo), gradients over NCCL on GPUs. A training in one process needs none of this: each
function is then the identity.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from tvg import facts

PATIENCE = timedelta(hours=2)  # one process may have far longer videos, or be writing a checkpoint
T = TypeVar("T")


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    return rank() == 0


def gathered(rows: Sequence[T]) -> list[T]:
    """The rows of all processes, in the order of ranks; they travel pickled."""
    if count() == 1:
        return list(rows)
    found: list = [None] * count()
    distributed.all_gather_object(found, list(rows))
    return [row for part in found for row in part]


def from_first(value: T) -> T:
    """What the first process gives."""
    return gathered([value] if is_first() else [])[0]


def most(number: int) -> int:
    """The largest of the processes' numbers."""
    if count() == 1:
        return number
    told = torch.tensor(number)
    distributed.all_reduce(told, distributed.ReduceOp.MAX)
    return int(told)


def wait() -> None:
    """Until all are here."""
    most(0)


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The others begin when the first is through: it fetches and lists for all, and an error of all is told once."""
    if is_first():
        through = False
        try:
            yield
            through = True
        finally:
            most(int(not through))
        return
    if most(0):
        raise SystemExit(1)
    yield


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Meet the other processes where a launcher (tvg.train.launch, torchrun) has started several; `device` as torch's.

    The place of each is in the environment: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. They meet once.
    """
    if facts.processes() == 1 or distributed.is_initialized():
        yield
        return
    _follow(os.getppid())
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield
    except SystemExit:  # unlike an error, of all: to take leave of the others alone could be to wait for them
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _follow(parent: int) -> None:
    """End with the launcher, even where it is killed: a training that goes on unseen would meet its own resumption."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
