"""Questions as chat messages, and canonical answers for supervised targets."""

from tvg.errors import TvgError
from tvg.sample import Sample
from tvg.spec import Prompt

# A form to imitate, nothing more: reinforcement learning is left to find what is worth thinking.
REASONING = {
    "ground": "I look through the video.",
    "complete_verb": "I look at the clip.",
    "recognise_action": "I look at the clip.",
    "describe": "I look at the clip.",
    "caption": "I look through the video.",
}


def render(prompt: Prompt, sample: Sample) -> list[dict[str, str]]:
    """Chat messages of the sample's task; {query} and {masked} are replaced literally, whatever the query holds."""
    if sample.task not in prompt.texts:
        raise TvgError(
            f"prompt for sample {sample.id}",
            "no text for this task",
            got=sample.task,
            expected=f"one of {', '.join(prompt.texts)}",
            hint="add the task to the prompt file's texts",
        )
    text = prompt.texts[sample.task].strip()
    text = text.replace("{masked}", sample.masked or "").replace("{query}", sample.query.strip())
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


def target(sample: Sample) -> str:
    """The canonical response in the think-answer form; a sample's own completion wins."""
    if sample.completion is not None:
        return sample.completion
    return f"<think>{REASONING[sample.task]}</think> <answer>{answer(sample)}</answer>"
