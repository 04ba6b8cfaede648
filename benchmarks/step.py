"""A GRPO step on one video: the stock path, the stock path with variable-length vision attention, and ours.

    python benchmarks/step.py --append benchmarks/results/step-h200.json
    python benchmarks/step.py --shape tiny --policy plain          # on a CPU: does it run?

One process, one model object, one prompt, rollouts of exactly the same length (no path has an end token). A step is
the generation of a group and the forward and backward pass of its loss, all parameters, with gradient checkpointing,
without an optimizer. Medians over the repeats, after a warm-up of each part. `parts` has every part of every path;
`loss_s`, `peak_gb`, `decode_ms_per_token` and the fractions beside it are ours.

`mfu` = 4 x forward FLOPs / loss seconds / peak. Forward FLOPs: `shapes.forward_flops`, the dense products that a group
with a shared prompt needs; times 4: forward, backward (twice a forward), and the forward that checkpointing repeats.
Peak: 989 TFLOP/s, an H200 in bfloat16 without sparsity. `bandwidth_fraction` of a decoded token = bytes of the text
layers and the LM head / seconds / 4.8 TB/s, an H200's specification. Null on a CPU.

`mean_abs_dlogp`: log-probabilities of our rollouts, ours minus the plain policy's; `mean_dlogp` keeps the sign: a bias.
`rollout_mismatch`: those that our rollouts were sampled with minus those that they are scored with, mean absolute.
`noise`: the same of the stock path given our positions: what two correct paths differ by in this type (3e-5 nats of it
are the share of the vision tokens, which our policies leave out of the distribution).
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from record import Record, arguments, peak_gb, shortened, timed, wait
from shapes import SHAPES, Shape, build, decoded_bytes, forward_flops, policy, prompt
from stock import NAME, Stock, original, untouched
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from tvg.model.policy import Context, Policy, Sampling

QUOTED = (  # null until measured
    "stock_s", "varlen_s", "ours_s", "times_faster_than_stock", "times_faster_than_varlen", "decode_ms_per_token",
    "bandwidth_fraction", "loss_s", "peak_gb", "mfu", "mfu_without_recomputation", "mean_abs_dlogp", "mean_dlogp",
    "rollout_mismatch",
)  # fmt: skip
PEAK_FLOPS, PEAK_BYTES = 989e12, 4.8e12  # an H200's specification: dense bfloat16 a second, memory a second


@dataclass(frozen=True)
class Way:
    """One way to make a step. generate(n) -> (B, n) ids; logps(ids) -> (B, n); first() makes one token of one row."""

    generate: Callable[[int], Tensor]
    logps: Callable[[Tensor], Tensor]
    first: Callable[[], object]
    setting: Callable[[], AbstractContextManager] = nullcontext
    passes: int = 1  # that the rows are split into for log-probabilities and loss


def ours(policy: Policy, contexts: list[Context]) -> Way:
    seeds, device = list(range(len(contexts))), policy.model.device

    def logps(ids: Tensor) -> Tensor:
        return policy.score(contexts[: len(ids)], ids, torch.ones_like(ids)).logps

    return Way(
        generate=lambda count: torch.tensor(policy.generate(contexts, Sampling(count), seeds), device=device),
        logps=logps,
        first=lambda: policy.generate(contexts[:1], Sampling(1), [0]),
    )


def stock(model: Model, contexts: list[Context], vision: str, rows: int) -> Way:
    path = Stock(model)
    return Way(
        generate=lambda count: path.generate(contexts, count),
        logps=lambda ids: path.logps(contexts[: len(ids)], ids),
        first=lambda: path.generate(contexts[:1], 1),
        setting=partial(untouched, model, vision),
        passes=-(-len(contexts) // rows),
    )


def loss_pass(model: Model, way: Way, ids: Tensor) -> None:
    """Forward and backward of GRPO's loss at the policy that made the rollouts; gradients start from nothing."""
    model.zero_grad(set_to_none=True)
    model.train()  # or the library does not checkpoint
    advantages = torch.linspace(-1, 1, len(ids), device=ids.device)[:, None]
    for rows, advantage in zip(ids.chunk(way.passes), advantages.chunk(way.passes), strict=True):
        logps = way.logps(rows)
        loss = -((logps - logps.detach()).exp() * advantage).sum() / ids.numel()
        loss.backward()
    model.eval()


@torch.no_grad()
def vision_seconds(model: Model, way: Way) -> float | None:
    """The vision tower on one video without gradient, from its patch embedding to its merger, whoever calls them."""
    tower, times = model.model.visual, []

    def note(*_: object) -> None:
        wait()
        times.append(time.perf_counter())

    way.first()
    hooks = tower.patch_embed.register_forward_pre_hook(note), tower.merger.register_forward_hook(note)
    way.first()
    for hook in hooks:
        hook.remove()
    return shortened(times[-1] - times[0]) if len(times) > 1 else None


def attention_of(model: Model) -> dict[str, str]:
    """The library's names of the implementations in use."""
    parts = {"vision": model.model.visual, "text": model.model.language_model}
    return {name: part.config._attn_implementation for name, part in parts.items()}


