"""A search towards a key: ask the closest peers known, learn closer ones from each, until the closest have answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio
from libp2p.kad_dht.utils import sort_peer_ids_by_distance
from libp2p.peer.id import ID

from ...protocol.errors import NetworkError

PEER_S: Final = 2.0
"""For one peer's answer, dialling included; whoever takes longer is left out of the table. Honest ones take 20 ms."""

FANOUT: Final = 20
"""Peers closest to a key that keep it and are asked for it: Kademlia's k."""

PARALLEL: Final = 10
"""Peers asked at a time: a quarter of them frozen still leaves most of each round."""

WALK_MAX: Final = 60
"""Peers asked in one search; a search that has not converged after three times k is being led on."""


class Known(Protocol):
    """What a search has to know and to tell of the routing table."""

    def closest(self, target: bytes) -> list[ID]:
        """Up to `FANOUT` peers of the table."""

    def may_serve(self, peer: ID) -> bool:
        """Whether it is worth asking: it is not this node, nor known not to serve."""

    async def alive(self, peer: ID) -> None:
        """The peer answered."""

    def dead(self, peer: ID) -> None:
        """The peer did not answer in time, or refused."""


class Walk:
    """One search. `ask` exchanges with one peer and returns those it names as closer; `enough` ends the search
    early."""

    def __init__(
        self,
        target: bytes,
        known: Known,
        ask: Callable[[ID], Awaitable[Sequence[ID]]],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._target = target
        self._known = known
        self._ask = ask
        self._enough = enough
        self._seen: set[ID] = set()
        self._waiting: list[ID] = []
        self._answered: list[ID] = []
        self._asking = self._asked = 0
        self._progress = trio.Event()

    async def run(self, start: Sequence[ID] = ()) -> list[ID]:
        """The live peers closest to the target, closest first; each was asked once."""
        self._learn([*start, *self._known.closest(self._target)])
        async with trio.open_nursery() as nursery:
            while True:
                while (peer := self._next()) is not None:
                    self._asking += 1
                    self._asked += 1
                    nursery.start_soon(self._one, peer)
                if not self._asking or self._enough():
                    break
                self._progress = trio.Event()
                await self._progress.wait()
            nursery.cancel_scope.cancel()
        return self._sorted(self._answered)[:FANOUT]

    def _next(self) -> ID | None:
        """The closest peer that is still to be asked, if it is among the closest `FANOUT` that may live."""
        if not self._waiting or self._asking >= PARALLEL or self._asked >= WALK_MAX or self._enough():
            return None
        if self._waiting[0] not in self._sorted([*self._answered, self._waiting[0]])[:FANOUT]:
            return None
        return self._waiting.pop(0)

    async def _one(self, peer: ID) -> None:
        try:
            with trio.move_on_after(PEER_S) as scope:
                closer = await self._ask(peer)
                self._answered.append(peer)
                self._learn(closer)
                await self._known.alive(peer)
            if scope.cancelled_caught:
                self._known.dead(peer)
        except NetworkError:
            self._known.dead(peer)
        self._asking -= 1
        self._progress.set()

    def _learn(self, peers: Sequence[ID]) -> None:
        fresh = [peer for peer in dict.fromkeys(peers) if peer not in self._seen and self._known.may_serve(peer)]
        self._seen.update(fresh)
        self._waiting = self._sorted([*self._waiting, *fresh])

    def _sorted(self, peers: list[ID]) -> list[ID]:
        return sort_peer_ids_by_distance(self._target, peers)
