"""Rollouts of several groups in flight, and greedy evaluation: ours, the plain policy, and the library's `generate`.

    python benchmarks/rollout.py --append benchmarks/results/rollout-h200.json
    python benchmarks/rollout.py --shape tiny --policy plain --groups 1 2 --queries 4 --batches 2      # on a CPU

`rollouts`: for each path and number of groups (8 rollouts each, every group its own video), the seconds of a whole
generation, encoding and prefill included; milliseconds of one decoding step, which makes one token of every rollout:
(all tokens - first token) / (tokens - 1); tokens a second; and the fraction of the memory bandwidth, as in `step.py`.

`evaluation`: queries a second at temperature 0, each query its own video, grids of mixed shape with about as many
visual tokens; encoding and prefill included. Ours answers --queries of them in batches; the library one by one, fewer
of them (--stock-queries), as its rate does not depend on how many. No path has an end token: all make exactly
--new-tokens a query.

Paths: `stock` and `varlen` as in `step.py`, `plain`, and `ours`.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from record import Record, arguments, shortened, timed
from shapes import SHAPES, Shape, build, decoded_bytes, policy, prompt
from step import PEAK_BYTES, Model
from stock import NAME, Stock, untouched

from tvg.model.policy import Context, Sampling

PATHS = ("stock", "varlen", "plain", "ours")


@dataclass(frozen=True)
class Way:
    """generate(contexts, new tokens, temperature); setting: what the model is set to while it runs."""

    generate: Callable[[Sequence[Context], int, float], object]
    setting: Callable[[], AbstractContextManager]
    captures: bool  # does it prepare for each size, so that it is warmed up at full length?


def way(name: str, model: Model, options: Namespace) -> Way:
    if name in ("stock", "varlen"):
        return Way(Stock(model).generate, partial(untouched, model, "sdpa" if name == "stock" else NAME), False)
    own = name == "ours"
    made = policy(options.policy if own else "plain", model, own and options.compile)

    def generate(contexts: Sequence[Context], count: int, temperature: float) -> object:
        return made.generate(contexts, Sampling(count, temperature), list(range(len(contexts))))

    return Way(generate, nullcontext if own else partial(untouched, model), own)


def rollouts(way: Way, model: Model, shape: Shape, groups: int, repeats: int) -> dict[str, float | None]:
    """A row of the table: so many groups in flight."""
    contexts = [context for seed in range(groups) for context in [prompt(model, shape, seed)] * shape.group]
    few = None if way.captures else lambda: way.generate(contexts[: shape.group], 2, 1.0)
    whole, _ = timed(lambda: way.generate(contexts, shape.new_tokens, 1.0), repeats, few)
    first, _ = timed(lambda: way.generate(contexts, 1, 1.0), repeats, few)
    step = (whole - first) / (shape.new_tokens - 1)
    share = decoded_bytes(model) / step / PEAK_BYTES if model.device.type == "cuda" else None
    return {
        "groups": groups, "rollouts": len(contexts), "seconds": whole, "first_token_s": first,
        "ms_per_step": shortened(1000 * step), "tokens_per_s": shortened(len(contexts) * shape.new_tokens / whole),
        "bandwidth_fraction": share and shortened(share),
    }  # fmt: skip


def evaluation(way: Way, contexts: list[Context], batch: int, count: int) -> dict[str, float]:
    """Greedy answers to every context, `batch` at a time."""
    cut = [contexts[start : start + batch] for start in range(0, len(contexts), batch)]
    few = None if way.captures else lambda: way.generate(cut[0][:1], 2, 0.0)
    seconds, _ = timed(lambda: [way.generate(part, count, 0.0) for part in cut], 1, few)
    return {
        "batch": batch, "queries": len(contexts), "seconds": seconds,
        "queries_per_s": shortened(len(contexts) / seconds),
    }  # fmt: skip


def best(rows: Sequence[dict]) -> float:
    return max((row["queries_per_s"] for row in rows), default=0.0)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__)
    options.add_argument("--groups", type=int, nargs="*", default=[1, 2, 4, 8], help="in flight")
    options.add_argument("--repeats", type=int, default=2, help="of plain and ours; the library's paths run once")
    options.add_argument("--queries", type=int, default=64, help="of the evaluation; 0: none")
    options.add_argument("--stock-queries", type=int, default=8, help="of them for the library, and for plain")
    options.add_argument("--batches", type=int, nargs="*", default=[32, 64], help="queries of ours at a time")
    options.add_argument("--new-tokens", type=int, default=64, help="of an answer")
    options.add_argument("--skip", nargs="*", default=[], choices=PATHS)
    options = options.parse_args(argv)
    shape, record = SHAPES[options.shape], Record("rollout", options)
    record.say(f"building a model of shape {options.shape}")
    model = build(shape, options.device)
    answers = {"queries": options.queries, "new_tokens": options.new_tokens, "grids": shape.grids}
    record.add(shape=options.shape, lengths=shape.lengths, dtype=str(model.dtype).removeprefix("torch."))
    record.add(policy=options.policy, compiled=options.compile, answers=answers, rollouts={}, evaluation={})
    videos = [
        prompt(model, shape, seed, shape.grids[seed % len(shape.grids)]) for seed in range(max(options.queries, 0))
    ]
    on_cpu = model.device.type == "cpu"
    for name in (name for name in PATHS if name not in options.skip and not (name == "varlen" and on_cpu)):
        made = way(name, model, options)
        with made.setting():
            for groups in options.groups:
                with record.part(f"{name}: {groups} groups"):
                    row = rollouts(made, model, shape, groups, options.repeats if name in ("plain", "ours") else 1)
                    record.add(rollouts={name: [*record.values["rollouts"].get(name, []), row]})
            asked = videos if made.captures else videos[: options.stock_queries]
            for batch in options.batches if made.captures else [1]:
                with record.part(f"{name}: {len(asked)} queries, {batch} at a time"):
                    row = evaluation(made, asked, batch, options.new_tokens)
                    record.add(evaluation={name: [*record.values["evaluation"].get(name, []), row]})
    rates = {name: best(rows) for name, rows in record.values["evaluation"].items()}
    times = {
        f"times_faster_than_{name}": shortened(rates["ours"] / rates[name])
        for name in ("stock", "varlen")
        if rates.get("ours") and rates.get(name)
    }
    record.add(**times)
    return record.end()


if __name__ == "__main__":
    sys.exit(main())
