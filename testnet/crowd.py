"""The clients of a chaos run: processes of their own, honest ones that ask, and adversaries that join as clients do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ..node.trust import FILE_NAME
from . import adversaries, load, record
from .errands import JOBS
from .local import Testnet

CLIENTS: Final = "clients"
"""Of a run's folder: the clients' homes."""
SAID: Final = "said.log"
TOLD_S: Final = load.FINISH_S + load.SETTLE_S + 10.0
"""For a client that was told to leave."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many ask, for what, and how."""

    folder: Path
    """Of the run."""
    home: Path
    """The machine's, whose trust list they have."""
    seed: int
    assurance: str
    clients: int
    at_once: int
    pause_ms: int

    @property
    def homes(self) -> list[Path]:
        """Of the honest ones."""
        return [self.folder / CLIENTS / f"{number}" for number in range(self.clients)]


@asynccontextmanager
async def asking(crowd: Crowd, testnet: Testnet) -> AsyncIterator[list[str]]:
    """Clients ask all the while; afterwards they have finished and left, or were ended if they did not.

    Yields what went wrong with them, which is complete at the end.
    """
    broken: list[str] = []
    running = [_start(crowd, testnet, number, home) for number, home in enumerate(crowd.homes)]
    wicked = [_start_adversary(crowd, testnet, number, name) for number, name in enumerate(testnet.plan.clients)]
    try:
        yield broken
        for process in wicked:
            process.send_signal(signal.SIGTERM)
        for process in running:
            if process.stdin:
                process.stdin.close()
        with trio.move_on_after(TOLD_S):
            for process in (*running, *wicked):
                await _ended(process)
        for number, name in enumerate(testnet.plan.clients):
            said = _wicked_home(crowd, number, name) / SAID
            broken += [
                f"{name} got away with this: {line}" for line in said.read_text().splitlines() if _got_away(line)
            ]
        for home, process in zip(crowd.homes, running, strict=True):
            if process.poll() != 0:
                what = "did not leave" if process.returncode is None else f"ended with status {process.returncode}"
                broken.append(f"client {home.name} {what}; {home / SAID} says more")
    finally:
        for process in (*running, *wicked):
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()


def _start(crowd: Crowd, testnet: Testnet, number: int, home: Path) -> subprocess.Popen[bytes]:
    chat, embed = testnet.plan.bundles[:2]
    words = [
        sys.executable, "-P", "-m", f"{__package__}.load", "--bootstrap", _bootstrap(testnet), "--home", str(home),
        "--chat", chat, "--embed", embed, "--assurance", crowd.assurance, "--seed", str(crowd.seed),
        "--client", str(number), "--at-once", str(crowd.at_once), "--pause-ms", str(crowd.pause_ms),
        "--out", str(crowd.folder / JOBS),
    ]  # fmt: skip
    return _spawn(crowd, testnet, words, home)


def _start_adversary(crowd: Crowd, testnet: Testnet, number: int, name: str) -> subprocess.Popen[bytes]:
    home = _wicked_home(crowd, number, name)
    words = [
        *adversaries.find(name).command(), "--bootstrap", _bootstrap(testnet), "--home", str(home),
        "--bundle", testnet.plan.bundles[0],
    ]  # fmt: skip
    return _spawn(crowd, testnet, words, home)


def _wicked_home(crowd: Crowd, number: int, name: str) -> Path:
    return crowd.folder / CLIENTS / f"{name}-{number}"


def _got_away(line: str) -> bool:
    """Whether the adversary says of a trick that nothing stopped it. (One that a fault broke off says something else.)"""
    try:
        return json.loads(line).get("stopped_by") == ""
    except (ValueError, AttributeError):
        return False


def _spawn(crowd: Crowd, testnet: Testnet, words: Sequence[str], home: Path) -> subprocess.Popen[bytes]:
    """The client's process, in the client's place; an honest one ends with us, since it reads our end of a pipe."""
    home.mkdir(parents=True, exist_ok=True)
    if (crowd.home / FILE_NAME).exists():
        shutil.copy(crowd.home / FILE_NAME, home / FILE_NAME)
    client = record.read_network(testnet.directory).ground.client
    with (home / SAID).open("wb") as said:
        return subprocess.Popen(
            client.command(words) if client else words,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            process_group=0,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def _bootstrap(testnet: Testnet) -> str:
    """One address each of the first nodes: any of them may be gone when a client comes."""
    return ",".join(node.addresses[0] for node in testnet.nodes[:3] if node.addresses)


async def _ended(process: subprocess.Popen[bytes]) -> None:
    handle = os.pidfd_open(process.pid) if process.poll() is None else None
    if handle is not None:
        try:
            await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)
