"""`testnet.json`: what of a test network other processes need to know, and what they can do with it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from ..node import control
from ..protocol.errors import Code, ConfigError, FallowError, StoreError
from .processes import ProcessId

RECORD = "testnet.json"
STOP_S = 5.0
"""From SIGTERM to SIGKILL: a node that yields waits a second for its last vouchers, beside others that do so."""
REAP_S = 5.0
"""From SIGKILL to gone; freeing a worker's memory takes 0.15 s."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One running node. `liar` is for people to read: nothing tells a client."""

    peer_id: str
    owner: str
    """The owner's public key, in hex."""
    kind: str
    pid: int
    started_ticks: int
    state: str
    """Its state folder."""
    addresses: tuple[str, ...]
    liar: bool

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.started_ticks)

    @property
    def folder(self) -> Path:
        return Path(self.state)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node of a test network as it is now."""

    node: LocalNode
    state: str
    """What it says of itself; `gone` if its process has ended, `silent` if it does not answer."""
    reasons: tuple[str, ...]
    memory_bytes: int
    """Proportional share of the daemon and its worker."""


def write(directory: Path, nodes: Sequence[LocalNode]) -> None:
    """The record is there, whole."""
    bootstrap = nodes[0].addresses if nodes else ()
    content = {"bootstrap": bootstrap, "nodes": [asdict(node) for node in nodes]}
    scratch = directory / f".{RECORD}"
    scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    scratch.replace(directory / RECORD)


def read(directory: Path) -> list[LocalNode]:
    """The nodes that were started. Raises `ConfigError(not_running)`, `StoreError(corrupt_store)`."""
    path = directory / RECORD
    try:
        nodes = json.loads(path.read_text())["nodes"]
        return [LocalNode(**{**node, "addresses": tuple(node["addresses"])}) for node in nodes]
    except FileNotFoundError:
        raise ConfigError(Code.NOT_RUNNING, f"No test network runs in {directory}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(Code.CORRUPT_STORE, f"{path} cannot be read ({error}); it was left as it is.") from None


async def status(directory: Path) -> list[NodeStatus]:
    """Every node as it is now, each asked itself. Raises as `read`."""
    nodes = read(directory)
    found: dict[str, NodeStatus] = {}

    async def ask(node: LocalNode) -> None:
        found[node.peer_id] = await trio.to_thread.run_sync(_status_of, node, abandon_on_cancel=True)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    return [found[node.peer_id] for node in nodes]


async def down(directory: Path) -> list[LocalNode]:
    """No process of the network is left; returns the nodes that were running. Raises as `read`."""
    nodes = read(directory)
    running = [node for node in nodes if node.process.running]
    await stop(node.process for node in running)
    (directory / RECORD).unlink(missing_ok=True)
    return running


async def stop(processes: Iterable[ProcessId]) -> None:
    """Nodes and their workers have ended: told to, and after `STOP_S` killed."""
    async with trio.open_nursery() as nursery:
        for process in processes:
            nursery.start_soon(_stop_one, process)


async def kill(process: ProcessId) -> None:
    """The node has ended without having been told, and its worker, which loses its control socket, after it."""
    workers = process.descendants()
    process.send(signal.SIGKILL)
    await _gone(process, *workers)


async def _stop_one(process: ProcessId) -> None:
    workers = process.descendants()
    process.send(signal.SIGTERM)
    process.send(signal.SIGCONT)  # it may be frozen
    with trio.move_on_after(STOP_S):
        await process.ended()
    process.send(signal.SIGKILL)
    await _gone(process, *workers)


async def _gone(*processes: ProcessId) -> None:
    with trio.move_on_after(REAP_S):
        for process in processes:
            await process.ended()
    for process in processes:
        process.send(signal.SIGKILL)
        with trio.move_on_after(REAP_S):
            await process.ended()


def _status_of(node: LocalNode) -> NodeStatus:
    process = node.process
    if not process.running:
        return NodeStatus(node, "gone", (), 0)
    memory = sum(each.memory_bytes for each in (process, *process.descendants()))
    try:
        reply = control.request(node.folder, control.STATUS)
    except FallowError as error:
        return NodeStatus(node, "silent", (error.message,), memory)
    reasons = reply.get("reasons")
    texts = tuple(map(str, reasons)) if isinstance(reasons, list) else ()
    return NodeStatus(node, str(reply.get("state")), texts, memory)
