"""Shared test helpers."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(relative: str) -> Path:
    """A file of the development data, or skip: the README's commands never need it."""
    path = SHARED_DATA / relative
    if not path.exists():
        pytest.skip(f"development data not present: shared/data/{relative}")
    return path
