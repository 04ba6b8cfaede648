"""GRPO on video: trl's trainer, with generation, scoring and rewards taken from the policy interface.

trl 1.16 knows no video: it would lose the pixels in the loss pass without a word. Its hooks are overridden, none of
its method bodies is copied; tests/unit/test_trl_contract.py pins what is relied on.
"""

import copy
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import GRPOConfig, GRPOTrainer

from tvg.inversion.verbs import extractor
from tvg.model.load import dtype_for
from tvg.model.policy import Context, Sampling
from tvg.parse import PARSERS
from tvg.rewards import Rollout, score, weighted_sum
from tvg.rewards.temporal import group_drops
from tvg.settings import Runtime
from tvg.spec import GrpoSpec
from tvg.store import Store
from tvg.train import processes, stage
from tvg.train.arguments import on_one_device, rows_per_pass
from tvg.train.balance import dealt
from tvg.train.checkpoints import WholeCheckpoints
from tvg.train.measures import Measures
from tvg.train.parallel import Parallel
from tvg.train.probes import ShuffledFrames
from tvg.train.record import Completions
from tvg.train.stage import Job
from tvg.train.watch import broken

log = logging.getLogger(__name__)
PRODUCTS = (nn.Linear, nn.Conv3d)  # what has weights that autocast rounds


def train(spec: GrpoSpec, store: Store, runtime: Runtime, device: str | None = None) -> Path:
    """Train the stage and return its folder; resumes by itself. Raises SystemExit(130 or 143) when asked to stop."""
    return stage.train(spec, store, runtime, _trainer, device)


def _trainer(job: Job) -> "VideoGrpo":
    # trl's bnpo divides by the tokens of one pass, so that memory settings would change the result; over the
    # whole step it is dapo. Same in Time-R1 and Invert4TVG but for their split (systems.md 1.3).
    loss_type = "dapo" if job.spec.loss_type == "bnpo" else job.spec.loss_type
    args = arguments(job, loss_type=loss_type, epsilon=job.spec.epsilon, delta=job.spec.delta)
    return VideoGrpo(job, args, job.spec.beta)


def arguments(job: Job, **own: Any) -> GRPOConfig:
    """trl's arguments of a stage that learns from groups of rollouts; `own`: those of its kind."""
    spec, group = job.spec, job.spec.num_generations
    total = job.step_of_one * group  # of this process; all together make the spec's step
    rows = rows_per_pass(total, job.runtime.rollouts_per_pass, group)
    args = GRPOConfig(
        **job.arguments(),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=total // rows,
        steps_per_generation=total // rows,  # one generation an optimiser step: old log-probabilities are the new ones
        num_iterations=1,
        num_generations=group,
        max_completion_length=spec.max_completion_tokens,
        temperature=spec.temperature,
        top_p=spec.top_p,
        beta=0.0,  # else trl loads a reference from the hub by the model's name; VideoGrpo brings its own
        scale_rewards=spec.scale_rewards,
        reward_weights=[settings.weight for settings in spec.rewards.values()],
        multi_objective_aggregation="sum_then_normalize",
        importance_sampling_level="token",
        mask_truncated_completions=False,
        top_entropy_quantile=1.0,
        disable_dropout=not (spec.lora and spec.lora.dropout),
        shuffle_dataset=False,  # the schedule is shuffled already
        use_vllm=False,
        log_completions=False,
        **own,
    )
    return on_one_device(args)


def frozen_copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model as it is now; weights that never learn are shared, not copied.

    dtype: what matrices are multiplied in. Weights that autocast would round to it each time are kept rounded: in half
    the memory, the scores are those of the model itself.
    """
    others = [module for module in model.modules() if not isinstance(module, PRODUCTS)]
    exact = {id(weight) for module in others for weight in module.parameters(recurse=False)}
    kept = {}
    for weight in model.parameters():
        if weight.requires_grad:
            own = weight.detach().to(weight.dtype if id(weight) in exact else dtype, copy=True)
            kept[id(weight)] = nn.Parameter(own, requires_grad=False)
        else:
            kept[id(weight)] = weight
    return copy.deepcopy(model, kept).eval()


def _column(name: str):
    """A reward's name for trl; `_calculate_rewards` computes all of them at once."""

    def reward(**_):
        raise RuntimeError(f"trl asked for the reward {name} by itself, not through _calculate_rewards")

    reward.__name__ = name
    return reward


