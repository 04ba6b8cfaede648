"""Files of JSON lines that grow with a training, in its stage's folder: metrics, predicted verbs, warnings."""

import json
from contextlib import suppress
from pathlib import Path

from tvg.sample import write_lines


class Rows:
    """Rows that say their `step`, each on disk at once, so that a killed run has told all it knew."""

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> list[dict]:
        if not self.path.exists():
            return []
        rows = []
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                with suppress(ValueError):  # a kill can cut the last line short: its step is run again
                    rows.append(json.loads(line))
        return rows

    def cut(self, step: int) -> None:
        """Forget the rows past the step that training resumes from."""
        if self.path.exists():
            write_lines(self.path, (json.dumps(row) for row in self.rows() if row["step"] <= step))

    def add(self, row: dict) -> None:
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
