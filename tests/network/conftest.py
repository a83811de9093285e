"""Nodes of this process and of others, each ended with its test."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import trio

from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.reach import ITSELF, Reach
from fallow.node.network.seam import Validator
from fallow.protocol.errors import Code, RemoteProtocolError

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def _validate(key: str, value: bytes) -> None:
    if not value.startswith(b"ok"):
        raise RemoteProtocolError(Code.BAD_RECORD, f"{key}: not ok")


VALIDATOR = Validator(_validate, lambda key, values: max(range(len(values)), key=lambda index: values[index]))


class Peer:
    """A node in another process."""

    def __init__(self, process: trio.Process, errors: IO[bytes]) -> None:
        self.process = process
        self._errors = errors
        self.key = b""
        self.addresses: tuple[str, ...] = ()
        self._unread = b""

    async def _line(self) -> Any:
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            more = await self.process.stdout.receive_some()
            assert more, "the peer's process ended"
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    async def ready(self) -> None:
        hello = await self._line()
        self.key, self.addresses = bytes.fromhex(hello["key"]), tuple(hello["addresses"])

    async def call(self, *order: str) -> Any:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")
        return await self._line()

    def complaints(self) -> str:
        """What it wrote on standard error."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def _running_peer(seed: bytes, bootstrap: Sequence[str]) -> AsyncIterator[Peer]:
    script = Path(__file__).with_name("peer.py")
    command = [sys.executable, str(script), seed.hex(), LOOPBACK, *bootstrap]
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, after the process that writes to it
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    peer = Peer(process, errors)
    try:
        with trio.fail_after(60):
            await peer.ready()
        yield peer
    finally:
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await peer.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()
            errors.close()


async def _hold(context: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """The context stays entered, in a task of its own, until the test ends."""
    async with context as entered:
        task_status.started(entered)
        await trio.sleep_forever()


@pytest.fixture
def start_peer(nursery: trio.Nursery) -> Callable[..., Awaitable[Peer]]:
    """Starts a node in another process: `await start_peer(1, bootstrap)`."""

    async def start(number: int, bootstrap: Sequence[str] = ()) -> Peer:
        peer: Peer = await nursery.start(_hold, _running_peer(_seed(number), bootstrap))
        return peer

    return start


@pytest.fixture
def start_node(nursery: trio.Nursery) -> Callable[..., Awaitable[Mesh]]:
    """Starts a node in this process: `await start_node(1, bootstrap, mode="client", listen="")`. Its number makes its
    seed, or is its seed."""

    async def start(
        number: int | bytes,
        bootstrap: Sequence[str] = (),
        listen: str = LOOPBACK,
        mode: Any = "server",
        reach: Reach = ITSELF,
        rules: Validator = VALIDATOR,
        known: Sequence[str] = (),
    ) -> Mesh:
        seed = _seed(number) if isinstance(number, int) else number
        where = [listen] if listen else []
        network = open_network(seed, where, bootstrap, rules, mode=mode, reach=reach, known=known)
        with trio.fail_after(30):
            mesh: Mesh = await nursery.start(_hold, network)
        return mesh

    return start


def _seed(number: int) -> bytes:
    return hashlib.sha256(b"a test's node %d" % number).digest()
