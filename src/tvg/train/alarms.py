"""Named warnings about a training that goes wrong, from its rows of metrics.

`format_collapse`      the format rate (`train/rewards/format`), a mean of 5 steps, is under 0.5 after it was over 0.9
`stagnant_refinement`  after 50 steps or more, `train/refined` of the last 20 is no better than a guess, under 0.5, and
                       has not risen by 0.05 over that of the first 20
`vanishing_variance`   for 10 steps in a row, over 90 % of the groups had no spread of rewards, so that hardly anything
                       was learnt
`generic_verbs`        for 10 steps in a row, over half of the inversion rollouts of the last 20 steps named one and the
                       same verb, which is true of less than a quarter of them

The thresholds are ours; a format reward that works is over 0.9 by about step 100 (systems.md 8, sanity gate 4). Each
name is given once in a stage's life: logged, written to warnings.jsonl ({step, name, text}), shown by `tvg status`, and
a tag `warning.<name>` in MLflow. A resumed run forgets those past its checkpoint, and meets them again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from tvg.rows import Rows

FORMAT, REFINED, SPREADLESS = "train/rewards/format", "train/refined", "train/zero_std_groups"
TOP_VERB, TOP_VERB_TRUE = "train/top_verb_share", "train/top_verb_true"
SMOOTHED, PASSED, COLLAPSED = 5, 0.9, 0.5
STEPS_TO_REFINE, RECENT, GUESSED, RISEN = 50, 20, 0.5, 0.05  # RECENT: steps that verbs are counted over, too
IN_A_ROW, MOST_SPREADLESS = 10, 0.9
GENERIC, TRUE_OF = 0.5, 0.25


def format_collapse(rows: Sequence[dict]) -> str | None:
    rates = _column(rows, FORMAT)
    means = [(rates[k - 1][0], _mean(rates[k - SMOOTHED : k])) for k in range(SMOOTHED, len(rates) + 1)]
    best = max(means, key=lambda found: found[1], default=(0, 0.0))
    if best[1] <= PASSED or means[-1][1] >= COLLAPSED:
        return None
    return (
        f"answers in the right form fell from {best[1]:.0%} (step {best[0]}) to {means[-1][1]:.0%}, means of {SMOOTHED}"
        " steps: read completions/; lower learning_rate, or raise beta or the weight of `format`"
    )


def stagnant_refinement(rows: Sequence[dict]) -> str | None:
    shares = _column(rows, REFINED)
    if len(shares) < STEPS_TO_REFINE:
        return None
    first, last = _mean(shares[:RECENT]), _mean(shares[-RECENT:])
    if last >= GUESSED or last > first + RISEN:
        return None
    return (
        f"{last:.0%} of the rollouts refine their anchors (mean of {RECENT} steps), after {first:.0%} at the start: "
        "read the anchors in completions/; raise gamma of the reward `anchors`, or the temperature"
    )


def vanishing_variance(rows: Sequence[dict]) -> str | None:
    recent = _column(rows, SPREADLESS)[-IN_A_ROW:]
    if len(recent) < IN_A_ROW or not all(share > MOST_SPREADLESS for _, share in recent):
        return None
    return (
        f"{_mean(recent):.0%} of the groups of the last {IN_A_ROW} steps had rollouts of equal reward, which teach "
        "nothing: raise temperature or num_generations, or choose samples that are neither too easy nor too hard"
    )


def generic_verbs(rows: Sequence[dict]) -> str | None:
    recent = _column(rows, TOP_VERB, TOP_VERB_TRUE)[-IN_A_ROW:]
    if len(recent) < IN_A_ROW or not all(share > GENERIC and true < TRUE_OF for _, share, true in recent):
        return None
    _, share, true = recent[-1]
    return (
        f"one verb is named by {share:.0%} of the last {RECENT} steps' inversion rollouts and true of {true:.0%}: see "
        "verbs.jsonl; an answer that fits any clip is paid for, so look at the reward `verbs` and the queries' verbs"
    )


ALARMS: dict[str, Callable[[Sequence[dict]], str | None]] = {
    alarm.__name__: alarm for alarm in (format_collapse, stagnant_refinement, vanishing_variance, generic_verbs)
}


def active(rows: Sequence[dict]) -> dict[str, str]:
    """The alarms that hold at the last of these metric rows: name -> figures, and what to do."""
    return {name: text for name, alarm in ALARMS.items() if (text := alarm(rows)) is not None}


def warnings(folder: Path) -> Rows:
    """The warnings.jsonl of a stage."""
    return Rows(folder / "warnings.jsonl")


def _column(rows: Sequence[dict], *names: str) -> list[tuple]:
    """(step, values) of the rows that have them all."""
    found = ((row["step"], *map(row.get, names)) for row in rows)
    return [point for point in found if None not in point]


def _mean(points: Sequence[tuple]) -> float:
    return fmean(value for _, value in points)
