"""The numbers of one evaluated row: of its answers, of the training behind it, and of what both have cost."""

from collections.abc import Callable

import numpy as np

from tvg.report.runs import Scored

RISEN = 0.9  # of the whole rise of the reward: how fast a training learns


def value(one: Scored, metric: str) -> float | None:
    """A metric by its table name, shares in [0, 1]; None where nothing says it."""
    if metric in COMPUTED:
        return COMPUTED[metric](one)
    action = one.metrics.get("actions", {}).get(metric)
    return action["accuracy"] if action else one.metrics.get(metric)


def smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving average over a tenth of the training, shrinking at both ends: it invents no trend there."""
    reach = len(values) // 20
    return np.array([values[max(0, k - reach) : k + reach + 1].mean() for k in range(len(values))])


def _logged(one: Scored, key: str) -> np.ndarray:
    """The column `key` of the last training's metrics.jsonl; empty where there is none."""
    return np.array([found for _, found in one.trainings[0].logged(key)] if one.trainings else [], dtype=float)


def _mean(one: Scored, key: str) -> float | None:
    found = _logged(one, key)
    return float(found.mean()) if len(found) else None


def reward_variance(one: Scored) -> float | None:
    """Mean over steps of the squared standard deviation of rewards within a group."""
    spread = _logged(one, "train/reward_std")
    return float((spread**2).mean()) if len(spread) else None


def grad_norm_variance(one: Scored) -> float | None:
    """Variance of the gradient's norm over steps."""
    norms = _logged(one, "train/grad_norm")
    return float(norms.var()) if len(norms) else None


def steps_to_90(one: Scored) -> float | None:
    """The first step at which the smoothed reward has made RISEN of its way; None where it ends no higher."""
    points = one.trainings[0].logged("train/reward") if one.trainings else []
    if not points:
        return None
    steps, rewards = np.array(points, dtype=float).T
    curve = smooth(rewards)
    rise = curve[-1] - curve[0]
    return float(steps[np.argmax(curve >= curve[0] + RISEN * rise)]) if rise > 0 else None


def gpu_hours(one: Scored) -> float | None:
    """Of all trainings of the row, each on one device; None where one has not said its seconds."""
    seconds = [training.run.get("seconds") for training in one.trainings]
    return sum(seconds) / 3600 if seconds and None not in seconds else None


def probe_share(one: Scored) -> float | None:
    """The second forward's part of a step, of the steps that have one."""
    probes, steps = (_logged(one, f"train/{name}_seconds") for name in ("probe", "step"))
    return float(probes.sum() / steps.sum()) if len(probes) and len(steps) else None


def _per_query(one: Scored, key: str) -> float | None:
    total, queries = one.run.get(key), one.run.get("queries")
    return total / queries if total is not None and queries else None


COMPUTED: dict[str, Callable[[Scored], float | None]] = {
    "reward_variance": reward_variance,
    "grad_norm_variance": grad_norm_variance,
    "steps_to_90": steps_to_90,
    "gpu_hours": gpu_hours,
    "step_seconds": lambda one: _mean(one, "train/step_seconds"),
    "probe_share": probe_share,
    "rollout_tokens": lambda one: _mean(one, "train/length"),
    "query_seconds": lambda one: _per_query(one, "seconds"),
    "query_tokens": lambda one: _per_query(one, "tokens"),
}