class VideoGrpo(WholeCheckpoints, Parallel, GRPOTrainer):
    """trl's trainer whose rows are positions in the schedule, each of a group's rollouts on the same one."""

    def __init__(self, job: Job, args: GRPOConfig, beta: float):
        self.job, self.spec = job, job.spec
        with_copy = beta > 0 and job.spec.lora is None  # an adapter is its own reference once switched off
        reference = frozen_copy(job.policy.model, dtype_for(job.runtime.precision, job.device)) if with_copy else None
        rows = dealt(job.turns, job.step_of_one)
        super().__init__(
            model=job.policy.model,
            args=args,
            reward_funcs=[_column(name) for name in job.spec.rewards],
            train_dataset=Dataset.from_dict(
                {"prompt": [job.order[position].query for position in rows], "position": rows},
            ),
            processing_class=job.policy.tokenizer,
            callbacks=[job.watch],
        )
        self.beta, self.ref_model = beta, reference
        back_end = job.spec.data.samples.verbs
        self.extractor = extractor(back_end) if back_end else None
        self.probe = ShuffledFrames(job) if "temporal" in job.spec.rewards else None
        self.measures = Measures(job.spec, job.folder, self.extractor)
        self.completions = Completions(job.folder)
        self._contexts: dict[int, Context] = {}
        self._positions: list[int] = []  # of the rows being generated or scored
        self._sampled: Tensor | None = None  # log-probabilities of the rows being learned from, when they were sampled
        self._prefixes: list[list[int]] = []  # of the step's rollouts: their forced first tokens
        self._rollouts: list[dict] = []  # of this process's rows, for the completions file

    # ------------------------------------------------------------ one generation, whole groups

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, Tensor]:
        self._positions = [row["position"] for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        output["advantages"] = self._advantages(output["advantages"])
        output["position"] = torch.tensor(self._positions, device=self.accelerator.device)
        output["group"] = torch.arange(len(inputs), device=self.accelerator.device) // self.num_generations
        for row, advantage in zip(self._rollouts, output["advantages"].tolist(), strict=True):
            row["advantage"] = advantage
        self._keep()
        return output

    def _keep(self) -> None:
        """The rollouts of the step, of all processes and in the order of the schedule: written, and measured."""
        pairs = processes.gathered(list(zip(self._positions, self._rollouts, strict=True)))
        if not processes.is_first():
            return
        pairs.sort(key=lambda pair: pair[0])
        step, rows = self.state.global_step + 1, [row for _, row in pairs]
        self.completions.write(step, rows)
        samples = [self.job.order[position] for position, _ in pairs]
        for name, value in self.measures(step, rows, samples).items():
            self._metrics["train"][name].append(value)

    def _advantages(self, of_trl: Tensor) -> Tensor:
        """(rows,) what the step's rollouts are worth."""
        return of_trl

    def _prepare_inputs(self, generation_batch):
        """trl shuffles rows across groups; a pass should hold whole groups, so that each is encoded once."""
        fresh = self._step % self.args.steps_per_generation == 0 or self._buffered_inputs is None
        inputs = super()._prepare_inputs(generation_batch)
        if not fresh:
            return inputs
        self._buffered_inputs = regroup(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _tokenize_prompts(self, prompts: list):
        self._contexts = {position: self.job.contexts(position) for position in dict.fromkeys(self._positions)}
        return [self._contexts[position].input_ids.tolist() for position in self._positions], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        began = time.monotonic()
        sampling = Sampling(self.spec.max_completion_tokens, self.spec.temperature, self.spec.top_p)
        self._prefixes, completions = [self._prefix(row) for row in range(len(prompt_ids))], []
        self.model.eval()  # gradient checkpointing would take the cache away
        with torch.no_grad(), self.accelerator.autocast():
            for rows in torch.arange(len(prompt_ids)).split(self.job.runtime.generate_batch):
                self.job.stop.check()
                contexts = [self._contexts[self._positions[row]] for row in rows.tolist()]
                seeds = [self._seed(row) for row in rows.tolist()]
                prefixes = [self._prefixes[row] for row in rows.tolist()]
                self.job.watch.work("rollouts are generated", self._ids(rows.tolist()), contexts)
                completions += self.job.policy.generate(contexts, sampling, seeds, prefixes)
        self.model.train()
        kept, seconds = self._metrics["train"], time.monotonic() - began
        kept["train/generate_seconds"].append(max(processes.gathered([seconds])))
        kept["tokens"].append(sum(processes.gathered([sum(map(len, completions))])))
        return completions, [completion.logps for completion in completions]

    def _seed(self, row: int) -> int:
        return self.job.seed_at(self._positions[row], row % self.num_generations)

    def _ids(self, rows: Iterable[int]) -> list[str]:
        return [self.job.order[self._positions[row]].id for row in rows]

    def _prefix(self, row: int) -> list[int]:
        """The tokens that a rollout is made to begin with: none."""
        return []

    # ------------------------------------------------------------ scoring

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **_unused
    ):
        """Log-probabilities of the completions after their true contexts; the padded prompts are not looked at."""
        ids, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:]
        cut = [rows.tolist() for rows in torch.arange(len(ids)).split(batch_size or len(ids))]
        parts = [self._score(model, rows, ids[rows], mask[rows], compute_entropy) for rows in cut]
        logps, entropies = (torch.cat(each) if each[0] is not None else None for each in zip(*parts, strict=True))
        if torch.is_grad_enabled():
            gap = ((logps.detach() - self._sampled[:, : logps.shape[1]]) * mask).abs().sum()
            gaps, tokens = zip(*processes.gathered([(gap.item(), mask.sum().item())]), strict=True)
            self._metrics["train"]["train/rollout_mismatch"].append(sum(gaps) / sum(tokens))
        return logps, entropies, None

    def _score(self, model, rows: list[int], ids: Tensor, mask: Tensor, entropy: bool) -> tuple:
        longest = int(mask.sum(1).max())  # of these rows: the padding is as long as the step's longest completion
        contexts = [self._contexts[self._positions[row]] for row in rows]
        self.job.watch.work("completions are scored", self._ids(rows), contexts, mask)
        with self.accelerator.autocast():
            scores = self.job.policy.score(
                contexts, ids[:, :longest], mask[:, :longest], self.temperature, model=model, entropies=entropy
            )
        padding = (0, ids.shape[1] - longest)
        pad = nn.functional.pad
        return pad(scores.logps, padding), pad(scores.entropies.detach(), padding) if entropy else None

    def _compute_loss(self, model, inputs):
        self.job.stop.check()
        self._positions, self._sampled = inputs["position"].tolist(), inputs["sampling_per_token_logps"]
        loss = self._loss(model, inputs)
        ids = [self.job.order[position].id for position in dict.fromkeys(self._positions)]
        if bad := processes.gathered([] if torch.isfinite(loss) else [(loss.item(), name) for name in ids]):
            raise broken(self.state.global_step + 1, f"loss {bad[0][0]}", [name for _, name in bad])
        self.job.watch.work.doing = "gradients are computed"
        return loss

    def _loss(self, model, inputs) -> Tensor:
        """This pass's share of the step's loss; `_positions` are those of its rows."""
        return super()._compute_loss(model, inputs)

    # ------------------------------------------------------------ rewards

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        """(rows, rewards) raw values, NaN where a reward does not apply; trl weighs them and takes the advantages."""
        drops = self._drops(completion_ids_list)
        of_groups = group_drops(drops, self._positions)
        self._rollouts = [
            self._rollout(row, *of_row)
            for row, of_row in enumerate(zip(completion_ids_list, drops, of_groups, strict=True))
        ]
        raw = [[row[f"rewards/{name}"] for name in self.spec.rewards] for row in self._rollouts]
        table = [[float("nan") if value is None else value for value in row] for row in raw]
        return self.accelerator.gather(torch.tensor(table, dtype=torch.float32, device=self.accelerator.device))

    def _drops(self, completion_ids: list[list[int]]) -> list[float | None]:
        """(rows,) what the probe of the stage measures, under the policy that has made the rollouts."""
        if self.probe is None:
            return [None] * len(completion_ids)
        began = time.monotonic()
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            contexts = [self._contexts[position] for position in self._positions]
            self.job.watch.work("rollouts are probed", self._ids(range(len(contexts))), contexts)
            drops = self.probe(
                self._positions, contexts, completion_ids, self.temperature, self.args.per_device_train_batch_size
            )
        self.model.train()
        kept, seconds = self._metrics["train"], time.monotonic() - began
        kept["train/probe_seconds"].append(max(processes.gathered([seconds])))
        found = processes.gathered([drop for drop in drops if drop is not None])
        if found:
            kept["train/logprob_drop"].append(sum(found) / len(found))
        return drops

    def _rollout(self, row: int, ids: list[int], drop: float | None, of_group: float | None) -> dict:
        """One row of the completions file."""
        sample, text = self.job.order[self._positions[row]], self.job.policy.decode(ids)
        answer = self.spec.prompt.answer
        raw = score(self.spec.rewards, Rollout(text, sample, drop, of_group), answer, self.extractor)
        return {
            "id": sample.id,
            "video": sample.video,
            "task": sample.task,
            "query": sample.query,
            "rollout": row % self.num_generations,
            "completion": text,
            **{f"rewards/{name}": value for name, value in raw.items()},
            "reward": weighted_sum(raw, self.spec.rewards),
            **({"logprob_drop": drop} if self.probe else {}),
            "parsed": PARSERS[answer.reward](text) is not None if sample.task == "ground" else None,
        }


def regroup(passes: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The passes of one step with their rows sorted by group, so that groups are whole again."""
    order = torch.argsort(torch.cat([rows["group"] for rows in passes]), stable=True)
    cut = order.split([len(rows["group"]) for rows in passes])

    def rows_of(key: str) -> list[Tensor]:
        if passes[0][key].ndim == 0:
            return [rows[key] for rows in passes]
        whole = torch.cat([rows[key] for rows in passes])
        return [whole[index] for index in cut]

    columns = {key: rows_of(key) for key in passes[0]}
    return [{key: columns[key][n] for key in columns} for n in range(len(passes))]
