"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def real_data():
    """real_data("videos/OHOFG.mp4") -> its path; skips where the folder of real test data is absent."""
    root = Path(os.environ.get("TVG_TEST_DATA", REPO.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"real test data absent: {name} (set TVG_TEST_DATA to the folder that holds it)")
        return root / name

    return find
