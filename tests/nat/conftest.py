"""A lab with homes behind routers, and processes in its places, each ended with its test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fallow.testnet.natlab import Lab, Place, lab, missing

WIRE = "/ip4/0.0.0.0/tcp/4001"
WIRE_6 = "/ip6/::/tcp/4001"


class Host:
    """A process in a place, which does as it is told. It is reached by `key`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        hello = self._line()
        self.key: str = hello["key"]
        self.addresses: list[str] = hello["addresses"]

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the host's process ended"
        return json.loads(line)

    def begin(self, *order: str) -> None:
        """It has been told; `answer` waits for what it says."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        return self._line()

    def call(self, *order: str) -> Any:
        self.begin(*order)
        return self.answer()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def built() -> Iterator[Lab]:
    """An empty lab, for all tests of a module; without root or nft, they are skipped."""
    if reason := missing():
        if os.environ.get("FALLOW_NEED_ALL"):
            pytest.fail(f"no NAT lab can be built: {reason}")
        pytest.skip(f"no NAT lab can be built: {reason}")
    with lab() as built:
        yield built


Start = Callable[..., Host]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a host in a place: `start(place, 1, bootstrap, way="relayed", mode="client", relay=True, lan=True)`."""
    with starter() as start:
        yield start


@pytest.fixture(scope="module")
def start_for_all() -> Iterator[Start]:
    """As `start`, for all tests of a module."""
    with starter() as start:
        yield start


@contextmanager
def starter() -> Iterator[Start]:
    hosts: list[subprocess.Popen[str]] = []

    def start(
        place: Place, number: int, bootstrap: list[str] | None = None, *, way: str = "direct", mode: str = "server",
        relay: bool = False, lan: bool = False, wire: str = WIRE,
    ) -> Host:  # fmt: skip
        settings = {
            "seed": bytes([number] * 32).hex(), "listen": [wire] if mode == "server" else [],
            "bootstrap": bootstrap or [], "way": way, "mode": mode, "relay": relay, "lan": lan,
        }  # fmt: skip
        script = Path(__file__).with_name("peer.py")
        command = place.command([sys.executable, str(script), json.dumps(settings)])
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hosts.append(process)
        return Host(process)

    try:
        yield start
    finally:
        for process in hosts:
            process.kill()
            process.communicate()
