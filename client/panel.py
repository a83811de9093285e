"""Several nodes of distinct owners on the same work: asked side by side, and paid once it is decided whom to believe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from ..node.machine import beside
from ..protocol.checks import Attestation
from ..protocol.envelope import Signed
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.job import JobState
from ..protocol.limits import YIELD_MS_MAX
from ..protocol.receipts import FINAL
from ..protocol.work import Piece
from ..verifier.compare import alike
from ..verifier.quorum import Member
from .events import Attested, Broken, Delivered, Receipted
from .execution import Execution, execute, way_broke
from .nodes import Node
from .ordering import Request
from .scheduler import Need
from .team import Team

REPLACEMENTS_MAX = 4
"""For one place, nodes tried before it stays empty."""
PATIENCE_S = 0.5
"""Once the others decide the matter, a place has as long again as they took, and at least so long."""
LET_GO_S = YIELD_MS_MAX / 1000 + 0.1
"""For who is let go to say what it has done: a little longer than it has by its job's own bounds."""


@dataclass(eq=False)
class Place:
    """One node's part: what it delivered, and whether it is to be paid."""

    node: Node
    piece: Piece | None = None
    attestation: Signed[Attestation] | None = None
    final: Receipted | None = None
    believed: bool = False
    execution: Execution | None = None
    """The one that brought it."""
    error: FallowError | None = None
    """Why it brought nothing."""
    over: trio.Event = field(default_factory=trio.Event)
    """It has delivered, or never will."""
    waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Around the wait for its result: once cancelled, nobody waits for it any more, and it is paid for what it has done."""

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
        self.places: list[Place] = []
        self.outrun: list[Place] = []
        """Who was let go, or came second in a race by a hair: paid for what they did, and not used. What that comes to is known
        once the panel's block has been left."""
        self.executions: list[Execution] = []
        """Of every node that was asked, whether it delivered or not."""

    @property
    def alone(self) -> bytes | None:
        """Owner on whose word alone the decision rests; None if there are more, or none."""
        owners = {place.node.owner for place in self.places if place.believed}
        return owners.pop() if len(owners) == 1 else None

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

    async def race(self, count: int, preferred: Sequence[bytes]) -> None:
        """One place is filled, by whoever of so many nodes delivers first; the others are let go. Or it stays empty."""
        async with trio.open_nursery() as asking:

            async def fill(index: int) -> None:
                await self._fill(preferred[index : index + 1], frozenset())
                if self.places:
                    asking.cancel_scope.cancel()

            for index in range(count):
                asking.start_soon(fill, index)
        self.outrun += self.places[1:]
        self.places = self.places[:1]
        ran = {place.node.key for place in self.places}
        self._asked = {key: node for key, node in self._asked.items() if key in ran}
        self.executions = [place.execution for place in self.places if place.execution]

    def decide(self, believed: Collection[bytes]) -> None:
        """Of those who filled a place these are paid, and no others."""
        for place in self.places:
            place.believed = place.node.key in believed
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
            await self._nursery.start(self._work, place)
            try:
                await place.over.wait()
            finally:
                place.waiting.cancel()
            if place.error is None:
                return
            self._team.failed(node, place.error)
            if not way_broke(place.error) or node.key in self._doubted:
                self._need = replace(self._need, avoid_nodes=self._need.avoid_nodes | {node.key})
            self._doubted.add(node.key)
            del self._asked[node.key]

    async def _work(self, place: Place, task_status: trio.TaskStatus[None]) -> None:
        """Started once the order is out, or cannot be had. Who has delivered waits for the decision, and is paid or not."""
        try:
            async with execute(self._team.desk, place.node, self._request) as execution:
                self.executions.append(execution)
                place.execution = execution
                task_status.started()
                in_time = False
                with place.waiting:
                    place.final = await collect(execution, place)
                    in_time = not place.waiting.cancel_called  # else the others are judged without it already
                    if in_time:
                        self.places.append(place)
                if not in_time and not await self._let_go(place, execution):
                    return
                assert place.final is not None, "what it delivered is complete"
                place.over.set()
                await self._decided.wait()
                if place in self.outrun:
                    place.believed = await self._as_believed(place)
                if place.believed:
                    await execution.pay(place.final)
                else:
                    await execution.stop("the majority came to another result")
        except FallowError as error:
            if place.final is not None:
                raise
            if error.code is Code.OWNER_NEEDS_MACHINE and self._accepted(place.node):
                self._team.left(place.node, 0, 1)
            place.error = error
            if place.execution is None:
                task_status.started()
        finally:
            place.over.set()

    async def _let_go(self, place: Place, execution: Execution) -> bool:
        """Others were quicker, which is no failure of the node's: it is stopped, and paid for what it had done when it heard.

        Whether its complete result crossed that, and is yet to be paid. To break off then, or not to answer, is a failure.
        """
        self.outrun.append(place)
        if place.final is not None:
            return True
        await execution.cancel("others were quicker")
        event: Receipted | Broken | None = None
        with trio.move_on_after(LET_GO_S):
            event = await _last_word(execution, place)
        if event is None and execution.job.state is JobState.CLOSING:  # it came in time, and is told once it is on disk
            event = await _last_word(execution, place)
        match event:
            case Receipted(receipt):
                place.final = event
                if receipt.record.end == FINAL:
                    return True
                await execution.pay(event)
                place.believed = True
            case Broken(error):
                self._team.failed(place.node, error)
            case None if execution.accept is not None:
                late = RemoteProtocolError(Code.TIMED_OUT, "The last receipt did not come in time.")
                self._team.failed(place.node, late)
        return False

    async def _as_believed(self, place: Place) -> bool:
        """Whether its result is that of somebody who is believed: else to be late would be a way never to be looked at."""
        given, believed = place.piece, [other.piece for other in self.places if other.believed and other.piece]
        tolerance = self._request.manifest.tolerance
        return given is not None and await beside(lambda: any(alike(given, one, tolerance) for one in believed))

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


async def _last_word(execution: Execution, place: Place) -> Receipted | Broken:
    """The receipt with which the node stops, or what broke the execution before."""
    async for event in execution.events:
        match event:
            case Delivered(piece):
                place.piece = piece
            case Receipted() | Broken():
                return event
    raise AssertionError("an execution's events end with a final receipt or with what broke it")
