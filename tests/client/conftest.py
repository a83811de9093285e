"""A home with the two tiny bundles, for real nodes and a real client."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallow.models import build
from fallow.node.engine.bundles import BundleStore


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    for name in ("tiny-chat", "tiny-embed"):
        build(name, BundleStore(path / "store"))
    return path
