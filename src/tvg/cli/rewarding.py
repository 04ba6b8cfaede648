"""The rewards of a stage on rollouts that are given as text: which stage that is, and what each row gets."""

import logging
import math
from functools import cached_property
from typing import Any

from tvg.cli.jsonl import Line, Row
from tvg.cli.rows import RewardRow
from tvg.errors import TvgError

log = logging.getLogger(__name__)


class Rewarder:
    """The rewards of one stage as the experiment file and the arm write them, whatever the stage's tasks are.

    resolver: of the configured scale, of which nothing but the verbs' back-end is read. text: EXPERIMENT[-ARM].
    stage: its name; None for the nearest to `evaluate`. Raises TvgError if there is no such stage with rewards.
    """

    def __init__(self, resolver: Any, text: str, stage: str | None = None):
        from tvg.config import read_prompt
        from tvg.rewards import check

        name, arm = resolver.named(text)
        self.backend = resolver.scale.verbs
        experiment, name, stage = _find(resolver, name, arm, stage)
        written = experiment.stages[stage]
        self.rewards = written.rewards or experiment.rewards
        check(self.rewards, f"{resolver.folder}/experiments/{name}.yaml")
        self.contract = read_prompt(resolver.folder / "prompts", written.prompt or experiment.prompt).answer
        self.scale_rewards = written.scale_rewards
        log.info("rewards of %s.%s: %s", name, stage, ", ".join(self.rewards))

    @cached_property
    def extractor(self) -> Any:
        from tvg.inversion.verbs import extractor

        return extractor(self.backend)

    def reward(self, row: Row) -> Row:
        """{"rewards", "reward"} of one row. Raises ValueError or TvgError for what no reward can be computed of."""
        from tvg.inversion import annotate
        from tvg.rewards import TASKS, Rollout, score, weighted_sum

        given = RewardRow.of(row)
        sample, extractor = given.sample(), None
        if "verbs" in self.rewards and sample.task in TASKS["verbs"]:
            extractor = self.extractor
            sample = sample if sample.verbs is not None else next(annotate([sample], extractor))
        raw = score(self.rewards, Rollout(given.completion, sample), self.contract, extractor)
        if not all(value is None or math.isfinite(value) for value in raw.values()):
            raise ValueError(f"these numbers give no finite reward: {raw}")
        return {"rewards": raw, "reward": weighted_sum(raw, self.rewards)}

    def advantages(self, lines: list[Line]) -> None:
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
    """(experiment, its name, the stage): the one named, or from `evaluate:` along `init:` the first with rewards."""
    experiment = resolver.experiment(name, arm)
    where = f"{resolver.folder}/experiments/{name}.yaml" + ("" if arm == "main" else f": arm '{arm}'")
    known = [key for key, written in experiment.stages.items() if _has_rewards(experiment, written)]
    if stage is not None:
        if stage not in known:
            raise TvgError(
                where, "no such stage with rewards", got=stage, expected=", ".join(known) or "a stage of kind grpo",
                hint=_other(known),
            )  # fmt: skip
        return experiment, name, stage
    source, seen = experiment.evaluate, []
    while (name, source) not in seen:
        seen.append((name, source))
        if source not in experiment.stages and "." in source:
            name, source = source.split(".", 1)
            experiment = resolver.experiment(name)
        if source not in experiment.stages:
            break
        if _has_rewards(experiment, experiment.stages[source]):
            return experiment, name, source
        source = experiment.stages[source].init
    raise TvgError(
        where, "no stage with rewards leads to what is evaluated",
        got="evaluate: " + " <- ".join(source for _, source in seen), expected="a stage of kind grpo on the way",
        hint=_other(known),
    )  # fmt: skip


def _has_rewards(experiment: Any, written: Any) -> bool:
    return hasattr(written, "num_generations") and bool(written.rewards or experiment.rewards)


def _other(known: list[str]) -> str:
    return f"name one: --stage {known[0]}" if known else "name an experiment, or an arm, that trains with rewards"
