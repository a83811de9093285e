"""`testnet.json`: what of a test network other processes need to know, and what they can do with it."""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trio

from ..node import control
from ..protocol.errors import Code, ConfigError, FallowError, StoreError
from . import natlab
from .processes import ProcessId

RECORD = "testnet.json"
ZYGOTE_SOCKET = "zygote.sock"
"""Where the parent of the nodes is asked for another. Named here: who asks it has no need of all that it imports."""
LOCK = ".testnet.lock"
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
    name: str = ""
    """In the plan, such as `2-vehicle`; faults and logs go by it."""
    adversary: str = ""
    """What it does to others; empty if it is honest."""
    region: str = ""
    place: natlab.Place | None = None
    """Where it lives, if it has a network namespace of its own."""
    command: tuple[str, ...] = ()
    """The program that runs in the node's place, if another does."""

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


@dataclass(frozen=True, slots=True)
class Ground:
    """What the nodes stand on."""

    zygote: ProcessId | None = None
    """The process that forks them, and by which they end."""
    namespaces: tuple[str, ...] = ()
    """Network namespaces that were made for them."""
    wire: str = ""
    """The one in which all public places are joined."""
    client: natlab.Place | None = None
    """Where a client stands, who could not reach them from outside."""


@dataclass(frozen=True, slots=True)
class Network:
    """All that is recorded."""

    nodes: list[LocalNode] = field(default_factory=list)
    ground: Ground = Ground()

    def find(self, name: str) -> LocalNode:
        """The node of that name, or whose peer id ends so. Raises `ConfigError(bad_config)`."""
        found = [node for node in self.nodes if name and (node.name == name or node.peer_id.endswith(name))]
        if len(found) != 1:
            known = ", ".join(node.name for node in self.nodes)
            raise ConfigError(Code.BAD_CONFIG, f"No one node of this network goes by {name!r}; here are {known}.")
        return found[0]


def write(directory: Path, nodes: Sequence[LocalNode], ground: Ground = Ground()) -> None:
    """The record is there, whole."""
    bootstrap = nodes[0].addresses if nodes else ()
    content = {"bootstrap": bootstrap, "nodes": [asdict(node) for node in nodes], "ground": asdict(ground)}
    scratch = directory / f".{RECORD}"
    scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    scratch.replace(directory / RECORD)


def change(directory: Path, node: LocalNode) -> None:
    """The record has this node in the place of the one with its peer id. Raises as `read`."""
    with _locked(directory):
        network = read_network(directory)
        nodes = [node if each.peer_id == node.peer_id else each for each in network.nodes]
        write(directory, nodes, network.ground)


def read(directory: Path) -> list[LocalNode]:
    """The nodes that were started. Raises `ConfigError(not_running)`, `StoreError(corrupt_store)`."""
    return read_network(directory).nodes


def read_network(directory: Path) -> Network:
    """The nodes that were started, and what they stand on. Raises as `read`."""
    path = directory / RECORD
    try:
        content = json.loads(path.read_text())
        return Network([_node(node) for node in content["nodes"]], _ground(content.get("ground") or {}))
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
    """No process of the network is left, nor a namespace; returns the nodes that were running. Raises as `read`."""
    network = read_network(directory)
    running = [node for node in network.nodes if node.process.running]
    await stop(node.process for node in running)
    await clear(directory, network.ground)
    return running


async def clear(directory: Path, ground: Ground) -> None:
    """What the nodes stood on is gone, and so is the record."""
    if ground.zygote:
        await stop([ground.zygote])
    await trio.to_thread.run_sync(natlab.raze, ground.namespaces)
    (directory / RECORD).unlink(missing_ok=True)


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


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody else changes the record meanwhile: the starter and a command may restart nodes at the same time."""
    with (directory / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _node(content: dict[str, Any]) -> LocalNode:
    place = content.get("place")
    lists = {name: tuple(content.get(name, ())) for name in ("addresses", "command")}
    return LocalNode(**{**content, **lists, "place": natlab.Place(**place) if place else None})


def _ground(content: dict[str, Any]) -> Ground:
    zygote, client = content.get("zygote"), content.get("client")
    return Ground(
        ProcessId(**zygote) if zygote else None,
        tuple(content.get("namespaces", ())),
        content.get("wire", ""),
        natlab.Place(**client) if client else None,
    )


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
