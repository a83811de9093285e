"""Real nodes as processes, with the tiny bundles; and the client's half of a job, written on the protocol alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fallow.models import build
from fallow.node import control
from fallow.node.engine.bundles import BundleStore
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Network, Validator
from fallow.protocol.published import check_published_untrusted, newest

from ..moments import pause

READY_S = 120


@dataclass(frozen=True)
class Home:
    """A home directory with a store that holds both tiny bundles, trusted."""

    path: Path
    chat: str
    embed: str

    @property
    def store(self) -> BundleStore:
        return BundleStore(self.path / "store")


@pytest.fixture(scope="session")
def home(new_home: Callable[[], Path]) -> Home:
    path = new_home()
    store = BundleStore(path / "store")
    return Home(path, build("tiny-chat", store), build("tiny-embed", store))


@dataclass
class Daemon:
    """One node process, ready."""

    process: subprocess.Popen[str]
    state: Path
    ready: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.ready["addresses"][0])

    def command(self, word: str) -> dict[str, object]:
        return control.request(self.state, word)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit status after the signal."""
        self.process.send_signal(how)
        return self.process.wait(20)

    def events(self, *wanted: str) -> list[dict[str, Any]]:
        """All that are in its log, once those that are wanted are among them: it is written beside everything else."""
        deadline = time.monotonic() + READY_S
        while True:
            found = [json.loads(line) for line in (self.state / "node.log").read_text().splitlines()]
            if {event["event"] for event in found}.issuperset(wanted):
                return found
            assert time.monotonic() < deadline, (wanted, found)
            pause()


def launch(folder: Path, home: Home, **settings: object) -> subprocess.Popen[str]:
    """A node process over the settings; `state` is in the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    table: dict[str, object] = {
        "state": "state", "home": str(home.path), "bundles": ["tiny-chat", "tiny-embed"], "bootstrap": [],
        "spare_worker": False, **settings,
    }  # fmt: skip
    path = folder / "node.toml"
    path.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in table.items()))
    command = [sys.executable, "-m", "fallow.node", "--config", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _toml(value: object) -> str:
    """JSON's texts, numbers and lists are TOML's, too; its objects are not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def failure(folder: Path, home: Home, **settings: object) -> str:
    """What a node that cannot start says on standard error."""
    process = launch(folder, home, **settings)
    said, complaint = process.communicate(timeout=READY_S)
    assert (process.returncode, said) == (1, "")
    return complaint


Start = Callable[..., Daemon]


@pytest.fixture(scope="module")
def start(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts nodes, and kills those that still run at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path | None = None, **settings: object) -> Daemon:
        folder = folder or tmp_path_factory.mktemp("node")
        process = launch(folder, home, **settings)
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
        return Daemon(process, folder / "state", json.loads(line))

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def node(start: Start) -> Daemon:
    """One node that all tests of a module share."""
    return start()


@pytest.fixture
async def network(node: Daemon) -> AsyncIterator[Network]:
    """A client's network, joined through the shared node."""
    async with client_network([node.address]) as network:
        yield network


def client_network(bootstrap: Sequence[str]) -> Any:
    """An open network with a fresh key."""
    rules = Validator(
        validate=lambda key, value: check_published_untrusted(key, value, wall_ms()),
        select=lambda key, values: newest(values, wall_ms()),
    )
    return open_network(os.urandom(32), [], bootstrap, rules, mode="client")
