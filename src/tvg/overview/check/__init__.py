"""Can the plan run here? Each line says ok, warning, WRONG or not needed; what is WRONG has what mends it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from tvg.overview.check import installed, machine, outside
from tvg.overview.check.finding import Finding, ok, wrong
from tvg.overview.forecast import Forecast, forecast
from tvg.overview.layout import several, table
from tvg.overview.sources import unsourced
from tvg.overview.text import WIDTH, listed
from tvg.plan import Plan
from tvg.settings import Closed

SHOWN = 3  # numbers without a source that are named


def check(plan: Plan) -> list[Finding]:
    """Looks at the machine and asks servers; writes nothing. Takes seconds, more where an address does not answer."""
    return list(_findings(plan, forecast(plan)))


def _findings(plan: Plan, found: Forecast) -> Iterator[Finding]:
    jobs: list[Closed] = [plan.specs[one.id] for one in (*found.to_train(), *found.to_choose(), *found.to_evaluate())]
    yield installed.python()
    yield from installed.libraries()
    yield from installed.verbs(jobs)
    yield from machine.folders(plan, found)
    yield from machine.disk(plan, found)
    yield from machine.gpus(plan, jobs)
    yield outside.tracking(plan)
    yield from outside.models(jobs)
    yield from outside.data(plan.store, jobs)
    yield from _sources(plan)


def _sources(plan: Plan) -> Iterator[Finding]:
    """Numbers in the planned experiments that nobody vouches for."""
    names = dict.fromkeys(name for name, _, _ in plan.runs)
    bare = 0
    for name in names:
        path = plan.folder / "experiments" / f"{name}.yaml"
        if lost := unsourced(path):
            bare += 1
            told = listed([f"{one.path} (line {one.line})" for one in lost[:SHOWN]])
            more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
            mend = f"write it at the end of the line, after a #: {path}"
            yield wrong(f"sources {name}", f"a number without a source: {told}{more}", mend)
    if not bare:
        yield ok("sources", f"every number in {several(len(names), 'experiment')} says where it is from")


def wrongs(found: Iterable[Finding]) -> int:
    return sum(one.verdict == "WRONG" for one in found)


# ---------------------------------------------------------------- on a terminal


def as_json(found: list[Finding]) -> dict[str, Any]:
    return {"wrong": wrongs(found), "findings": [asdict(one) for one in found]}


def as_text(found: list[Finding]) -> str:
    """Readable at 100 columns; a command stands on a line of its own, whole, so that it can be pasted."""
    lines = []
    wide = max(len(one.what) for one in found)
    for one in found:
        lines += table((one.verdict.ljust(10), one.what.ljust(wide), one.detail), (), WIDTH)
        lines += [f"            mend: {one.mend}"] if one.mend else []
    bad = wrongs(found)
    return "\n".join([*lines, "", f"{several(bad, 'thing is', 'things are')} wrong." if bad else "Nothing is wrong."])
