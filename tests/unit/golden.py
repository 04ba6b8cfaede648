"""Behaviour under a version number: what a version does never changes, a change takes a new version."""

import hashlib
import json
import os
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden_rewards.json")
REGENERATE = "TVG_REGENERATE_GOLDEN"


def check_golden(name: str, version: int, outcome: object) -> None:
    """The outcome's digest is the one stored for this version."""
    text = json.dumps(outcome, sort_keys=True, ensure_ascii=False)
    now = {"version": version, "digest": hashlib.sha256(text.encode()).hexdigest()}
    stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    before = stored.get(name, {"version": None})
    changed = f"{name} no longer does what its version {version} did: bump its number in VERSIONS"
    assert before["version"] != version or before == now, changed
    if os.environ.get(REGENERATE):
        GOLDEN.write_text(json.dumps(stored | {name: now}, indent=1, sort_keys=True) + "\n")
        return
    assert before == now, f"{name} has a new version: store its behaviour with `{REGENERATE}=1 pytest tests/unit`"
