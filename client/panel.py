"""Several nodes of distinct owners on the same work: asked side by side, and paid once it is decided whom to believe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from ..protocol.checks import Attestation
from ..protocol.envelope import Signed
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.receipts import FINAL
from ..protocol.work import Piece
from ..verifier.quorum import Member
from .discovery import Node
from .execution import Attested, Broken, Delivered, Execution, Receipted, Request, execute, way_broke
from .scheduler import Need
from .team import Team

REPLACEMENTS_MAX = 4
"""For one place, nodes tried before it stays empty."""
PATIENCE_S = 0.5
"""Once the others decide the matter, a place has as long again as they took, and at least so long."""


@dataclass
class Place:
    """One node's part: what it delivered, and whether it is to be paid."""

    node: Node
    piece: Piece | None = None
    attestation: Signed[Attestation] | None = None
    final: Receipted | None = None
    believed: bool = False
    execution: Execution | None = None
    """The one that brought it."""

    @property
    def member(self) -> Member:
        return Member(self.node.key, self.node.owner)

    @property
    def asked_ucr(self) -> int:
        """What its receipt comes to."""
        return self.final.added_ucr if self.final else 0

    @property
    def paid_ucr(self) -> int:
        return self.asked_ucr if self.believed else 0


class Panel:
    """Made by `open_panel`. `ask` fills places, `decide` lets them go."""

    def __init__(self, team: Team, request: Request, need: Need, wait_s: float, nursery: trio.Nursery) -> None:
        self._team = team
        self._request = request
        self._need = need
        self._wait_s = wait_s
        self._nursery = nursery
        self._asked: dict[bytes, Node] = {}
        self._doubted: set[bytes] = set()
        """Nodes whose way broke once: if they answer again, they may be asked again."""
        self._decided = trio.Event()
        self._spare: list[Place] = []
        """Who came second in a race by a hair: paid, and not used."""
        self.places: list[Place] = []
        self.executions: list[Execution] = []
        """Of every node that was asked, whether it delivered or not."""

    async def ask(
        self,
        count: int,
        preferred: Sequence[bytes],
        enough: Callable[[], Awaitable[bool]],
        wished: frozenset[bytes] = frozenset(),
    ) -> None:
        """So many places more have delivered, or stay empty: nobody could be had, or kept the others waiting too long.

        `enough` says whether the places filled so far decide the matter. The first of the places goes to an owner who is
        `wished` for, if one can be had.
        """
        began = trio.current_time()
        async with trio.open_nursery() as asking:

            async def fill(index: int) -> None:
                await self._fill(preferred[index : index + 1], wished if index == 0 else frozenset())
                if await enough():
                    took = trio.current_time() - began
                    deadline = trio.current_time() + max(PATIENCE_S, took)
                    asking.cancel_scope.deadline = min(asking.cancel_scope.deadline, deadline)

            for index in range(count):
                asking.start_soon(fill, index)
        delivered = {place.node.key for place in self.places}
        for key in [key for key in self._asked if key not in delivered]:
            late = Refused(Code.TIMED_OUT, "The others had decided the matter twice over by then.")
            self._team.failed(self._asked.pop(key), late)

    async def race(self, count: int, preferred: Sequence[bytes]) -> None:
        """One place is filled, by whoever of so many nodes delivers first; the others are stopped. Or it stays empty."""
        async with trio.open_nursery() as asking:

            async def fill(index: int) -> None:
                await self._fill(preferred[index : index + 1], frozenset())
                if self.places:
                    asking.cancel_scope.cancel()

            for index in range(count):
                asking.start_soon(fill, index)
        self._spare, self.places = self.places[1:], self.places[:1]
        ran = {place.node.key for place in self.places}
        self._asked = {key: node for key, node in self._asked.items() if key in ran}
        self.executions = [place.execution for place in self.places if place.execution]

    def decide(self, believed: Collection[bytes]) -> None:
        """These nodes are paid, and no others."""
        for place in self.places:
            place.believed = place.node.key in believed
        for place in self._spare:
            place.believed = True
        self._decided.set()

    async def _fill(self, preferred: Sequence[bytes], wished: frozenset[bytes]) -> None:
        for _ in range(REPLACEMENTS_MAX):
            owners = {node.owner for node in self._asked.values()}
            need = replace(
                self._need,
                avoid_nodes=self._need.avoid_nodes | self._asked.keys(),
                avoid_owners=self._need.avoid_owners | owners,
                wished_owners=wished,
                spread_from=self._need.spread_from | {node.capability.region for node in self._asked.values()},
            )
            try:
                node = await self._team.pick(need, preferred, self._wait_s)
            except Refused:
                return
            if node.owner in {other.owner for other in self._asked.values()}:
                continue  # another place took this owner while we looked
            self._asked[node.key] = node
            place = Place(node)
            error: FallowError | None = await self._nursery.start(self._work, place)
            if error is None:
                self.places.append(place)
                return
            self._team.failed(node, error)
            if not way_broke(error) or node.key in self._doubted:
                self._need = replace(self._need, avoid_nodes=self._need.avoid_nodes | {node.key})
            self._doubted.add(node.key)
            del self._asked[node.key]

    async def _work(self, place: Place, task_status: trio.TaskStatus[FallowError | None]) -> None:
        """Started once the result is there (None) or cannot be had (why). Then waits for the decision, and pays or not."""
        try:
            async with execute(self._team.desk, place.node, self._request) as execution:
                self.executions.append(execution)
                place.execution = execution
                place.final = await collect(execution, place)
                task_status.started(None)
                await self._decided.wait()
                if place.believed:
                    await execution.pay(place.final)
                else:
                    await execution.stop("the majority came to another result")
        except FallowError as error:
            if place.final is not None:
                raise
            if error.code is Code.OWNER_NEEDS_MACHINE and self._accepted(place.node):
                self._team.left(place.node, 0, 1)
            task_status.started(error)

    def _accepted(self, node: Node) -> bool:
        return any(execution.accept for execution in self.executions if execution.node.key == node.key)


@asynccontextmanager
async def open_panel(team: Team, request: Request, need: Need, wait_s: float) -> AsyncIterator[Panel]:
    """A panel for one piece of work. Leaving the block waits until everybody who is believed has been paid."""
    async with trio.open_nursery() as nursery:
        panel = Panel(team, request, need, wait_s, nursery)
        yield panel
        panel.decide({place.node.key for place in panel.places if place.believed})


async def collect(execution: Execution, place: Place) -> Receipted:
    """What the node delivered, and its final receipt. Raises the `FallowError` that ended the execution before."""
    async for event in execution.events:
        match event:
            case Delivered(piece):
                place.piece = piece
            case Attested(attestation):
                place.attestation = attestation
            case Receipted(receipt) if receipt.record.end == FINAL:
                return event
            case Receipted(_, _, reason):
                raise Refused(Code.OWNER_NEEDS_MACHINE, f"The node left: {reason}.")
            case Broken(error):
                raise error
    raise AssertionError("an execution's events end with a final receipt or with what broke it")
