"""Homes with the tiny bundles. And Ctrl-C means Ctrl-C: a shell that starts the tests in the background has them ignore
it, and their children would, too."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fallow.models import build
from fallow.node.engine.bundles import BundleStore

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def built_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds both tiny bundles, compiled, and trusted there. For `new_home` to copy, not to use."""
    path = tmp_path_factory.mktemp("built") / "home"
    for name in ("tiny-chat", "tiny-embed"):
        build(name, BundleStore(path / "store"))
    return path


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory, built_home: Path) -> Callable[[], Path]:
    """`new_home()` is a home of its own with both tiny bundles: compiling takes far longer than copying."""

    def new_home() -> Path:
        return Path(shutil.copytree(built_home, tmp_path_factory.mktemp("machine") / "home", symlinks=True))

    return new_home
