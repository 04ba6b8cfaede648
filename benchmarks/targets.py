"""The table of targets in README.md, from the newest entries of results/*-h200.json.

    python benchmarks/targets.py          # prints it; --write puts it into README.md

A target without a measurement has no row.
"""

import argparse
import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PLACE = re.compile(r"(?<=<!-- targets -->\n).*?(?=<!-- end -->)", re.DOTALL)
TARGETS = (  # what, must, aim, benchmark, key or number of GPUs, unit
    ("step, times faster than the stock path", "16", "25", "step", "times_faster_than_stock", ""),
    ("step, times faster than the stock path with varlen vision", "6", "10", "step", "times_faster_than_varlen", ""),
    ("decode, a token of a group of 8, one group in flight", "4.0 ms", "2.5 ms", "step", "decode_ms_per_token", " ms"),
    ("loss forward + backward", "0.75 s", "0.5 s", "step", "loss_s", " s"),
    ("peak memory of it, without optimizer", "18 GB", "14 GB", "step", "peak_gb", " GB"),
    ("mean absolute difference of log-probabilities, to plain", "0.03", "", "step", "mean_abs_dlogp", ""),
    ("mean absolute difference, generated to scored", "0.02", "", "step", "rollout_mismatch", ""),
    ("groups a second, 2 GPUs against 1", "1.85", "1.95", "scaling", 2, ""),
    ("groups a second, 4 GPUs against 1", "", "3.8", "scaling", 4, ""),
    ("greedy evaluation, times `generate` at batch 1", "10", "30", "rollout", "times_faster_than_stock", ""),
    ("mini scale, GRPO steps a second (16 groups of 8)", "3", "8", "mini", "steps_per_s", ""),
)


def measured(run: dict, key: str | int) -> float | None:
    """A value of a run; for a number of GPUs, how many times faster than one it was."""
    if isinstance(key, str):
        return run.get(key)
    runs = {one["gpus"]: one for one in run.get("runs", ())}
    return runs[key]["groups_per_second"] / runs[1]["groups_per_second"] if {1, key} <= runs.keys() else None


def table() -> str:
    rows = ["| what | must reach | aim | measured | commit |", "|---|---|---|---|---|"]
    for what, must, aim, name, key, unit in TARGETS:
        path = FOLDER / "results" / f"{name}-h200.json"
        runs = json.loads(path.read_text()) if path.exists() else []
        found = [(value, run["commit"] or "") for run in runs if (value := measured(run, key)) is not None]
        if found:
            value, commit = found[-1]
            rows.append(f"| {what} | {must} | {aim} | {value:.3g}{unit} | {commit[:7]} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true")
    if options.parse_args().write:
        readme = FOLDER / "README.md"
        readme.write_text(PLACE.sub(lambda _: table(), readme.read_text()))
    print(table())  # noqa: T201


if __name__ == "__main__":
    main()
