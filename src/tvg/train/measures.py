"""What a step's rollouts tell beside their rewards: spread, unread answers, anchors, verbs.

Names in metrics.jsonl, and the rollouts that each is of:

`train/reward_std`        standard deviation of the reward within a group, the mean over groups
`train/unparsed`          ground: share whose answer the prompt's own parser cannot read
`train/mean_anchors`      ground, with the reward `anchors`: how many anchors the reasoning holds
`train/anchors_over_cap`  the same: share with more anchors than the reward's `at_most`
`train/refined`           the same, where two anchors or more are wanted: share with two or more whose last is nearer to
                          the truth than the one before (soft IoU)
`train/top_verb_share`    inversion, of the last 20 steps: share that names the verb which most of them name
`train/top_verb_true`     the same: share whose query has that verb

verbs.jsonl holds a row for each step with inversion rollouts: {step, rollouts, predicted: [[verb, rollouts that name
it], ...], true: [[verb, rollouts whose query has it], ...], top: [[verb, share of the rollouts of the last 20 steps
that name it], ... ten]}, the most frequent first. The newest `top` is the tag `verbs` in MLflow.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from tvg.inversion.verbs import Extractor
from tvg.parse import MOST_ANCHORS, last_answer
from tvg.rewards.anchors import TARGET, anchor_overlaps, refined
from tvg.rewards.verbs import named
from tvg.rows import Rows
from tvg.sample import INVERSION_TASKS, Sample
from tvg.settings import RewardSettings
from tvg.spec import AwbcSpec, GrpoSpec
from tvg.train.alarms import RECENT

TOP = 10  # verbs that are named


def verbs(folder: Path) -> Rows:
    """The verbs.jsonl of a stage."""
    return Rows(folder / "verbs.jsonl")


def most_frequent(rows: Iterable[dict], key: str = "predicted") -> list[tuple[str, int]]:
    """Verbs and how many rollouts name them in these rows of verbs.jsonl, most frequent first, equals by the alphabet.

    key: "predicted", or "true" for the queries' verbs.
    """
    counted = Counter()
    for row in rows:
        counted.update(dict(row[key]))
    return _ranked(counted)


class Measures:
    """Of the rollouts of a stage, a step after the other. Rows: as the completions file has them, whole groups."""

    def __init__(self, spec: GrpoSpec | AwbcSpec, folder: Path, extractor: Extractor | None):
        self.spec, self.extractor, self.verbs = spec, extractor, verbs(folder)
        self._recent: list[dict] | None = None  # rows of verbs.jsonl; read late, once a resumed run has cut it

    def __call__(self, step: int, rows: Sequence[dict], samples: Sequence[Sample]) -> dict[str, float]:
        """Name -> value; a name is absent where no rollout is of its kind. samples: (rows,) what each one answers."""
        pairs = list(zip(rows, samples, strict=True))
        ground = [(row, sample) for row, sample in pairs if sample.task == "ground"]
        inversion = [(row, sample) for row, sample in pairs if sample.task in INVERSION_TASKS]
        found = {"train/reward_std": spread([row["reward"] for row in rows], self.spec.num_generations)}
        if ground:
            found["train/unparsed"] = _share(not row["parsed"] for row, _ in ground)
        if ground and "anchors" in self.spec.rewards:
            found |= anchoring(self.spec.rewards["anchors"], ground)
        if self.extractor:
            found |= self._verbs(step, inversion)
        return found

    def _verbs(self, step: int, inversion: list[tuple[dict, Sample]]) -> dict[str, float]:
        if self._recent is None:
            self._recent = self.verbs.rows()
        new = [{"step": step, **counts(inversion, self.extractor)}] if inversion else []
        self._recent = [row for row in [*self._recent, *new] if row["step"] > step - RECENT]
        asked = sum(row["rollouts"] for row in self._recent)
        shares = [(verb, count / asked) for verb, count in most_frequent(self._recent)]
        for row in new:
            self.verbs.add(row | {"top": shares[:TOP]})
        if not asked:
            return {}
        verb, share = next(iter(shares), ("", 0.0))
        true = dict(most_frequent(self._recent, "true")).get(verb, 0)
        return {"train/top_verb_share": share, "train/top_verb_true": true / asked}


def spread(rewards: Sequence[float | None], group: int) -> float:
    """Mean over groups of the standard deviation (N - 1) within; NaN where no reward applies to any."""
    groups = [rewards[first : first + group] for first in range(0, len(rewards), group)]
    return fmean([stdev(one) for one in groups if None not in one] or [float("nan")])


def anchoring(settings: RewardSettings, ground: Sequence[tuple[dict, Sample]]) -> dict[str, float]:
    """What the anchors of these rollouts are like."""
    overlaps = [anchor_overlaps(row["completion"], sample) for row, sample in ground]
    at_most = MOST_ANCHORS if settings.at_most is None else settings.at_most
    found = {
        "train/mean_anchors": sum(map(len, overlaps)) / len(overlaps),
        "train/anchors_over_cap": _share(len(one) > at_most for one in overlaps),
    }
    if (settings.target or TARGET) > 1:
        found["train/refined"] = _share(any(refined(one)[-1:]) for one in overlaps)
    return found


def counts(inversion: Sequence[tuple[dict, Sample]], extractor: Extractor) -> dict:
    """A row of verbs.jsonl, but for its step. A verb counts once a rollout."""
    answers = [last_answer(row["completion"]) for row, _ in inversion]
    predicted = Counter(verb for answer in answers if answer is not None for verb in named(answer, extractor))
    true = Counter(verb for _, sample in inversion for verb in set(sample.verbs or ()))
    return {"rollouts": len(inversion), "predicted": _ranked(predicted), "true": _ranked(true)}


def _ranked(counted: Counter) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _share(marks: Iterable[bool]) -> float:
    marks = list(marks)
    return sum(marks) / len(marks)
