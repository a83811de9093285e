"""A node of a test network is started, and started again: by whoever may open the socket of the one that forks them."""

from __future__ import annotations

import json
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from ..node.control import reachable
from ..protocol.errors import Code, ConfigError, EngineError
from . import clock, record
from .natlab import Place
from .plan import toml
from .processes import ProcessId, process_of
from .record import LocalNode

READY_S = 180.0
"""From start to ready: ten workers side by side on two cores take 20 s with a warm compile cache, minutes without."""
CONFIG = "node.toml"
ERRORS = "stderr.log"
_SAID_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Started:
    """A node's process, and what it said when it was ready."""

    process: ProcessId
    peer_id: str
    addresses: tuple[str, ...]


async def start(directory: Path, state: Path, place: Place | None, command: Sequence[str] = ()) -> Started:
    """The node whose folder this is, with its settings in it, is ready.

    Raises `ConfigError(not_running)` without a zygote, `EngineError` with the code and the words that the node ended with.
    """
    errors = state / ERRORS
    asked = {
        "name": state.name,
        "config": str(state / CONFIG),
        "errors": str(errors),
        "clock": str(clock.prepare(state)),
        "namespace": place.namespace if place else "",
        "command": list(command),
    }
    before = errors.stat().st_size if errors.exists() else 0
    process: ProcessId | None = None
    try:
        with reachable(directory, record.ZYGOTE_SOCKET) as address, trio.socket.socket(socket.AF_UNIX) as connection:
            await _connect(connection, address, directory)
            await connection.send(json.dumps(asked).encode() + b"\n")
            with trio.move_on_after(READY_S):
                lines = _Lines(connection)
                pid = _parsed(await lines.next()).get("pid")
                process = process_of(pid) if isinstance(pid, int) else None
                said = _parsed(await lines.next())
                addresses = said.get("addresses")
                if process and isinstance(addresses, list):
                    return Started(process, str(said["peer_id"]), tuple(map(str, addresses)))
    except BaseException:
        await _give_up(process)
        raise
    await _give_up(process)
    raise _failure(state.name, errors, before)


async def start_again(directory: Path, node: LocalNode) -> LocalNode:
    """The node, which has ended, is ready once more, at the addresses that it had, and the record knows its new process.

    Raises as `start`.
    """
    config = node.folder / CONFIG
    table = tomllib.loads(config.read_text())
    config.write_text(toml(table | {"listen": _listened(node)}))
    started = await start(directory, node.folder, node.place, node.command)
    again = replace(
        node, pid=started.process.pid, started_ticks=started.process.started_ticks, addresses=started.addresses
    )
    await trio.to_thread.run_sync(record.change, directory, again)
    return again


def _listened(node: LocalNode) -> list[str]:
    """Where it listens from now on: at the port that it was given at first, as a machine with settings of its own does."""
    direct = [re.fullmatch(r"/ip4/([^/]+)/tcp/(\d+)/p2p/[^/]+", address) for address in node.addresses]
    ports = [found[2] for found in direct if found]
    where = "0.0.0.0" if node.place else "127.0.0.1"
    return [f"/ip4/{where}/tcp/{ports[0] if ports else 0}"]


async def _connect(connection: trio.socket.SocketType, address: str, directory: Path) -> None:
    try:
        await connection.connect(address)
    except OSError:
        raise ConfigError(
            Code.NOT_RUNNING, f"No test network runs in {directory}: its nodes' parent is gone."
        ) from None


class _Lines:
    """What comes, line by line; an empty one at the end."""

    def __init__(self, connection: trio.socket.SocketType) -> None:
        self._connection = connection
        self._received = b""

    async def next(self) -> bytes:
        while b"\n" not in self._received:
            part = await self._connection.recv(4096)
            if not part or len(self._received) > _SAID_BYTES_MAX:
                return b""
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line


def _parsed(line: bytes) -> Mapping[str, object]:
    try:
        value: object = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _give_up(process: ProcessId | None) -> None:
    """A node that does not get ready is stopped, even while everything is being cancelled: bounded in time."""
    if process:
        with trio.CancelScope(shield=True):
            await record.stop([process])


def _failure(name: str, log: Path, before: int) -> EngineError:
    """Why the node did not start, with the code that it gave itself."""
    lines = log.read_bytes()[before:].decode(errors="replace").strip().splitlines() if log.exists() else []
    last = lines[-1] if lines else f"it said nothing in {READY_S:g} s, or ended without a word."
    said = re.fullmatch(r"error: (.*) \[([a-z_]+)\].*", last)
    if said and said[2] in set(Code):
        return EngineError(Code(said[2]), f"Node {name} did not start: {said[1]}")
    return EngineError(Code.WORKER_FAILED, f"Node {name} did not start: {last}")
