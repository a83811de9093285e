"""A network of real nodes on this machine, in processes of their own.

Each node has its own owner, state folder and process group; all share the machine's bundles. Nodes live no longer than
whoever started them: each holds the reading end of a pipe as its standard input and leaves when that ends, however the
starter came to its end. `detached` networks have no such pipe and stay until `record.down`.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ..node import control
from ..node.config import default_home
from ..protocol.errors import Code, ConfigError
from . import record
from .children import Children
from .plan import BUNDLES, NodePlan, plan_nodes, settings
from .record import LocalNode

Progress = Callable[[str, float | None], None]


class Testnet:
    """The nodes that run, as whoever started them commands them. Made by `start`."""

    __test__ = False  # its name begins like a test's

    def __init__(self, directory: Path, nodes: list[LocalNode]) -> None:
        self.directory = directory
        self.nodes = nodes

    @staticmethod
    @asynccontextmanager
    async def start(
        directory: Path,
        *,
        nodes: int | None = None,
        liars: int = 0,
        kinds: Mapping[str, int] | None = None,
        bundles: Sequence[str] = BUNDLES,
        home: Path | None = None,
        detached: bool = False,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[Testnet]:
        """All nodes are ready. When the block ends, none is left, unless they are `detached`.

        `home` is the machine's own (bundles, trust list). Raises `ConfigError` (`bad_config`, `already_running`),
        `EngineError` with a node's own code and words if one does not start; then none is left.
        """
        plans = plan_nodes(nodes, liars, kinds)
        directory = _claimed(directory)
        children = Children(detached)
        testnet = Testnet(directory, [])
        progress = on_progress or (lambda _stage, _fraction: None)
        machine = home or default_home()
        try:
            await _start_all(testnet, children, plans, machine, bundles, progress)
            yield testnet
        except BaseException:
            await children.end(directory)
            raise
        if detached:
            children.let_go()
        else:
            await children.end(directory)

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Addresses that a client joins by."""
        return self.nodes[0].addresses

    def node(self, peer_id: str) -> LocalNode:
        """The node of that name."""
        return next(node for node in self.nodes if node.peer_id == peer_id)

    async def drive(self, node: LocalNode) -> None:
        """The owner has taken the machine back: the node has yielded."""
        await trio.to_thread.run_sync(control.request, node.folder, control.DRIVE)

    async def park(self, node: LocalNode) -> None:
        """The owner has left the machine to the node again."""
        await trio.to_thread.run_sync(control.request, node.folder, control.PARK)

    async def kill(self, node: LocalNode) -> None:
        """The node and its worker have ended without a word."""
        await record.kill(node.process)

    async def freeze(self, node: LocalNode) -> None:
        """The node answers nothing any more, though its connections stay."""
        await node.process.freeze()

    def thaw(self, node: LocalNode) -> None:
        """The node goes on where it was frozen."""
        node.process.send(signal.SIGCONT)


async def _start_all(
    testnet: Testnet,
    children: Children,
    plans: Sequence[NodePlan],
    home: Path,
    bundles: Sequence[str],
    progress: Progress,
) -> None:
    """The first node is ready, then all others, started side by side."""
    ready: dict[str, LocalNode] = {}

    async def start(plan: NodePlan, bootstrap: Sequence[str]) -> None:
        ready[plan.name] = await children.start(plan, testnet.directory, settings_for(plan, bootstrap))
        testnet.nodes[:] = [ready[each.name] for each in plans if each.name in ready]
        record.write(testnet.directory, testnet.nodes)
        progress("starting nodes", len(ready) / len(plans))

    def settings_for(plan: NodePlan, bootstrap: Sequence[str]) -> str:
        state = testnet.directory / plan.name
        lifeline = "" if children.detached else "exit_with_stdin = true\n"
        return settings(plan, state, home, bundles, bootstrap) + lifeline

    progress("starting nodes", 0.0)
    await start(plans[0], ())
    try:
        async with trio.open_nursery() as nursery:
            for plan in plans[1:]:
                nursery.start_soon(start, plan, testnet.bootstrap)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # one sentence for a person: the others were stopped with it


def _claimed(directory: Path) -> Path:
    """The directory, absolute and there. Raises `ConfigError(already_running)` if a network runs in it."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        running = any(node.process.running for node in record.read(directory))
    except ConfigError:
        return directory
    if running:
        raise ConfigError(Code.ALREADY_RUNNING, f"A test network runs in {directory}.")
    return directory
