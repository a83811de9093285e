"""A machine with the tiny bundles, and a way to see which processes were left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fallow.testnet.processes import ProcessId, process_of

from .small_mesh import SmallMesh, running


@pytest.fixture(scope="session")
def home(new_home: Callable[[], Path]) -> Path:
    """A home directory whose store holds both tiny bundles, trusted there."""
    return new_home()


@pytest.fixture(scope="session")
def small_mesh(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallMesh]:
    """Two honest nodes and three adversaries, for all tests that need some: starting them takes longer than most tests."""
    with running(new_home(), tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


@pytest.fixture
def processes_of() -> Callable[[Path], list[ProcessId]]:
    """Running processes with the directory in their command line: nodes by their configuration, workers by their store."""

    def find(directory: Path) -> list[ProcessId]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if os.fsencode(directory) in words and (process := process_of(int(entry.name))):
                    found.append(process)
        return found

    return find
