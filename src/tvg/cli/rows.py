"""What a row of the text-in, text-out commands must hold. Keys that are not here are nobody's business: passed on."""

import json
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from tvg.evaluate.protocols import Answer
from tvg.sample import INVERSION_TASKS, Sample, Task
from tvg.segment import Segment


def _label(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a string or a number")
    return value


Label = Annotated[Any, AfterValidator(_label)]  # names a query or a group; equal labels are one
Pair = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
Pairs = Annotated[list[Pair], Field(min_length=1)]


class Checked(BaseModel):
    """Types are not converted: "3" is no number, true no number, 3 no text."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Raises ValueError that says what is wrong with the first key that is wrong."""
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            if first["type"] == "missing":
                raise ValueError(f"key {place!r} is missing") from None
            what = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            got = f", got {json.dumps(first['input'])[:60]}" if place else ""
            raise ValueError(f"{place}: {what}{got}".removeprefix(": ")) from None


class TextRow(Checked):
    """A row of `tvg parse` and `tvg verbs`."""

    text: str


class RewardRow(Checked):
    """A rollout and its truth, as `tvg reward` reads it. What the task does not read may be absent or null."""

    completion: str
    task: Task = "ground"
    segment: Pair | None = None
    segments: Pairs | None = None
    duration: FiniteFloat | None = None
    query: str | None = None
    verbs: list[str] | None = None
    group: Label = None

    @model_validator(mode="after")
    def complete(self) -> Self:
        if self.segment is not None and self.segments is not None:
            raise ValueError("either 'segment' or 'segments', not both")
        absent = []
        if self.task == "ground":
            absent += ["segment"] if self.segment is None and self.segments is None else []
            absent += ["duration"] if self.duration is None else []
        if self.task in INVERSION_TASKS and self.query is None and self.verbs is None:
            absent = ["query"]
        if absent:
            raise ValueError(f"key {absent[0]!r} is missing")
        return self

    def sample(self) -> Sample:
        """The truth as given: nothing is clipped, ordered or repaired."""
        segments = self.segments or ([self.segment] if self.segment else [])
        return Sample(
            id="of this row",
            video="",
            duration=self.duration or 0.0,
            query=self.query or "",
            segments=tuple(Segment(*segment) for segment in segments),
            task=self.task,
            verbs=None if self.verbs is None else tuple(self.verbs),
        )


class ProbedRow(RewardRow):
    """A rollout with what a probe has measured of it; null or absent where none has."""

    logprob_drop: FiniteFloat | None = None


class PredictionRow(Checked):
    """An answer to one query: the text, for the protocol's own parser, or else the pair of seconds or null."""

    id: Label
    completion: str | None = None
    predicted: Pair | None = None

    @model_validator(mode="after")
    def answered(self) -> Self:
        if self.completion is None and "predicted" not in self.model_fields_set:
            raise ValueError("neither 'completion' nor 'predicted'")
        return self

    def answer(self) -> Answer:
        return Answer(self.completion, Segment(*self.predicted) if self.predicted else None)


class TruthRow(Checked):
    """A query's true segments. `video`, `duration` and `query` may stand beside them; no protocol reads them."""

    id: Label
    segments: Pairs

    def true(self) -> tuple[Segment, ...]:
        return tuple(Segment(*segment) for segment in self.segments)
