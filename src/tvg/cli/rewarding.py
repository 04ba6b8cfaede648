"""The rewards of a stage on rollouts that are given as text: which stage that is, and what each row gets."""

import logging
import math
from functools import cached_property
from typing import Any

from tvg.cli.jsonl import Line, Row
from tvg.cli.rows import ProbedRow, RewardRow
from tvg.errors import TvgError

log = logging.getLogger(__name__)


class Rewarder:
    """The rewards of one stage as the experiment file and the arm write them, whatever the stage's tasks are.

    resolver: of the configured scale, of which nothing but the verbs' back-end is read. text: EXPERIMENT[-ARM].
    stage: its name; None for the nearest to `evaluate`. Raises TvgError if there is no such stage with rewards.
    """

    def __init__(self, resolver: Any, text: str, stage: str | None = None):
        from tvg.config import read_prompts
        from tvg.rewards import check

        name, arm = resolver.named(text)
        self.backend = resolver.scale.verbs
        experiment, name, stage = _find(resolver, name, arm, stage)
        written = experiment.stages[stage]
        self.rewards = written.rewards or experiment.rewards
        check(self.rewards, f"{resolver.folder}/experiments/{name}.yaml")
        self._row = ProbedRow if "temporal" in self.rewards else RewardRow
        asked = written.prompt or experiment.prompt, written.inversion_prompt or experiment.inversion_prompt
        self.contract = read_prompts(resolver.folder / "prompts", *asked).answer
        self.scale_rewards = written.scale_rewards
        log.info("rewards of %s.%s: %s", name, stage, ", ".join(self.rewards))

    @cached_property
    def extractor(self) -> Any:
        from tvg.inversion.verbs import extractor

        return extractor(self.backend)

    def reward(self, row: Row, group_drop: float | None = None) -> Row:
        """{"rewards", "reward"} of one row. Raises ValueError or TvgError for what no reward can be computed of.

        group_drop: the mean "logprob_drop" of the row's group; None for a row that is its own group.
        """
        from tvg.inversion import annotate
        from tvg.rewards import TASKS, Rollout, score, weighted_sum

        given = self._row.of(row)
        sample, extractor = given.sample(), None
        if "verbs" in self.rewards and sample.task in TASKS["verbs"]:
            extractor = self.extractor
            sample = sample if sample.verbs is not None else next(annotate([sample], extractor))
        rollout = Rollout(given.completion, sample, getattr(given, "logprob_drop", None), group_drop)
        raw = score(self.rewards, rollout, self.contract, extractor)
        if not all(value is None or math.isfinite(value) for value in raw.values()):
            raise ValueError(f"these numbers give no finite reward: {raw}")
        return {"rewards": raw, "reward": weighted_sum(raw, self.rewards)}

    def together(self, lines: list[Line]) -> None:
        """What takes the rows of a group: first their mean drop, for `temporal`, then their advantages."""
        if self._row is ProbedRow:
            self._against_group(lines)
        self._advantages(lines)

    def _against_group(self, lines: list[Line]) -> None:
        """Rewards the rows of groups again, now that the drops of the others are known."""
        from tvg.rewards.temporal import group_drops

        whole = [line for line in lines if line.error is None]
        means = group_drops([line.row.get("logprob_drop") for line in whole], [line.row.get("group") for line in whole])
        for line, mean in zip(whole, means, strict=True):
            if mean is not None:
                line.answer = self.reward(line.row, mean)

    def _advantages(self, lines: list[Line]) -> None:
        """Adds "advantage" to the rows of groups; says so where a group has broken rows."""
        from tvg.rewards.advantage import advantages

        whole = [line for line in lines if line.error is None and line.row.get("group") is not None]
        found = advantages(
            [line.answer["reward"] for line in whole], [line.row["group"] for line in whole], self.scale_rewards
        )
        for line, advantage in zip(whole, found, strict=True):
            line.answer["advantage"] = advantage
        groups = {line.row["group"] for line in whole}
        for line in lines:
            group = line.row.get("group")
            if line.error is not None and isinstance(group, str | int | float) and group in groups:
                log.warning("line %d is broken: the advantages of group %r are without it", line.number, group)


def _find(resolver: Any, name: str, arm: str, stage: str | None) -> tuple[Any, str, str]:
    """(experiment, its name, the stage): the one named, or from `evaluate:` along `init:` the first with rewards.

    A training on completions that were collected from a stage's rollouts leads on to that stage, which rewarded them.
    """
    experiment = resolver.experiment(name, arm)
    where = f"{resolver.folder}/experiments/{name}.yaml" + ("" if arm == "main" else f": arm '{arm}'")
    known = [key for key, written in experiment.stages.items() if _has_rewards(experiment, written)]
    if stage is not None:
        if stage not in known:
            raise TvgError(
                where, "no such stage with rewards", got=stage,
                expected=", ".join(known) or "a stage of kind grpo or awbc", hint=_other(known),
            )  # fmt: skip
        return experiment, name, stage
    source, seen = experiment.evaluate, []
    while (name, source) not in seen:
        seen.append((name, source))
        experiment, name, source = _home(resolver, experiment, name, source)
        written = experiment.stages.get(source)
        if written is None:
            break
        if _has_rewards(experiment, written):
            return experiment, name, source
        start = experiment, name, getattr(written, "init", "base")
        experiment, name, source = _collected(resolver, experiment, name, written.data) or start
    raise TvgError(
        where, "no stage with rewards leads to what is evaluated",
        got="evaluate: " + " <- ".join(source for _, source in seen),
        expected="a stage of kind grpo or awbc on the way", hint=_other(known),
    )  # fmt: skip


def _home(resolver: Any, experiment: Any, name: str, source: str) -> tuple[Any, str, str]:
    """(experiment, its name, what it calls it): `experiment.stage` is another's, a data set's split is nobody's."""
    other, _, stage = source.partition(".")
    if not stage or source in experiment.stages or not (resolver.folder / "experiments" / f"{other}.yaml").exists():
        return experiment, name, source
    return resolver.experiment(other), other, stage


def _collected(resolver: Any, experiment: Any, name: str, data: str | None) -> tuple[Any, str, str] | None:
    """Whose rollouts a training's completions are; None for other data. A filter passes on what it reads."""
    seen = []
    while data is not None and (name, data) not in seen:
        seen.append((name, data))
        experiment, name, data = _home(resolver, experiment, name, data)
        written = experiment.stages.get(data)
        if written is None or written.kind not in ("filter", "collect"):
            return None
        if written.kind == "collect" and written.model:
            return experiment, name, written.model
        data = written.data
    return None


def _has_rewards(experiment: Any, written: Any) -> bool:
    """Kinds that train with rewards have advantages to scale; a filter has rollouts, and no rewards."""
    return hasattr(written, "scale_rewards") and bool(written.rewards or experiment.rewards)


def _other(known: list[str]) -> str:
    return f"name one: --stage {known[0]}" if known else "name an experiment, or an arm, that trains with rewards"
