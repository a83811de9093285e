"""A machine with the tiny bundles, and a way to see which processes were left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fallow.testnet.processes import ProcessId, process_of

TINY = ("tiny-chat", "tiny-embed")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory whose store holds both tiny bundles, trusted there."""
    path = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "fallow.cli", "bundle", "build", *TINY]
    subprocess.run(command, env={**os.environ, "FALLOW_HOME": str(path)}, check=True, stdout=subprocess.DEVNULL)
    return path


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