class Measuring:
    """The parts of each way, into a record."""

    def __init__(self, record: Record, model: Model, shape: Shape):
        self.record, self.model, self.shape = record, model, shape
        self.on_gpu, self.flops = model.device.type == "cuda", forward_flops(model, shape)  # before any path changes it

    def __call__(self, name: str, way: Way, repeats: int) -> None:
        self.name, self.way, self.repeats = name, way, repeats
        with way.setting():
            self._add(attention=attention_of(self.model), passes=way.passes)
            ids = self._generation()
            if ids is not None:
                self._scoring(ids)
        self.model.eval().zero_grad(set_to_none=True)
        part = self.record.values["parts"][name]
        if "generate_s" in part and "loss_s" in part:
            self.record.add(**{f"{name}_s": shortened(part["generate_s"] + part["loss_s"])})

    def _add(self, **values: object) -> None:
        parts = self.record.values.get("parts", {})
        self.record.add(parts={self.name: parts.get(self.name, {}) | values})

    def _generation(self) -> Tensor | None:
        ids, count, way = None, self.shape.new_tokens, self.way
        with self.record.part(f"{self.name}: generation"):
            whole, ids = timed(lambda: way.generate(count), self.repeats)
            self._add(generate_s=whole, rollout_tokens_per_s=shortened(ids.numel() / whole))
            first, _ = timed(lambda: way.generate(1), self.repeats)
            token = (whole - first) / (count - 1)
            self._add(
                first_token_s=first,
                decode_ms_per_token=shortened(1000 * token),
                bandwidth_fraction=self.fraction(decoded_bytes(self.model) / token / PEAK_BYTES),
            )
        with self.record.part(f"{self.name}: vision tower"):
            vision = vision_seconds(self.model, way)
            self._add(vision_s=vision)
        return ids

    def _scoring(self, ids: Tensor) -> None:
        way = self.way
        with self.record.part(f"{self.name}: log-probabilities"), torch.no_grad():
            self._add(score_s=timed(lambda: [way.logps(rows) for rows in ids.chunk(way.passes)], self.repeats)[0])
        with self.record.part(f"{self.name}: loss"):
            seconds, _ = timed(lambda: loss_pass(self.model, way, ids), self.repeats)
            self._add(loss_s=seconds, loss_tokens_per_s=shortened(ids.numel() / seconds))
            self.model.zero_grad(set_to_none=True)
            self._add(peak_gb=peak_gb(lambda: loss_pass(self.model, way, ids)))

    def fraction(self, of_an_h200: float) -> float | None:
        return shortened(of_an_h200) if self.on_gpu else None


def quoted(measuring: Measuring) -> dict[str, float | None]:
    """What issue and README quote: of ours, and how many times faster its step is."""
    values = measuring.record.values
    part = values["parts"]["ours"]
    found = {name: part.get(name) for name in ("decode_ms_per_token", "bandwidth_fraction", "loss_s", "peak_gb")}
    if found["loss_s"]:
        share = measuring.flops / found["loss_s"] / PEAK_FLOPS
        found["mfu"] = measuring.fraction(4 * share)
        found["mfu_without_recomputation"] = measuring.fraction(3 * share)
    for other in ("stock", "varlen"):
        if values[f"{other}_s"] and values["ours_s"]:
            found[f"times_faster_than_{other}"] = shortened(values[f"{other}_s"] / values["ours_s"])
    return found


@torch.no_grad()
def agreement(policy: Policy, plain: Policy, contexts: list[Context], count: int) -> dict[str, object]:
    """How far log-probabilities of the same rollouts are from the plain policy's: ours, and the stock path's."""
    made = policy.generate(contexts, Sampling(count), list(range(len(contexts))))
    model = policy.model
    ids, sampled = (torch.tensor(each, device=model.device) for each in (made, [rollout.logps for rollout in made]))
    mine = ours(policy, contexts).logps(ids)
    with untouched(model):
        expected = ours(plain, contexts).logps(ids)
        library = Stock(model).logps(contexts, ids, original(model, contexts, count))

    def apart(logps: Tensor) -> dict[str, float]:
        difference = logps - expected
        return {
            "mean_abs_dlogp": difference.abs().mean().item(), "mean_dlogp": difference.mean().item(),
            "max_abs_dlogp": difference.abs().max().item(),
        }  # fmt: skip

    return {**apart(mine), "rollout_mismatch": (sampled - mine).abs().mean().item(), "noise": apart(library)}


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="of ours and of varlen; one more warms up")
    options.add_argument("--stock-repeats", type=int, default=1, help="of the stock path, 40 s each on an H200")
    options.add_argument("--stock-rows", type=int, default=8, help="rows of a stock pass: a group fits on an H200")
    options.add_argument("--skip", nargs="*", default=[], choices=("stock", "varlen", "ours", "agreement"))
    options = options.parse_args(argv)
    shape, wanted = SHAPES[options.shape], {"stock", "varlen", "ours", "agreement"} - set(options.skip)
    record = Record("step", options)
    record.say(f"building a model of shape {options.shape}")
    model = build(shape, options.device)
    contexts = [prompt(model, shape)] * shape.group
    record.add(shape=options.shape, lengths=shape.lengths, dtype=str(model.dtype).removeprefix("torch."))
    record.add(policy=options.policy, compiled=options.compile, **dict.fromkeys(QUOTED), parts={})
    measuring, rows = Measuring(record, model, shape), options.stock_rows
    if "stock" in wanted:
        measuring("stock", stock(model, contexts, "sdpa", rows), options.stock_repeats)
    if "varlen" in wanted and measuring.on_gpu:  # torch has it for half precision on CUDA alone
        measuring("varlen", stock(model, contexts, NAME, rows), options.repeats)
    if "ours" in wanted:
        with record.part("ours: a policy over the model"):
            mine = policy(options.policy, model, options.compile)
            measuring("ours", ours(mine, contexts), options.repeats)
            record.add(**quoted(measuring))
            if "agreement" in wanted:
                record.say("agreement with the plain policy")
                record.add(**agreement(mine, policy("plain", model), contexts, shape.new_tokens))
    return record.end()


if __name__ == "__main__":
    sys.exit(main())
