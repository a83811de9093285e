"""A network of real node processes with the tiny bundles, a liar among them, run by the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from . import function

COMMAND = [sys.executable, "-P", "-m", "fallow.cli"]
"""`-P`: the repository's root, where tests start, is not to be searched for modules."""
LIMIT_S = 120


@dataclass
class Shell:
    """Runs `fallow` with its own home."""

    home: Path
    bootstrap: str = ""
    nodes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FALLOW_HOME": str(self.home), "FALLOW_BOOTSTRAP": self.bootstrap}

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=self.environment)

    def json(self, *words: str | Path) -> Any:
        """What the command prints with `--json`: one object, and nothing else."""
        ran = self(*words, "--json")
        assert ran.returncode == 0, ran.stderr
        (line,) = ran.stdout.splitlines()
        return json.loads(line)

    @contextmanager
    def running(self, *words: str | Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
        """The command while it runs, with the first line that it printed; stopped by SIGTERM if it still runs."""
        with subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                yield process, json.loads(line)
            finally:
                process.terminate()
                process.wait(LIMIT_S)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A machine on which nothing has been done yet."""
    return Shell(tmp_path / "home")


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, new_home: Callable[[], Path]) -> Iterator[Shell]:
    """Four nodes of four owners, the last a liar, and the shell of a client that knows where to join."""
    directory = tmp_path_factory.mktemp("cli")
    shell = Shell(new_home())
    function.build(shell.home)
    words = ("testnet", "up", "--dir", directory / "net", "--kinds", "host=1,site=1,vehicle=1,robot=1", "--liars", "1")
    with shell.running(*words, "--bundles", f"tiny-chat,tiny-embed,{function.NAME}", "--json") as (process, up):
        shell.bootstrap, shell.nodes = ",".join(up["bootstrap"]), up["nodes"]
        yield shell
        process.terminate()
        assert process.wait(LIMIT_S) == 0
