"""The most GPU memory that a job takes at once, in bytes by part, from its spec and how it runs; torch is not asked.

What stands all the time is exact: weights, gradients, Adam's two moments, the reference. What comes and goes is counted
in bytes a token of a layer (`Layer`), read off the library's layers on small models, where every storage was counted;
tests/unit/test_overview_memory.py counts again. On one H200 with the 3B shape, foretold and measured: 36 and 33 GB (the
stock path's loss), 18 and 16.5 (a prototype of `shared`), 77 and 76 (GRPO, its reference still in float32), 60 and 56
(awbc where half of the rollouts are learnt from). Not counted: what the driver takes, about half a gigabyte, and what
the allocator loses between tensors. What several GPUs take (`gpus`) is counted, and not measured yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import NamedTuple

from tvg.overview.cost.figures import Reference
from tvg.overview.cost.sizes import MERGED, PATCH, Parameters, keys_width, parameters, trained
from tvg.overview.cost.space import HALF, SINGLE, frame_count
from tvg.overview.text import value
from tvg.sample import read_samples
from tvg.settings import Closed, Lora, Runtime
from tvg.spec import AwbcSpec, DataSpec, EvaluationSpec, FilterSpec, SftSpec, StageSpec, Training
from tvg.store import Store
from tvg.video.budget import FACTOR, encoded_frames, pixel_cap

MOMENTS = 2  # of AdamW
LOGITS_AT_ONCE = {"plain": 1 << 28, "shared": 1 << 26}  # tvg.model.plain, tvg.model.shared
PREFILL_TOKENS = 1 << 14  # tvg.model.shared
TEXT_TOKENS = Reference.prompt_tokens - Reference.visual_tokens  # of a question
FITS_ANYWHERE = 8e9  # bytes that any GPU has: no dial is looked for
A_NODE = 8  # GPUs, as the papers' trainings had
WORTH = 0.03  # share of the whole that a dial must save to be named
Moment = tuple[str, dict[str, float]]  # its name, and what comes and goes: name -> bytes
Asks = StageSpec | EvaluationSpec | FilterSpec  # whatever loads a model


class Layer(NamedTuple):
    """Bytes of one layer a token. Pairs: times the hidden size, times the intermediate size."""

    entry: int  # times the hidden size: its input, which checkpointing keeps
    saved: tuple[int, int]  # what its backward pass needs
    backward: tuple[int, int]  # that, and the gradients that flow
    forward: tuple[int, int]  # while it runs and nothing is kept
    cached: int  # times the width of the keys: a key and a value

    def of(self, pair: tuple[int, int], hidden: int, inner: int) -> int:
        return pair[0] * hidden + pair[1] * inner


# By the weights' type: float32 under autocast, whose sums of residuals are float32; bfloat16; float32 throughout.
MIXED = Layer(SINGLE, (34, 8), (42, 16), (10, 8), SINGLE + HALF)
LOW = Layer(HALF, (26, 8), (36, 14), (8, 8), HALF + HALF)
FULL = Layer(SINGLE, (36, 16), (48, 24), (12, 16), SINGLE + SINGLE)


@dataclass(frozen=True)
class Memory:
    """parts: name -> bytes at the moment when most is taken, the largest first. at: that moment."""

    parts: dict[str, float]
    at: str

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Dial:
    """A setting that would lower it. saves: bytes. science: whether the training would be another one."""

    name: str
    now: str
    to: str
    saves: float
    science: bool


class Pass(NamedTuple):
    """One forward and backward pass. tokens: of the language model; patches: of videos; logits: float32 values of the
    vocabulary that are scored; row: those of one completion.
    """

    tokens: float
    patches: float
    logits: float
    row: float
    of: int  # passes of a step


@dataclass(frozen=True)
class _Model:
    """A model as it lies in memory, and how its layers are gone through."""

    counts: Parameters
    layer: Layer
    policy: str

    @property
    def text(self) -> tuple[int, int, int]:
        text = self.counts.shape.text
        return text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]

    @property
    def vision(self) -> tuple[int, int, int]:
        vision = self.counts.shape.vision
        return vision["hidden_size"], vision["intermediate_size"], vision["depth"]

    @property
    def tower(self) -> Layer:
        """The vision tower's: its residuals are of the type that matrices are multiplied in."""
        return self.layer._replace(entry=HALF if self.layer is MIXED else self.layer.entry)

    def copied(self, adapted: bool) -> int:
        """The copy of a training's text weights that `shared` makes rollouts with: of the other type, or adapted."""
        if self.policy != "shared" or (self.layer is FULL and not adapted):
            return 0
        text, tied = self.counts.shape.text, self.counts.shape.tied
        words = text["vocab_size"] * text["hidden_size"]
        layers = self.counts.total - self.counts.vision - words * (1 if tied else 2)
        return (layers + (0 if adapted else words)) * (SINGLE if self.layer is FULL else HALF)

    def reading(self, tokens: float, patches: float) -> float:
        """Activations while nothing is kept, of the part that takes most."""
        pixels = patches * PATCH * (SINGLE + HALF)
        text = tokens * self.layer.of(self.layer.forward, *self.text[:2])
        return max(text, pixels + patches * self.tower.of(self.tower.forward, *self.vision[:2]))

    def generation(self, prompts: int, rows: int, visual: float, completion: float) -> dict[str, float]:
        """`rows` completions of `prompts` prompts side by side."""
        prompt, each = visual + TEXT_TOKENS, keys_width(self.counts.shape.text) * self.text[2]
        if self.policy == "shared":
            each *= 2 * SINGLE if self.layer is FULL else 2 * HALF
            cached, attending = (prompts * prompt + rows * completion) * each, 0.0
            prompts = min(prompts, max(1, int(PREFILL_TOKENS // prompt)))  # read at a time
        else:
            cached = rows * (prompt + completion) * each * self.layer.cached
            attending = rows * (prompt + completion) * self.text[0] * 2 * SINGLE  # one layer's keys of every head
        reading = self.reading(prompts * prompt, prompts * visual * MERGED)
        return {"keys and values": cached, "activations": max(reading, attending)}


# ---------------------------------------------------------------- jobs


def peak(spec: Asks, runtime: Runtime, frames: int | None = None, gpus: int = 1) -> Memory | None:
    """Of a job whose longest video has `frames` sampled frames; None where the model's shape cannot be told.

    gpus: that share a training; the memory is that of one.
    """
    counts = parameters(spec.init if isinstance(spec, Training) else spec.model)
    if counts is None:
        return None
    visual = visual_tokens(spec, frames)
    if isinstance(spec, Training):
        return training(spec, runtime, counts, visual, gpus)
    return asking(spec, runtime, counts, visual)


def training(spec: StageSpec, runtime: Runtime, counts: Parameters, visual: float, gpus: int = 1) -> Memory:
    """Of a training whose prompts hold `visual` visual tokens."""
    spec, layer, learning = _of_each(spec, gpus), layer_of(spec, runtime), trained(spec, counts)
    model, adapters = _Model(counts, layer, runtime.policy), learning if spec.lora else 0
    standing = {
        "weights": counts.total * (HALF if layer is LOW else SINGLE) + adapters * SINGLE,
        "Adam": learning * MOMENTS * SINGLE / (gpus if runtime.shard_optimizer else 1),
        "reference": reference(spec, counts, layer),
        "copy for rollouts": model.copied(spec.lora is not None),
    }
    moments = [*_learning(spec, runtime, model, one_pass(spec, runtime, counts, visual), learning)]
    if gpus > 1:  # gradients stay in what they are summed in
        standing["gradients"] = learning * SINGLE
        moments = [(at, {name: size for name, size in of.items() if name not in standing}) for at, of in moments]
    if isinstance(spec, SftSpec):
        return _most(standing, moments)
    rows = min(runtime.generate_batch, spec.prompts_per_step * spec.num_generations)
    made = model.generation(ceil(rows / spec.num_generations), rows, visual, spec.max_completion_tokens)
    if runtime.policy == "shared":
        standing["keys and values"] = made.pop("keys and values")  # kept for the next step
    moments.append(("generation", made | {"autocast": learning * HALF if layer is MIXED else 0}))
    return _most(standing, moments)


def _of_each(spec: StageSpec, gpus: int) -> StageSpec:
    """What one of so many GPUs does of every step."""
    step = "batch" if isinstance(spec, SftSpec) else "prompts_per_step"
    return spec.model_copy(update={step: max(1, getattr(spec, step) // gpus)})


def reference(spec: StageSpec, counts: Parameters, layer: Layer) -> int:
    """Bytes of the frozen copy of what learns: under autocast in half, but for what is looked up and norms
    (tvg.train.grpo.frozen_copy).
    """
    if not getattr(spec, "beta", 0) > 0 or spec.lora is not None:
        return 0
    learning, text, vision = trained(spec, counts), counts.shape.text, counts.shape.vision
    words = text["vocab_size"] * text["hidden_size"]
    norms = (2 * text["num_hidden_layers"] + 1) * text["hidden_size"] + vision["hidden_size"]
    norms += 0 if spec.freeze_vision else 2 * vision["depth"] * vision["hidden_size"]
    exact = learning if layer is FULL else words + norms
    return exact * SINGLE + (learning - exact) * HALF


def asking(spec: EvaluationSpec | FilterSpec, runtime: Runtime, counts: Parameters, visual: float) -> Memory:
    """Of a job that a model answers."""
    layer = FULL if runtime.precision == "float32" else LOW
    model = _Model(counts, layer, runtime.policy)
    evaluation = isinstance(spec, EvaluationSpec)
    rows = runtime.evaluate_batch if evaluation else runtime.generate_batch
    prompts = rows if evaluation else ceil(rows / spec.num_generations)
    longest = spec.settings.max_completion_tokens if evaluation else spec.max_completion_tokens
    weights = {"weights": counts.total * (HALF if layer is LOW else SINGLE)}
    return _most(weights, [("generation", model.generation(prompts, rows, visual, longest))])


def layer_of(spec: StageSpec, runtime: Runtime) -> Layer:
    """What learns is float32; what an adapter stands on is loaded in the type that matrices are multiplied in."""
    if runtime.precision == "float32":
        return FULL
    return LOW if spec.lora else MIXED


def visual_tokens(spec: Asks, frames: int | None = None) -> float:
    """Of a video of so many sampled frames, at most; without them, of a video that fills `total_pixels`."""
    settings = spec.data.frames.frames
    if frames is None:
        return settings.total_pixels / FACTOR**2
    return encoded_frames(frames, settings) // 2 * (pixel_cap(frames, settings) // FACTOR**2)


def longest(store: Store, data: DataSpec) -> int | None:
    """Sampled frames of the longest video, from samples that are here or as it is drawn; None where nothing tells.

    Where a stage chooses among the samples, of all of them.
    """
    path, drawn = store.samples(data.samples), data.frames.dataset.settings.get("duration")
    if path.exists():
        read = islice(read_samples(path), None if data.made_by else data.limit)
        seconds = max((sample.duration for sample in read), default=None)
    else:
        seconds = max(drawn) if data.frames.dataset.kind == "mini" and drawn else None
    return None if seconds is None else frame_count(seconds, data.frames.frames)


def one_pass(spec: StageSpec, runtime: Runtime, counts: Parameters, visual: float) -> Pass:
    """What is learnt from at a time, every completion as long as it may be (a target of an SFT: as was measured)."""
    if isinstance(spec, SftSpec):
        total, group, completion = spec.batch, 1, Reference.completion_tokens
    else:
        total, group = spec.prompts_per_step * spec.num_generations, spec.num_generations
        completion = spec.max_completion_tokens
    rows, prompt = rows_per_pass(total, runtime.rollouts_per_pass, group), visual + TEXT_TOKENS
    groups, of = rows // group, total // rows
    if isinstance(spec, AwbcSpec):
        rows -= groups  # not all of a group are better than its mean, and the others are not run
    row = (completion + 1) * counts.shape.text["vocab_size"]
    tokens = groups * prompt + rows * completion if runtime.policy == "shared" else rows * (prompt + completion)
    return Pass(tokens, groups * visual * MERGED, rows * row, row, of)


def rows_per_pass(total: int, at_most: int, group: int) -> int:
    """As tvg.train.arguments cuts a step, which this room may not import: it would load torch."""
    groups = total // group
    return group * max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * group <= at_most))


def _learning(spec: StageSpec, runtime: Runtime, model: _Model, one: Pass, learning: int) -> Iterator[Moment]:
    """The moments of forward, loss and backward, and of the optimiser's step."""
    gradients, recompute = learning * SINGLE, runtime.gradient_checkpointing
    before = gradients if one.of > 1 else 0  # of the passes before this one
    cast = learning * HALF if model.layer is MIXED else 0
    text, tower = model.layer, model.tower
    kept_text = one.tokens * model.text[0] * 2 * text.entry + _kept(text, *model.text, one.tokens, recompute)
    sees = spec.lora is None and not spec.freeze_vision
    kept_vision = _kept(tower, *model.vision, one.patches, recompute) if sees else 0
    kept, forward, backward = kept_text + kept_vision, *_logits(one, model.policy)
    reading = model.reading(one.tokens, one.patches)
    yield "forward", {"activations": kept + reading, "gradients": before, "autocast": cast}
    yield "loss", {"activations": kept, "logits": forward, "gradients": before, "autocast": cast}
    copies = 0 if recompute else cast  # without checkpointing, the backward pass needs them
    yield "loss", {"activations": kept, "logits": backward, "gradients": before, "autocast": copies}
    inner = one.tokens * _inner(text, *model.text[:2], recompute)
    # In a single pass gradients come as activations go: one of the two is small.
    for grown, left in ((before, kept), (gradients, kept if before else kept_vision)):
        yield "backward", {"activations": left + inner, "gradients": grown, "autocast": copies}
    if sees:
        inner = one.patches * (_inner(tower, *model.vision[:2], recompute) + PATCH * (SINGLE + HALF))
        yield "backward, vision tower", {"activations": kept_vision + inner, "gradients": gradients}
    yield "optimiser step", {"gradients": gradients}


def _kept(layer: Layer, hidden: int, inner: int, layers: int, tokens: float, recompute: bool) -> float:
    """From the forward pass to the backward pass."""
    return tokens * layers * (layer.entry * hidden if recompute else layer.of(layer.saved, hidden, inner))


def _inner(layer: Layer, hidden: int, inner: int, recompute: bool) -> int:
    """Of the layer that the backward pass is in, a token: all of it where it is computed again."""
    whole, saved = layer.of(layer.backward, hidden, inner), layer.of(layer.saved, hidden, inner)
    return whole if recompute else whole - saved


def _logits(one: Pass, policy: str) -> tuple[float, float]:
    """Bytes in the forward and in the backward pass: `plain` keeps them all in float32, `shared` a few at a time."""
    most = LOGITS_AT_ONCE[policy]
    if policy == "shared":
        return (4 * SINGLE * min(one.logits, most),) * 2
    at_once = min(one.logits, max(1, most // one.row) * one.row)
    forward = SINGLE * one.logits + max(HALF * one.logits, 2 * SINGLE * at_once)
    return forward, 2 * SINGLE * one.logits + min(SINGLE * one.logits, 2 * SINGLE * at_once)


def _most(standing: dict[str, float], moments: list[Moment]) -> Memory:
    """The moment that takes most."""
    at, coming = max(moments, key=lambda moment: sum(moment[1].values()))
    parts = {name: size for name, size in (standing | coming).items() if size}
    return Memory(dict(sorted(parts.items(), key=lambda part: -part[1])), at)


# ---------------------------------------------------------------- what would lower it


def dials(spec: Asks, runtime: Runtime, frames: int | None = None) -> list[Dial]:
    """Settings that would save something worth it, each by itself; those first that change no result."""
    now = peak(spec, runtime, frames)
    if now is None or now.total < FITS_ANYWHERE:
        return []
    found = []
    for name, (old, new), changed, how, *gpus in _edits(spec, runtime):
        saves = now.total - peak(changed, how, frames, *gpus).total
        if saves >= WORTH * now.total:
            found.append(Dial(name, _told(old), _told(new), saves, changed is not spec))
    return sorted(found, key=lambda dial: (dial.science, -dial.saves))


def _edits(spec: Asks, runtime: Runtime) -> Iterator[tuple]:
    """(name, old and new value, spec, runtime), with one setting turned, and the GPUs where it wants several."""
    group = getattr(spec, "num_generations", 1)
    how = {"policy": "shared", "precision": "auto"}
    what: dict = {}
    match spec:
        case EvaluationSpec():
            how |= {"evaluate_batch": 1}
        case FilterSpec():
            how |= {"generate_batch": group}
        case _:
            how |= {"gradient_checkpointing": True, "rollouts_per_pass": group, "generate_batch": group}
            what = {"lora": Lora(), "freeze_vision": True, "beta": 0.0}
            what |= {"max_completion_tokens": getattr(spec, "max_completion_tokens", 2) // 2}
    for name, new in how.items():
        yield name, (getattr(runtime, name), new), spec, runtime.model_copy(update={name: new})
    if isinstance(spec, Training):
        shared = runtime.model_copy(update={"shard_optimizer": True})
        yield "shard_optimizer", ("on one GPU", f"on {A_NODE} GPUs"), spec, shared, A_NODE
    for name, new in what.items():
        if name in type(spec).model_fields:
            yield name, (getattr(spec, name), new), spec.model_copy(update={name: new}), runtime
    settings, path = spec.data.frames.frames, ("data", "frames", "frames", "total_pixels")
    half = settings.total_pixels // 2
    yield "total_pixels", (settings.total_pixels, half), _with(spec, path, half), runtime


def _with(spec: Closed, path: tuple[str, ...], given: object) -> Closed:
    """The spec with one value deep inside it changed."""
    name, *rest = path
    return spec.model_copy(update={name: _with(getattr(spec, name), tuple(rest), given) if rest else given})


def _told(given: object) -> str:
    if isinstance(given, Lora):
        return f"r {given.r}"
    return f"{given:,}" if type(given) is int else value(given)
