"""Faults as they are made and unmade in a test network that runs, by anybody who may signal its processes.

What begins and what ends is written to `faults.jsonl` in the network's folder, before it begins and after it has ended: who
looks there knows at any moment what is not as it should be.
"""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from ..node import control
from ..node.causes import leaves
from ..node.log import wall_ms
from ..protocol.errors import Code, ConfigError
from . import clock, record, shaping, starting
from .faults import FAULTS, Fault
from .record import LocalNode, Network

LOG: Final = "faults.jsonl"


async def begin(directory: Path, fault: Fault) -> None:
    """The fault is there, and noted. Raises `ConfigError`, before anything has happened, for one that cannot be made here."""
    network = await trio.to_thread.run_sync(record.read_network, directory)
    nodes = [network.find(name) for name in fault.nodes]
    if FAULTS[fault.name].network and not all(node.place for node in nodes):
        raise ConfigError(
            Code.BAD_CONFIG, f"The fault {fault.name} needs a network whose nodes have namespaces of their own."
        )
    note(directory, fault, "begin")
    await _begin(directory, network, nodes, fault)


async def end(directory: Path, fault: Fault) -> None:
    """The fault is over, as far as that is ours to do, and noted."""
    network = await trio.to_thread.run_sync(record.read_network, directory)
    await _end(directory, network, [network.find(name) for name in fault.nodes], fault)
    note(directory, fault, "end")


async def _begin(directory: Path, network: Network, nodes: Sequence[LocalNode], fault: Fault) -> None:
    match fault.name:
        case "kill":
            await _each(lambda node: record.kill(node.process), nodes)
        case "restart":
            await record.stop(node.process for node in nodes)
            await _each(lambda node: starting.start_again(directory, node), nodes)
        case "freeze":
            await _each(lambda node: node.process.freeze(), nodes)
        case "drive-away":
            await _each(drive, nodes)
        case "full-disk":
            _fill_disk(nodes, full=True)
        case "clock-skew":
            for node in nodes:
                clock.set_skew(node.folder, fault.amount)
        case name:
            await trio.to_thread.run_sync(shaping.begin, name, fault.amount, network, nodes)


async def _end(directory: Path, network: Network, nodes: Sequence[LocalNode], fault: Fault) -> None:
    match fault.name:
        case "kill":
            await _each(lambda node: starting.start_again(directory, node), nodes)
        case "restart":
            pass
        case "freeze":
            for node in nodes:
                thaw(node)
        case "drive-away":
            await _each(park, nodes)
        case "full-disk":
            _fill_disk(nodes, full=False)
        case "clock-skew":
            for node in nodes:
                clock.set_skew(node.folder, 0)
        case name:
            await trio.to_thread.run_sync(shaping.end, name, network, nodes)


async def drive(node: LocalNode) -> None:
    """The owner has taken the machine back: the node has yielded."""
    await trio.to_thread.run_sync(control.request, node.folder, control.DRIVE)


async def park(node: LocalNode) -> None:
    """The owner has left the machine to the node again."""
    await trio.to_thread.run_sync(control.request, node.folder, control.PARK)


def thaw(node: LocalNode) -> None:
    """The node goes on where it was frozen."""
    node.process.send(signal.SIGCONT)


def _fill_disk(nodes: Sequence[LocalNode], *, full: bool) -> None:
    """No file grows by a node's hand, nor by its worker's: the kernel says EFBIG where a full disk says ENOSPC.

    It is a process's own limit, and needs neither a disk of its own for each node nor any privilege. What it also stops, and
    a full disk would not, are files in memory: a worker cannot be started meanwhile.
    """
    for node in nodes:
        for process in (node.process, *node.process.descendants()):
            with suppress(ProcessLookupError):  # it has just ended
                if process.running:
                    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0 if full else most, most))


async def _each(do: Callable[[LocalNode], Awaitable[object]], nodes: Sequence[LocalNode]) -> None:
    async def one(node: LocalNode) -> None:
        await do(node)

    try:
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(one, node)
    except ExceptionGroup as group:
        raise next(leaves(group)) from group  # callers know single errors only


def note(directory: Path, fault: Fault, act: str) -> None:
    """A line of the log says that the fault begins, or has ended."""
    line = {"time_ms": wall_ms(), "act": act, "fault": fault.name, "nodes": list(fault.nodes), "amount": fault.amount}
    with (directory / LOG).open("a") as log:
        log.write(json.dumps(line) + "\n")


def active(directory: Path) -> list[Fault]:
    """What has begun and not ended."""
    faults: list[Fault] = []
    path = directory / LOG
    for line in path.read_text().splitlines() if path.exists() else ():
        noted = json.loads(line)
        fault = Fault(noted["fault"], tuple(noted["nodes"]), noted["amount"])
        if noted["act"] == "begin":
            faults.append(fault)
        elif fault in faults:
            faults.remove(fault)
    return [fault for fault in faults if fault.name != "restart"]
