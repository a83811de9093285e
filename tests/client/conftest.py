"""A home with the two tiny bundles, for real nodes and a real client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()
