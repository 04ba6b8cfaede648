"""run.json of an evaluation: what its answers have cost by now, where, with what."""

import json
from collections.abc import Sequence
from pathlib import Path

from tvg import facts
from tvg.sample import write_lines
from tvg.settings import Runtime


class Run:
    """run.json, written after each batch, so that it always tells of `queries` answers that are on disk.

    seconds: of generation alone, neither loading nor frames nor prompts; so seconds / queries is what one answer
    costs among `batch` of them side by side. load_seconds: of loading weights. queries: answers that these seconds
    made, of all tasks. tokens: that they hold. A resumed evaluation goes on counting; where and with what is said of
    the newest start. Before the first answers there is no file.
    """

    def __init__(self, folder: Path, runtime: Runtime, device: str, precision: str, load_seconds: float):
        self.path = folder / "run.json"
        before = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        counts = {key: before.get(key, 0) for key in ("seconds", "load_seconds", "queries", "tokens")}
        self.facts = {
            "started": before.get("started", facts.now()),
            "ended": None,
            "exit": None,
            **facts.here(device),
            "precision": precision,
            "policy": runtime.policy,
            "batch": runtime.evaluate_batch,
            **counts,
        }
        self._add(load_seconds=load_seconds)

    def answered(self, seconds: float, answers: Sequence[Sequence[int]]) -> None:
        """Count a batch of token ids, once their rows are on disk."""
        self._add(seconds=seconds, queries=len(answers), tokens=sum(map(len, answers)))
        self._write()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write how it ended: 130 for Ctrl-C, 1 for any other error."""
        code = 130 if kind is KeyboardInterrupt else int(kind is not None)
        self.facts |= {"ended": facts.now(), "exit": code}
        if self.facts["queries"]:
            self._write()

    def _add(self, **counts: float) -> None:
        self.facts |= {key: round(self.facts[key] + count, 3) for key, count in counts.items()}

    def _write(self) -> None:
        write_lines(self.path, [json.dumps(self.facts, indent=1, ensure_ascii=False)])
