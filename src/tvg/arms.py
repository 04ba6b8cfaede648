"""An experiment as it is run: its file, after an arm's edits and the sizes of a scale."""

from functools import cache
from pathlib import Path
from typing import Any

from tvg.config import Config, Experiment, Scale, check, did_you_mean, experiment_names, read, read_yaml
from tvg.errors import TvgError

MAIN = "main"  # the arm without edits
TRAININGS = ("sft", "grpo", "awbc")


class Arms:
    """Reads config/experiments at the configured scale, each file once. `where` of every error is file and arm."""

    def __init__(self, config: Config, folder: Path):
        self.config, self.folder = config, folder
        self.scale: Scale = read(Scale, folder / "scales", config.scale)
        self.read_raw = cache(self._read_raw)
        self.experiment = cache(self._experiment)

    def _read_raw(self, name: str) -> dict[str, Any]:
        path = self.folder / "experiments" / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in path.parent.glob("*.yaml"))
            raise TvgError(
                path, "no such experiment", got=name, expected=", ".join(known), hint=did_you_mean(name, known)
            )
        return read_yaml(path)

    def arms(self, name: str) -> list[str]:
        """`main`, then the file's arms in their order."""
        return [MAIN, *(self.read_raw(name).get("arms") or {})]

    def selected(self) -> dict[str, list[str]]:
        """Which arms of which experiments the configuration asks for."""
        names = experiment_names(self.folder / "experiments")
        found: dict[str, list[str]] = {}
        for text in names if self.config.experiments == "all" else self.config.experiments:
            name, arm = self.named(text)
            wanted = [arm] if "-" in text else self.arms(name)
            found[name] = [*found.get(name, []), *(one for one in wanted if one not in found.get(name, []))]
        return found

    def exists_here(self, name: str, arm: str = MAIN) -> bool:
        """Does the configured scale run this arm at all?"""
        scales = self.experiment(name, arm).scales
        return scales is None or self.config.scale in scales

    def named(self, text: str) -> tuple[str, str]:
        """`EXPERIMENT` or `EXPERIMENT-ARM` as a person writes it -> (experiment, arm), both of which exist."""
        name, _, arm = text.partition("-")
        arms, arm = self.arms(name), arm or MAIN
        if arm not in arms:
            raise self._no_arm(name, arm, arms)
        return name, arm

    def _no_arm(self, name: str, arm: str, arms: list[str]) -> TvgError:
        where = f"{self.folder}/experiments/{name}.yaml: arm '{arm}'"
        return TvgError(where, "no such arm", got=arm, expected=", ".join(arms), hint=did_you_mean(arm, arms))

    def _experiment(self, name: str, arm: str = MAIN) -> Experiment:
        """The experiment after the arm's edits, then the scale's sizes: what is small enough for a scale stays so."""
        raw = self.read_raw(name)
        arms = raw.get("arms") or {}
        where = f"{self.folder}/experiments/{name}.yaml" + ("" if arm == MAIN else f": arm '{arm}'")
        if arm != MAIN and arm not in arms:
            raise self._no_arm(name, arm, [MAIN, *arms])
        content = _copy(raw)
        for path, value in (arms[arm] or {}).items() if arm != MAIN else ():
            _edit(content, path, value, where)
        if "scales" not in content:
            self._resize(content)
        return check(Experiment, content, where)

    def _resize(self, content: dict[str, Any]) -> None:
        """Lay the scale's sizes over the file's, where the scale may."""
        overlays = self.scale.set
        for kind, overlay in overlays.items():
            for key in overlay:
                if key not in self.scale.may_set:
                    raise TvgError(
                        f"{self.folder}/scales/{self.config.scale}.yaml: set.{kind}.{key}",
                        "a scale may not set this",
                        got=key,
                        expected=", ".join(self.scale.may_set),
                        hint="list it under may_set if it is a size",
                    )
        for stage in content.get("stages", {}).values():
            stage |= overlays.get(stage.get("kind"), {})
            if self.config.steps and stage.get("kind") in TRAININGS:
                stage["steps"] = min(self.config.steps, stage.get("steps") or self.config.steps)
        if "evaluation" in overlays:
            content["evaluation"] = {**content.get("evaluation", {}), **overlays["evaluation"]}


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _edit(content: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Set exactly the dotted leaf; null deletes it."""
    *parents, leaf = path.split(".")
    node = content
    for depth, part in enumerate(parents):
        if not isinstance(node.get(part), dict):
            here = ".".join(parents[: depth + 1])
            raise TvgError(
                where,
                f"this arm edits a missing path: {path}",
                got=here,
                expected=", ".join(map(str, node)),
                hint=did_you_mean(part, list(map(str, node))),
            )
        node = node[part]
    if value is None:
        node.pop(leaf, None)
    else:
        node[leaf] = _copy(value)
