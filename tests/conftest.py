"""Homes with the tiny bundles, and what becomes of a test that is out of time. And Ctrl-C means Ctrl-C: a shell that starts
the tests in the background has them ignore it, and their children would, too."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
from pytest_timeout import Settings

from fallow.models import build
from fallow.node.engine.bundles import BundleStore

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = "FALLOW_TESTS_SHARE"
"""A folder of all runs that go on side by side (`tools/test.sh`): compiling the tiny bundles takes 25 s of processor time."""
FIXTURES_S = 900.0
"""For what a test needs, and for putting it away: those 25 s are minutes where twenty processes share two cores, and what is
killed at each of its writes may take 600 s."""
UNWIND_S = 20.0
"""For the tasks of a test that is out of time: they end the processes that they have started."""


@pytest.hookimpl(wrapper=True)
def bounded(item: pytest.Item) -> Generator[None, Any, Any]:
    """The first test of a process waits for what others use, too: that is no time of its own."""
    hooks = item.config.pluginmanager.hook
    hooks.pytest_timeout_set_timer(item=item, settings=Settings(FIXTURES_S, "signal", True, False))
    try:
        return (yield)
    finally:
        hooks.pytest_timeout_cancel_timer(item=item)


pytest_runtest_setup = pytest_runtest_teardown = bounded


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> Generator[None, Any, Any]:
    """Out of time, a test ends by way of its tasks. What is raised where trio waits for events passes its run by: it would
    still be running for every later test of the process."""
    done = yield
    fail: Any = signal.getsignal(signal.SIGALRM)

    def end(number: int, frame: FrameType | None) -> None:
        if trio.lowlevel.in_trio_run():
            signal.signal(signal.SIGALRM, fail)
            signal.setitimer(signal.ITIMER_REAL, UNWIND_S)
            trio.lowlevel.current_trio_token().run_sync_soon(fail, number, frame)
        else:
            fail(number, frame)

    if settings.method == "signal":
        signal.signal(signal.SIGALRM, end)
    return done


@pytest.fixture(scope="session")
def built_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds both tiny bundles, compiled, and trusted there. For `new_home` to copy, not to use."""
    folder = Path(os.environ.get(SHARED) or tmp_path_factory.mktemp("built"))
    path = folder / "home"
    with (folder / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = folder / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was ended in the midst of it
            for name in ("tiny-chat", "tiny-embed"):
                build(name, BundleStore(unfinished / "store"))
            unfinished.rename(path)
    return path


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory, built_home: Path) -> Callable[[], Path]:
    """`new_home()` is a home of its own with both tiny bundles: compiling takes far longer than copying."""

    def new_home() -> Path:
        return Path(shutil.copytree(built_home, tmp_path_factory.mktemp("machine") / "home", symlinks=True))

    return new_home
