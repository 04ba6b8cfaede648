"""The rollout engine: one token for every row at a time, on prompts that were encoded once.

The rows of a group share their prompt's keys and values, and attention over them is one product for the whole group.
On CUDA the step is a graph of kernels (tvg.model.kernels) that is recorded once and replayed; elsewhere the same step
runs in plain torch.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from tvg.model.logits import logits, working_dtype
from tvg.model.policy import Completion, Sampling
from tvg.model.sampling import choose, suppress, uniforms
from tvg.model.slots import Slots
from tvg.model.steps import Steps, TorchSteps
from tvg.model.weights import Weights

ROOM = 256  # on CUDA, prompts get room in multiples of it, so that a recorded graph serves the next step too
LOOK = 16  # tokens between two looks at whether every row has ended: a look waits for the GPU


class Groups:
    """Rows in groups of one size, each on one prompt. A prompt with more rows than that stands for several groups.

    prompts: the prompt of each group. order: the rows as the groups hold them, one group behind the other.
    """

    def __init__(self, index: Sequence[int]):
        counts = Counter(index)
        self.size = math.gcd(*counts.values())
        self.prompts = [prompt for prompt in sorted(counts) for _ in range(counts[prompt] // self.size)]
        self.order = sorted(range(len(index)), key=index.__getitem__)

    def of(self, prompt: int) -> list[int]:
        """The groups of a prompt."""
        return [group for group, each in enumerate(self.prompts) if each == prompt]


class Engine:
    """Rollouts of one model. Keeps its slots and its recorded steps for the next call of the same shape."""

    def __init__(self, suppressed: Tensor, ends: frozenset[int]):
        self._suppressed, self._ends = suppressed, ends
        self.weights: Weights | None = None
        self.steps: Steps | None = None
        self._recorded: dict[tuple[float, float], torch.cuda.CUDAGraph] = {}

    def start(self, core: nn.Module, index: Sequence[int], lengths: Sequence[int], room: int) -> Groups:
        """Read the model's weights and make room for rows on prompts index[row], of lengths[prompt] tokens."""
        dtype = working_dtype(core.lm_head.weight)
        if self.weights is None or not self.weights.are_of(core, dtype):
            self.steps, self.weights = None, Weights(core, dtype)
            self.suppressed = self._suppressed.to(core.device)
            self.ends = torch.tensor(sorted(self._ends), dtype=torch.long, device=core.device)
        self.weights.refresh()
        groups, prompt = Groups(index), max(lengths)
        if self.steps is None or not _fits(self.steps.slots, groups, len(index), prompt, room):
            self.release()
            prompt = prompt if core.device.type == "cpu" else -(-prompt // ROOM) * ROOM
            self.steps = _steps(self.weights, Slots.make(self.weights, len(groups.prompts), len(index), prompt, room))
        return groups

    def release(self) -> None:
        """Give the memory of keys and values back."""
        self.steps, self._recorded = None, {}

    def keep(
        self, groups: Groups, first: int, lengths: Sequence[int], layer: int, keys: Tensor, values: Tensor
    ) -> None:
        """Keys and values (L, kv heads, head dim) of the prompts from `first` on, which lie one behind the other."""
        for both, states in enumerate((keys, values)):
            for prompt, own in enumerate(states.split(list(lengths)), start=first):
                for group in groups.of(prompt):
                    self.steps.slots.prompts[layer, both, group, :, : len(own)] = own.transpose(0, 1)

    # ---------------------------------------------------------------- tokens

    def run(
        self, groups: Groups, after: Tensor, resume: Sequence[int], lengths: Sequence[int], sampling: Sampling,
        seeds: Sequence[int], prefixes: Sequence[list[int]],
    ) -> list[Completion]:  # fmt: skip
        """Whole completions, from each prompt's logits (prompts, V), the position after it, and its length."""
        slots, most = self.steps.slots, sampling.max_new_tokens
        self._fill(groups, resume, lengths, sampling, seeds, prefixes)
        rows_of = torch.tensor(groups.prompts, device=after.device).repeat_interleave(groups.size)
        graph = self._record(sampling) if slots.tokens.is_cuda and most > 1 else None
        self._restart()
        self._choose(after[rows_of], sampling)
        for done in range(1, most):
            if (graph is None or done % LOOK == 0) and bool(slots.ended.all()):
                break
            if graph is None:
                self._advance(sampling)
            else:
                graph.replay()
        return self._completions(groups, prefixes, most)

    def _fill(self, groups, resume, lengths, sampling, seeds, prefixes) -> None:
        """What the rows begin from, in the order of the slots."""
        slots, most = self.steps.slots, sampling.max_new_tokens
        of_row = [prompt for prompt in groups.prompts for _ in range(groups.size)]
        slots.lengths.copy_(torch.tensor([lengths[prompt] for prompt in groups.prompts]))
        slots.resume.copy_(torch.tensor([resume[prompt] for prompt in of_row]))
        slots.draws[:, :most].copy_(uniforms([seeds[row] for row in groups.order], most))
        forced = torch.full(slots.forced.shape, -1)
        for place, row in enumerate(groups.order):
            forced[place, : len(prefixes[row])] = torch.tensor(prefixes[row], dtype=torch.long)
        slots.forced.copy_(forced)
        slots.forced_lengths.copy_((forced >= 0).sum(1))

    def _restart(self) -> None:
        slots = self.steps.slots
        slots.ended.zero_()
        slots.count.zero_()
        slots.now = 0

    def _advance(self, sampling: Sampling) -> None:
        """Feed the newest token of each row, and choose the next."""
        slots = self.steps.slots
        newest = slots.tokens.index_select(1, slots.count - 1).squeeze(1)
        hidden = embedding(newest, self.weights.embed).float()
        states = self.steps.forward(hidden, slots.resume + slots.count - 1)
        self._choose(logits(states, self.weights.head), sampling)

    def _choose(self, after: Tensor, sampling: Sampling) -> None:
        """The next token of each row from its logits (R, V)."""
        slots, now = self.steps.slots, self.steps.slots.count
        after = suppress(after, self.suppressed)
        free = choose(after, slots.draws.index_select(1, now).squeeze(1), sampling.temperature, sampling.top_p)
        forced = slots.forced.index_select(1, now).squeeze(1)
        token = torch.where(forced < 0, free, forced)
        scaled = after / (sampling.temperature or 1.0)
        logp = scaled.gather(1, token[:, None]) - scaled.logsumexp(1, keepdim=True)
        slots.tokens.index_copy_(1, now, token[:, None])
        slots.logps.index_copy_(1, now, logp)
        slots.ended |= torch.isin(token, self.ends) & (now + 1 >= slots.forced_lengths)
        slots.count += 1
        slots.now += 1

    def _record(self, sampling: Sampling) -> torch.cuda.CUDAGraph:
        """The step as a graph. Running it first compiles its kernels; what that writes, `_restart` forgets."""
        key = (sampling.temperature, sampling.top_p)
        if key not in self._recorded:
            slots = self.steps.slots
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                slots.count.fill_(1)
                self._advance(sampling)
            torch.cuda.current_stream().wait_stream(aside)
            slots.count.fill_(1)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._advance(sampling)
            self._recorded[key] = graph
        return self._recorded[key]

    def _completions(self, groups: Groups, prefixes: Sequence[list[int]], most: int) -> list[Completion]:
        """Each row's tokens up to its end token, in the order of the caller's rows."""
        slots, found = self.steps.slots, {}
        count = min(int(slots.count), most)
        tokens, logps = slots.tokens[:, :count].tolist(), slots.logps[:, :count].tolist()
        for place, row in enumerate(groups.order):
            least = max(1, len(prefixes[row]))
            length = next((n for n in range(least, count + 1) if tokens[place][n - 1] in self._ends), count)
            found[row] = Completion(tokens[place][:length], logps[place][:length])
        return [found[row] for row in range(len(groups.order))]


def _fits(slots: Slots, groups: Groups, rows: int, prompt: int, room: int) -> bool:
    """Slots may be longer than needed, on CUDA, where what is not used costs no time; elsewhere it would."""
    has = slots.shape
    same = has[:2] == (len(groups.prompts), rows)
    longer = has[2] >= prompt and has[3] >= room
    return same and longer and (slots.tokens.is_cuda or has[2:] == (prompt, room))


def _steps(weights: Weights, slots: Slots) -> Steps:
    if weights.device.type != "cuda":
        return TorchSteps(weights, slots)
    from tvg.model.kernels import KernelSteps  # triton comes with torch's CUDA builds alone

    return KernelSteps(weights, slots)
