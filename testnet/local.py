"""A network of real nodes on this machine, in processes of their own.

Each node has its own owner (unless the plan has several share one), state folder and process group; all share the machine's
bundles. Nodes live no longer than whoever started them, however the starter came to its end: they end with the process that
forked them (`zygote`), and that one with its starter. `detached` networks stay until `record.down`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from ..node.config import default_home
from ..node.keys import load_or_create
from ..protocol.errors import Code, ConfigError
from . import injecting, natlab, record, starting
from .children import Children
from .faults import Fault
from .natlab import Place
from .plan import BUNDLES, NodePlan, Plan, command_of, housed, plan_nodes, settings
from .record import LocalNode

Progress = Callable[[str, float | None], None]

OWNERS = "owners"
"""Of the network's folder: the keys of owners who have several nodes."""
AT_ONCE = 5
"""Nodes that start side by side, for each core: on two cores, all of a network of ten. More would only take each other's memory
while they wait, and the last of fewer would start alone."""


class Testnet:
    """The nodes that run, as whoever started them commands them. Made by `start`."""

    __test__ = False  # its name begins like a test's

    def __init__(self, directory: Path, nodes: list[LocalNode], plan: Plan) -> None:
        self.directory = directory
        self.nodes = nodes
        self.plan = plan

    @staticmethod
    @asynccontextmanager
    async def start(
        directory: Path,
        *,
        nodes: int | None = None,
        liars: int = 0,
        kinds: Mapping[str, int] | None = None,
        bundles: Sequence[str] = BUNDLES,
        plan: Plan | None = None,
        home: Path | None = None,
        detached: bool = False,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[Testnet]:
        """All nodes are ready. When the block ends, none is left, unless they are `detached`.

        A `plan` says all that the other words could. `home` is the machine's own (bundles, trust list). Raises
        `ConfigError` (`bad_config`, `already_running`), `EngineError` with a node's own code and words if one does not
        start, or with the system's if there can be no namespaces; then none is left.
        """
        plan = plan or Plan(tuple(plan_nodes(nodes, liars, kinds)), tuple(bundles))
        if plan.namespaces:
            plan = replace(plan, nodes=housed(plan.nodes))
            if why := natlab.missing():
                raise ConfigError(Code.BAD_CONFIG, f"No network namespaces can be made here: {why}.")
        directory = _claimed(directory)
        children = Children(directory, detached=detached)
        testnet = Testnet(directory, [], plan)
        try:
            await _start_all(testnet, children, home or default_home(), on_progress or (lambda _stage, _fraction: None))
            yield testnet
        except BaseException:
            await children.end()
            raise
        if detached:
            children.let_go()
        else:
            await children.end()

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Addresses that a client joins by."""
        return self.nodes[0].addresses

    def node(self, peer_id: str) -> LocalNode:
        """The node of that name."""
        return next(node for node in self.nodes if node.peer_id == peer_id)

    async def begin(self, fault: Fault) -> None:
        """The fault is there. Raises `FallowError` if it cannot be made here."""
        await injecting.begin(self.directory, fault)
        self._look_again()

    async def end(self, fault: Fault) -> None:
        """The fault is over: the nodes are as before."""
        await injecting.end(self.directory, fault)
        self._look_again()

    async def drive(self, node: LocalNode) -> None:
        """The owner has taken the machine back: the node has yielded."""
        await injecting.drive(node)

    async def park(self, node: LocalNode) -> None:
        """The owner has left the machine to the node again."""
        await injecting.park(node)

    async def kill(self, node: LocalNode) -> None:
        """The node and its worker have ended without a word."""
        await record.kill(node.process)

    async def freeze(self, node: LocalNode) -> None:
        """The node answers nothing any more, though its connections stay."""
        await node.process.freeze()

    def thaw(self, node: LocalNode) -> None:
        """The node goes on where it was frozen."""
        injecting.thaw(node)

    def _look_again(self) -> None:
        """Nodes that were started again have other processes."""
        self.nodes[:] = record.read(self.directory)


async def _start_all(testnet: Testnet, children: Children, home: Path, progress: Progress) -> None:
    """The first node is ready, then all others, started side by side."""
    ready: dict[str, LocalNode] = {}
    plans = testnet.plan.nodes
    places: Mapping[str, Place] = {}
    abreast = trio.CapacityLimiter(AT_ONCE * (os.cpu_count() or 1))

    async def start(plan: NodePlan, bootstrap: Sequence[str]) -> None:
        async with abreast:
            ready[plan.name] = await _start(testnet, plan, home, bootstrap, places.get(plan.name))
        testnet.nodes[:] = [ready[each.name] for each in plans if each.name in ready]
        record.write(testnet.directory, testnet.nodes, children.ground)
        progress("starting nodes", len(ready) / len(plans))

    progress("starting nodes", 0.0)
    await children.raise_zygote()
    if testnet.plan.namespaces:
        places = await trio.to_thread.run_sync(children.house, plans)
    record.write(testnet.directory, [], children.ground)
    await start(plans[0], ())
    try:
        async with trio.open_nursery() as nursery:
            for plan in plans[1:]:
                nursery.start_soon(start, plan, testnet.bootstrap)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # one sentence for a person: the others were stopped with it


async def _start(
    testnet: Testnet, plan: NodePlan, home: Path, bootstrap: Sequence[str], place: Place | None
) -> LocalNode:
    state = testnet.directory / plan.name
    state.mkdir(parents=True, exist_ok=True)
    owner_key = testnet.directory / OWNERS / f"{plan.owner}.key" if plan.owner else state / "owner.key"
    owner = load_or_create(owner_key)
    text = settings(
        plan,
        state,
        home,
        testnet.plan.bundles,
        bootstrap,
        owner_key=owner_key,
        namespaces=testnet.plan.namespaces,
        day_s=testnet.plan.day_s,
        more={"exit_with_stdin": True},
    )
    (state / starting.CONFIG).write_text(text)
    command = command_of(plan)
    started = await starting.start(testnet.directory, state, place, command)
    return LocalNode(
        started.peer_id, bytes(owner.verify_key).hex(), plan.kind, started.process.pid, started.process.started_ticks,
        str(state), started.addresses, plan.liar, plan.name, plan.adversary, plan.region, place, tuple(command),
    )  # fmt: skip


def _claimed(directory: Path) -> Path:
    """The directory, absolute and there, without what a network that was killed left of namespaces.

    Raises `ConfigError(already_running)` if a network runs in it.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        found = record.read_network(directory)
    except ConfigError:
        return directory
    if any(node.process.running for node in found.nodes) or (found.ground.zygote and found.ground.zygote.running):
        raise ConfigError(Code.ALREADY_RUNNING, f"A test network runs in {directory}.")
    natlab.raze(found.ground.namespaces)
    return directory
