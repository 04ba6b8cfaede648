"""Checkpoints that are whole or absent: written under another name, synced, renamed; a damaged one is passed over."""

import json
import logging
import os
import shutil
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tvg.errors import TvgError
from tvg.train import processes

log = logging.getLogger(__name__)
KEEP = 2
STATE = "trainer_state.json"
STATES = ("optimizer.pt", "scheduler.pt")
WEIGHTS = "trained.safetensors"


def step_of(checkpoint: Path) -> int:
    """The optimiser step that `checkpoint-N` was written after."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def all_of(folder: Path) -> list[Path]:
    """Every checkpoint under the folder, newest first."""
    return sorted(folder.glob("checkpoint-[0-9]*"), key=step_of, reverse=True)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; the damaged ones before it are named in the log."""
    for checkpoint in all_of(folder):
        damage = damage_of(checkpoint)
        if damage is None:
            return checkpoint
        log.warning("%s is damaged (%s): trying the one before", checkpoint, damage)
    return None


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Reads headers and sizes, not weights."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        if state["global_step"] != step_of(checkpoint):
            return f"{STATE} is of step {state['global_step']}"
        whole = _is_whole(checkpoint / WEIGHTS)
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    cut = [name for name in STATES if not zipfile.is_zipfile(checkpoint / name)] + [WEIGHTS] * (not whole)
    return f"{', '.join(cut)} missing or cut short" if cut else None


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says (8 bytes of header length, the header, the tensors)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)


def publish(partial: Path, final: Path) -> None:
    """Sync every file of a finished folder to disk, then give it its name."""
    for path in [*partial.rglob("*"), partial]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)


def rotate(folder: Path, keep: int = KEEP) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for checkpoint in all_of(folder)[keep:]:
        shutil.rmtree(checkpoint)


class WholeCheckpoints:
    """What both trainers do beside the library's: publish checkpoints whole, and send nothing anywhere.

    Mixed in before a trl trainer. `args.output_dir` is the folder of checkpoints. A checkpoint holds the weights that
    learn, under the names that they have in memory: save_pretrained renames Qwen2.5-VL's, and the library's own
    resumption (transformers 5.23) then loads none of them, says so in a log line, and trains on from the start.
    """

    _partial: Path | None = None

    def _get_output_dir(self, trial: object) -> str:
        return str(self._partial) if self._partial else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: object, trial: object) -> None:
        folder, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        self._partial = folder / "partial"
        if processes.is_first():
            shutil.rmtree(self._partial, ignore_errors=True)
        processes.wait()
        try:
            super()._save_checkpoint(model, trial)
            processes.wait()  # each has put its random state there
            if processes.is_first():
                publish(self._partial / name, folder / name)
                self._partial.rmdir()
                rotate(folder)
        finally:
            self._partial = None
        processes.wait()  # nobody ends before it is whole

    def _save(self, output_dir: str, state_dict: object = None) -> None:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.detach() for name, weight in self._learning().items()}, folder / WEIGHTS)

    @torch.no_grad()
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: object = None) -> None:
        saved, learning = load_file(Path(resume_from_checkpoint) / WEIGHTS), self._learning()
        shapes, expected = ({name: weight.shape for name, weight in each.items()} for each in (saved, learning))
        if shapes != expected:
            other = sorted(name for name in shapes | expected if shapes.get(name) != expected.get(name))
            raise TvgError(
                resume_from_checkpoint,
                "the checkpoint is of another model",
                got=[f"{name}: {list(shapes.get(name, ()))}, not {list(expected.get(name, ()))}" for name in other[:3]],
                expected="the weights that this stage trains",
                hint="resume under the runtime's `policy` that it began with (`shared` widens some matrices), "
                "or delete the stage's checkpoints folder to begin again",
            )
        for name, weight in learning.items():
            weight.copy_(saved[name])

    def _learning(self) -> dict[str, torch.nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def save_now(self) -> None:
        """Keep the state after the last whole step, unless there is none yet or it is kept already.

        The training is over: gradients of a step that was not made are dropped, which makes room for what saving takes.
        """
        self.model.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        kept = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.state.global_step and not kept.exists():
            self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def create_model_card(self, *_args: object, **_kwargs: object) -> None:
        """None: run.json and spec.json say more, and this one would be written at every checkpoint."""

    def floating_point_ops(self, _inputs: object) -> int:
        """Not estimated: the library's estimate needs its own input names."""
        return 0

    def _send_telemetry(self) -> None:
        pass
