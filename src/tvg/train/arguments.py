"""The library's training arguments, every one that matters pinned, because its defaults change between versions."""

from pathlib import Path

from transformers import TrainingArguments

from tvg.model.load import dtype_for
from tvg.settings import Runtime
from tvg.spec import StageSpec


def precision(runtime: Runtime, device: str) -> str:
    """The type that matrices are multiplied in: 'float32' or 'bfloat16'."""
    return str(dtype_for(runtime.precision, device)).removeprefix("torch.")


def rows_per_pass(total: int, at_most: int, group: int = 1) -> int:
    """Rows of one forward-backward pass: whole groups, dividing the step evenly, `at_most` or one group.

    >>> rows_per_pass(64, 24, group=8)
    16
    """
    groups = total // group
    return group * max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * group <= at_most))


def on_one_device(args: TrainingArguments) -> TrainingArguments:
    """The arguments for one device even where several GPUs are visible: trl refuses to replicate a model over them."""
    if args.n_gpu > 1:
        args._n_gpu = 1
    return args


def shared(spec: StageSpec, runtime: Runtime, device: str, folder: Path, steps: int) -> dict:
    """Arguments of every trainer. AdamW as systems.md 2.5; the spec's order of samples is not shuffled again."""
    return {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": steps,
        "learning_rate": spec.learning_rate,
        # the library's "constant" ignores the warm-up
        "lr_scheduler_type": "constant_with_warmup" if spec.schedule == "constant" else spec.schedule,
        "warmup_steps": spec.warmup_steps,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "seed": spec.seed or 0,
        "bf16": precision(runtime, device) == "bfloat16",
        "fp16": False,
        "use_cpu": device == "cpu",
        "gradient_checkpointing": False,  # the loader has enabled it on the model, under its name of the day
        "save_strategy": "steps",
        "save_steps": runtime.save_every,
        "save_total_limit": None,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it replaces a NaN by the mean of the losses before it
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,  # tvg.train.inputs.Ahead works ahead
        "dataloader_pin_memory": False,
        # several processes: every weight that learns has a gradient in every pass, and buffers never change
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
    }
