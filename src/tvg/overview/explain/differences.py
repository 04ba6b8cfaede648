"""What is not as it might be: an arm against the main arm, the file against the paper, the scale against the file."""

from collections.abc import Iterator
from typing import Any

from tvg.arms import MAIN
from tvg.config import DataSource, StageSource
from tvg.overview.explain.subject import Subject, split, weights
from tvg.overview.sources import header, is_ours, paper_value
from tvg.overview.text import bullets, columns, heading, paragraph, sentence, value
from tvg.settings import Closed
from tvg.spec import Floor, HubModel, PathModel

NAMES = ("kind", "init", "model", "data", "prompt")
NOTHING_SAID = "No comment in the file says so of any entry in use."


def arm(subject: Subject) -> list[str]:
    """The arm's edits against the main arm; nothing for the main arm itself."""
    if subject.arm == MAIN:
        return []
    edits = [_edit(subject, path, to) for path, to in subject.edits.items()]
    return [
        *heading(f"The arm `{subject.arm}`"),
        *paragraph(sentence(subject.purpose or "")),
        *paragraph("Against the main arm:" if edits else "It edits nothing: it is the main arm."),
        *bullets(edits),
    ]


def _edit(subject: Subject, path: str, to: Any) -> str:
    before, now = _at(subject.main, path), _at(subject.written, path)
    source = subject.source(path)
    told = f" [{source}]" if source and source != subject.purpose else ""
    if to is None:
        return f"`{path}`: left out; in the main arm {_shown(before)}{told}"
    if before is None:
        return f"`{path}`: added, {_shown(now)}{told}"
    return f"`{path}`: from {_shown(before)} to {_shown(now)}{told}"


def _shown(given: Any) -> str:
    """A value as the file writes it: of a whole stage what is written, of released weights their name."""
    if isinstance(given, StageSource | DataSource):
        return value({key: getattr(given, key) for key in given.model_fields_set})
    return weights(given) if isinstance(given, HubModel | PathModel) else value(given)


def _at(node: Any, path: str) -> Any:
    """The value at a dotted path of a checked experiment, defaults included; None where nothing is."""
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else getattr(node, part, None)
    return node


def paper(subject: Subject) -> list[str]:
    """Every setting in use whose comment says that the paper has it otherwise, or not at all."""
    lines = []
    for path, given, source in _settings(subject):
        theirs = paper_value(source)
        if is_ours(source) and theirs != value(given):
            shown = f"{value(given)} here, {theirs} in the paper" if theirs else value(given)
            lines.append(f"`{path}`: {shown} [{source}]")
    return [*heading("What differs from the paper"), *(bullets(lines) or paragraph(NOTHING_SAID))]


def _settings(subject: Subject) -> Iterator[tuple[str, Any, str | None]]:
    """(dotted path, value in the file, source) of all that the file writes for this arm; a reward is one setting."""
    written = subject.written
    for name, given in written.rewards.items():
        yield f"rewards.{name}", given, subject.source(f"rewards.{name}")
    parts: dict[str, Closed] = {f"stages.{name}": written.stages[name] for name in subject.stages}
    for path, part in (parts | {"evaluation": written.evaluation}).items():
        for field in [field for field in type(part).model_fields if field in part.model_fields_set]:
            given = getattr(part, field)
            if field in NAMES and subject.source(f"{path}.{field}") == subject.source(path):
                continue  # the comment is on the whole stage, and no name is a number of it
            if field == "rewards":
                for name, reward in given.items():
                    yield f"{path}.rewards.{name}", reward, subject.source(f"{path}.rewards.{name}")
            else:
                yield f"{path}.{field}", given, subject.source(f"{path}.{field}")


def scale(subject: Subject) -> list[str]:
    """What the base model and the roles are here, and every size that the scale sets over the file's."""
    about = header(subject.resolver.folder / "scales" / f"{subject.scale}.yaml")
    if subject.experiment.scales:
        sizes = paragraph("The file states its own sizes: no scale resizes it.")
    else:
        sizes = bullets(_sizes(subject)) or paragraph("It changes no size: every number is the file's.")
    return [
        *heading("What this scale changes"),
        *paragraph(f"{subject.scale}: {about}" if about else ""),
        *columns(_roles(subject)),
        *sizes,
    ]


def _roles(subject: Subject) -> list[tuple[str, str]]:
    rows = [(role, split(data).replace("`", "")) for role, data in subject.reads.items()]
    if "base" not in subject.starts:
        return rows
    base = subject.base(subject.resolver.model("base", subject.name, subject.arm, subject.run.seed))
    return [("base", base.replace("`", "").removeprefix(f"at {subject.scale} ")), *rows]


def _sizes(subject: Subject) -> Iterator[str]:
    written, told = subject.written, subject.experiment
    pairs = {f"stages.{name}": (written.stages[name], told.stages[name]) for name in subject.stages}
    if not isinstance(subject.evaluated.model, Floor):
        pairs["evaluation"] = (written.evaluation, told.evaluation)
    for path, (before, now) in pairs.items():
        for field in type(now).model_fields:
            if getattr(before, field) != getattr(now, field):
                where = "in the file" if field in before.model_fields_set else "by default"
                old, new = value(getattr(before, field)), value(getattr(now, field))
                yield f"`{path}.{field}`: {old} {where}, {new} at {subject.scale}"
