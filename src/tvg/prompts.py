"""Questions as chat messages, and canonical answers for supervised targets."""

import re
from math import ceil, floor

from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.settings import AnswerContract, Prompt

# A form to imitate, nothing more: reinforcement learning is left to find what is worth thinking.
REASONING = {
    "ground": "I look through the video.",
    "complete_verb": "I look at the clip.",
    "recognise_action": "I look at the clip.",
    "describe": "I look at the clip.",
    "caption": "I look through the video.",
}


def render(prompt: Prompt, sample: Sample) -> list[dict[str, str]]:
    """Chat messages of the sample's task; {query} and its like are replaced literally, whatever the query holds."""
    if sample.task not in prompt.texts:
        raise TvgError(
            f"prompt for sample {sample.id}",
            "no text for this task",
            got=sample.task,
            expected=f"one of {', '.join(prompt.texts)}",
            hint="add the task to the prompt file's texts",
        )
    text = prompt.texts[sample.task].strip()
    said = {"query": sample.query.strip(), "masked": sample.masked or "", "removed": sample.removed or ""}
    text = re.sub(r"\{(query|masked|removed)\}", lambda found: said[found[1]], text)
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": text}]


def answer(sample: Sample) -> str:
    """What the answer element should hold: the segment with two decimals, or the words of an inversion task."""
    match sample.task:
        case "ground":
            start, end = sample.segments[0]
            return f"{start:.2f} to {end:.2f}"
        case "recognise_action":
            return (sample.verbs or ("",))[0]
        case _:
            return sample.query.strip()


def target(sample: Sample, contract: AnswerContract | None = None, opening: str | None = None) -> str:
    """The canonical response in the contract's form (default: think and answer); a sample's own completion wins.

    opening: a reasoning to begin with, its `<think>` included, where the form has room for one.
    """
    if sample.completion is not None:
        return sample.completion
    opening = opening or f"<think>{REASONING[sample.task]}"
    think, said, form = f"{opening}</think>", answer(sample), (contract or AnswerContract()).format_of(sample.task)
    if form == "fmt_answer":
        return f"<answer>{said}</answer>"
    if sample.task != "ground":
        return f"{think} <answer>{said}</answer>"
    start, end = sample.segments[0]
    match form:
        case "fmt_tvg":
            return f"{think} <time>[{start:.2f}, {end:.2f}]</time>"
        case "fmt_taro":
            return f"{think} <answer>{start:.2f}s to {end:.2f}s</answer>"
        case "fmt_tar" | "fmt_tar_free":
            named = " ".join(f"<timestamp>{a:.2f} to {b:.2f}</timestamp>" for a, b in _narrowing(start, end, contract))
            return f"{opening} {named}</think> <answer>{said}</answer>"
        case _:
            return f"{think} <answer>{said}</answer>"


def _narrowing(start: float, end: float, contract: AnswerContract) -> list[tuple[float, float]]:
    """As many estimates as the contract wants: the first on whole seconds, the last the segment itself."""
    steps = contract.anchors - 1
    left = [1 - k / steps if steps else 0.0 for k in range(contract.anchors)]
    return [(start - part * (start - floor(start)), end + part * (ceil(end) - end)) for part in left]
