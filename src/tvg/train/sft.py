"""Supervised fine-tuning on video: trl's trainer, its loss taken from the policy's scores of the response tokens."""

from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from tvg.errors import TvgError
from tvg.prompts import target
from tvg.settings import Runtime
from tvg.spec import SftSpec
from tvg.store import Store
from tvg.train import processes, stage
from tvg.train.arguments import on_one_device, rows_per_pass
from tvg.train.balance import dealt
from tvg.train.checkpoints import WholeCheckpoints
from tvg.train.construct import can_construct, drawn, prefix
from tvg.train.parallel import Parallel
from tvg.train.schedule import SEED_BITS
from tvg.train.stage import Job
from tvg.train.watch import broken

IGNORED = -100  # the library's mark of a label that is not learnt


def train(spec: SftSpec, store: Store, runtime: Runtime, device: str | None = None) -> Path:
    """Train the stage and return its folder; resumes by itself. Raises SystemExit(130 or 143) when asked to stop."""
    return stage.train(spec, store, runtime, _trainer, device)


def _trainer(job: Job) -> "VideoSft":
    _check_constructed(job)
    rows = rows_per_pass(job.step_of_one, job.runtime.rollouts_per_pass)
    args = SFTConfig(
        **job.arguments(),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=job.step_of_one // rows,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
    )
    return VideoSft(job, on_one_device(args))


def _check_constructed(job: Job) -> None:
    asked = zip(job.prompts, job.order, strict=True)
    if job.spec.constructed and not any(prompt.prefix and can_construct(sample) for prompt, sample in asked):
        raise TvgError(
            "sft training", "no target can be constructed", got=f"constructed: {job.spec.constructed}",
            expected="a prompt with `prefix`, and samples with dense captions",
            hint="name such a prompt and such data, or leave `constructed` out",
        )  # fmt: skip


class Collator:
    """Positions in the schedule -> contexts, and the response tokens to learn, padded on the right."""

    def __init__(self, job: Job):
        self.job = job

    def __call__(self, rows: list[dict]) -> dict[str, list | Tensor]:
        """contexts, samples (their ids): one a row. labels: (B, C), IGNORED beyond the end of a response."""
        positions = [row["position"] for row in rows]
        responses = [self.response(position) for position in positions]
        labels = torch.full((len(rows), max(map(len, responses))), IGNORED)
        for label, response in zip(labels, responses, strict=True):
            label[: len(response)] = torch.tensor(response)
        contexts = [self.job.contexts(position) for position in positions]
        return {"contexts": contexts, "samples": [self.job.order[n].id for n in positions], "labels": labels}

    def response(self, position: int) -> list[int]:
        """The token ids of the canonical response, the end token included."""
        tokenizer = self.job.policy.tokenizer
        text = target(self.job.order[position], self.job.prompts[position].answer, self._opening(position))
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    def _opening(self, position: int) -> str | None:
        """The prompt's prefix with some of the sample's captions, for the share of samples that is to have one."""
        template, sample = self.job.prompts[position].prefix, self.job.order[position]
        chance = self.job.seed_at(position, "constructed") / 2**SEED_BITS
        if template is None or not can_construct(sample) or chance >= self.job.spec.constructed:
            return None
        return prefix(template, sample.query, drawn(sample.captions, self.job.seed_at(position, "captions"))).rstrip()


class VideoSft(WholeCheckpoints, Parallel, SFTTrainer):
    """trl's trainer with the forward passes of the policy."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of the whole step

    def __init__(self, job: Job, args: SFTConfig):
        self.job = job
        super().__init__(
            model=job.policy.model,
            args=args,
            train_dataset=Dataset.from_dict({"position": dealt(job.turns, args.per_device_train_batch_size)}),
            data_collator=Collator(job),
            processing_class=job.policy.tokenizer,
            callbacks=[job.watch],
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.SequentialSampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # the schedule is shuffled already

    def get_batch_samples(self, *args):
        """The passes of one step, and the response tokens of the step in all processes: the library counts them for
        some classes of model only.
        """
        passes, _ = super().get_batch_samples(*args)
        return passes, sum(processes.gathered([int((rows["labels"] != IGNORED).sum()) for rows in passes]))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean negative log-likelihood of the step's response tokens, however the step is cut into passes.

        The gradient of several processes is the mean of theirs: each loss is a share of so many times the mean.
        """
        self.job.stop.check()
        labels = inputs["labels"]
        mask = labels != IGNORED
        self.job.watch.work("responses are scored", inputs["samples"], inputs["contexts"], mask)
        with self.accelerator.autocast():
            scores = self.job.policy.score(inputs["contexts"], labels.clamp(min=0), mask.long(), model=model)
        loss = -(scores.logps * mask).sum() * processes.count() / num_items_in_batch
        if bad := processes.gathered([] if torch.isfinite(loss) else [loss.item()]):
            raise broken(self.state.global_step + 1, f"loss {bad[0]}")
        self._metrics["train"]["tokens"].append(num_items_in_batch)
        self._metrics["train"]["train/length"].append(num_items_in_batch / self.job.spec.batch)
        self.job.watch.work.doing = "gradients are computed"
        return loss
