"""What would run, what has run, and can it run here: the plan of the configuration, asked before and while it runs."""

import json
from typing import Any

from tvg.cli.shared import Arguments, Declare, add_dials, plan_of, say

NAMES = "EXPERIMENT[-ARM]"


def add(declare: Declare) -> None:
    for run, text, example in (
        (plan, "what would be trained, downloaded and kept now, and what it costs", "invert4tvg --config scale=3b"),
        (status, "how far every training and evaluation is", "time_r1-finetune --config scale=3b"),
        (check, "whether this machine has what the plan needs", "--config scale=3b"),
    ):
        parser = declare(run, text, example)
        if run is not check:
            text = "an experiment (all its arms), or one arm; `-main` is the arm without edits (default: the plan)"
            parser.add_argument("names", nargs="*", metavar=NAMES, help=text)
        add_dials(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object")


def plan(a: Arguments) -> None:
    from tvg.overview import forecast, forecast_text

    found = forecast.forecast(_plan(a), a.names)
    say(json.dumps(forecast_text.as_json(found)) if a.json else forecast_text.as_text(found))


def status(a: Arguments) -> None:
    from tvg.overview import status

    found = status.status(_plan(a), a.names)
    say(json.dumps(status.as_json(found)) if a.json else status.as_text(found))


def check(a: Arguments) -> int:
    from tvg.overview import check

    found = check.check(plan_of(a))
    say(json.dumps(check.as_json(found)) if a.json else check.as_text(found))
    return 1 if check.wrongs(found) else 0


def _plan(a: Arguments) -> Any:
    """The configured plan, and the experiments of which arms are named that config.yaml leaves out."""
    from tvg.plan import Plan

    plan = plan_of(a)
    known = {run[:2] for run in plan.runs} | {(name, arm) for name, arms in plan.left_out.items() for arm in arms}
    lacking: dict[str, None] = {}
    for text in a.names:
        name, arm = plan.resolver.named(text)
        if not {(name, one) for one in ([arm] if "-" in text else plan.resolver.arms(name))} <= known:
            lacking[name] = None
    if not lacking:
        return plan
    return Plan(plan.config.model_copy(update={"experiments": (*plan.config.experiments, *lacking)}), plan.folder)
