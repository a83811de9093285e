"""A search towards a key: ask the closest peers known, learn closer ones from each, until the closest have answered.

Whoever answers may lie: name only its friends, or peers that are not there, all closer to the key than any honest one, as
keys are free. So every other question goes not to the closest peer, but to the one that most of those asked have named:
the honest, being more, name each other most. And the search is not over before those have been asked too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from heapq import nsmallest
from statistics import median
from typing import Final, Protocol

import trio
from libp2p.peer.id import ID

from ...protocol.errors import NetworkError
from .entries import place_of

PEER_S: Final = 3.0
"""For one peer's answer, dialling included; whoever takes longer is left out of the table. Honest ones take 20 ms."""

LATE_S: Final = 0.3
LATE_FACTOR: Final = 4.0
"""A peer is late once it has taken so long, and so many times as long as half of those that answered. It has lost its turn
to another, and the search ends without it, if a quarter have answered: else the way out of here is slow, and not the peer."""

LATE_MAX: Final = 10
"""So many late ones are replaced by peers farther away: more than a third of twenty frozen. Silent peers made up to be close
would else be asked one after another."""

FANOUT: Final = 20
"""Peers closest to a key that keep it and are asked for it: Kademlia's k."""

WITNESSES: Final = 6
"""Peers of the table asked besides, wherever they are: nobody can be near every key."""

PARALLEL: Final = 10
"""Peers asked at a time: a quarter of them frozen still leaves most of each round."""

PARALLEL_NAMED: Final = 4
PARALLEL_CALM: Final = 2
"""The same once one has named plenty to go on with, and once several have: what is still asked makes it harder to lie, and must
not take the time of what is being done with the answers."""

NAMED: Final = 30
"""Peers that most have named, asked besides the closest: half as many again, as some of those are hostile too."""

WALK_MAX: Final = 80
"""Peers asked in one search: half of them as the liars like it, and the other half is still twice k."""

Named = tuple[ID, tuple[bytes, ...]]
"""A peer, and where it is said to be."""


class Known(Protocol):
    """What a search has to know and to tell of the routing table."""

    def start(self, target: bytes) -> Sequence[ID]:
        """The `FANOUT` peers of the table closest to the target, and `WITNESSES` others; if none of them is connected any
        more, those too of whom others told."""

    def late(self, peer: ID) -> None:
        """The peer did not answer within `PEER_S`."""

    def lost(self, peer: ID) -> None:
        """The peer could not be reached, or refused."""

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """The task outlives the search, if need be."""


Ask = Callable[[ID, Sequence[bytes]], Awaitable[Sequence[Named]]]
"""Exchanges with the peer, at those addresses among others, and returns whom it names as closer."""

ADDRESSES_NAMED_MAX: Final = 8
"""Of one peer, from all who name it; so many of each of them that a liar leaves room for the truth."""
ADDRESSES_EACH_MAX: Final = 3


class Walk:
    """One search. `enough` ends it early; it asks so many at a time as `parallel` says."""

    def __init__(
        self,
        own: bytes,
        target: bytes,
        known: Known,
        ask: Ask,
        enough: Callable[[], bool] | None = None,
        parallel: Callable[[], int] = lambda: PARALLEL,
    ) -> None:
        self._own = own
        self._place = place_of(target)
        self._target = target
        self._known = known
        self._ask = ask
        self._enough = enough
        self._parallel = parallel
        self._votes: Counter[ID] = Counter()
        self._addresses: dict[ID, list[bytes]] = {}
        self._distance: dict[ID, int] = {}
        self._begun: dict[ID, float] = {}
        """Every peer asked, and when; those of them that are still being asked are `_pending`."""
        self._pending: set[ID] = set()
        self._failed: set[ID] = set()
        self._answered: list[ID] = []
        self._took_s: list[float] = []
        self._late_after_s = LATE_S
        """By the answers until now."""
        self._over = False
        self._progress = trio.Event()

    async def run(self, start: Sequence[ID] = ()) -> list[ID]:
        """The live peers closest to the target, closest first, and behind them those that most others named."""
        for peer in [*start, *self._known.start(self._target)]:
            self._hear(peer, ())
        try:
            while self._enough is None or not self._enough():
                now = trio.current_time()
                punctual = [peer for peer in self._pending if now < self._late_at(peer)]
                following = self._next() if len(punctual) < self._parallel() else None
                if following is not None:
                    self._begin(following, now)
                    continue
                if not punctual and (4 * len(self._answered) >= len(self._begun) or not self._pending):
                    break
                self._progress = trio.Event()
                until = min(map(self._late_at, punctual)) - now if punctual else PEER_S
                with trio.move_on_after(until):
                    await self._progress.wait()
        finally:
            self._over = True
        return self._found()

    def _late_at(self, peer: ID) -> float:
        return self._begun[peer] + self._late_after_s

    def _next(self) -> ID | None:
        """Whom to ask next: by turns the closest, and the one that most have named."""
        if len(self._begun) >= WALK_MAX:
            return None
        frontiers = (self._closest, self._most_named)
        for frontier in frontiers if len(self._begun) % 2 == 0 else reversed(frontiers):
            for peer in frontier():
                if peer not in self._begun:
                    return peer
        return None

    def _closest(self) -> list[ID]:
        return nsmallest(FANOUT, self._hopeful(), key=self._distance.__getitem__)

    def _most_named(self) -> list[ID]:
        return nsmallest(NAMED, self._hopeful(), key=lambda peer: (-self._votes[peer], self._distance[peer]))

    def _hopeful(self) -> list[ID]:
        """Those that answered, or may still."""
        now = trio.current_time()
        late = set([peer for peer in self._begun if peer in self._pending and now >= self._late_at(peer)][:LATE_MAX])
        return [peer for peer in self._votes if peer not in self._failed and peer not in late]

    def _begin(self, peer: ID, now: float) -> None:
        self._begun[peer] = now
        self._pending.add(peer)
        self._known.spawn(lambda: self._one(peer))

    async def _one(self, peer: ID) -> None:
        try:
            with trio.move_on_after(PEER_S) as scope:
                closer = await self._ask(peer, tuple(self._addresses[peer]))
                if not self._over:
                    self._took_s.append(trio.current_time() - self._begun[peer])
                    self._late_after_s = max(LATE_S, LATE_FACTOR * median(self._took_s))
                    self._answered.append(peer)
                    for named, addresses in closer[:FANOUT]:
                        self._hear(named, addresses)
            if scope.cancelled_caught:
                self._failed.add(peer)
                self._known.late(peer)
        except NetworkError:
            self._failed.add(peer)
            self._known.lost(peer)
        finally:
            self._pending.discard(peer)
            self._progress.set()

    def _hear(self, peer: ID, addresses: Sequence[bytes]) -> None:
        name = peer.to_bytes()
        if name == self._own:
            return
        self._votes[peer] += 1
        if peer not in self._distance:  # each of twenty is named by all others
            self._distance[peer] = place_of(name) ^ self._place
        where = self._addresses.setdefault(peer, [])
        where += [address for address in addresses[:ADDRESSES_EACH_MAX] if address not in where]
        del where[ADDRESSES_NAMED_MAX:]

    def _found(self) -> list[ID]:
        answered = set(self._answered)
        near = nsmallest(FANOUT, answered, key=self._distance.__getitem__)
        return near + [peer for peer in self._most_named() if peer in answered and peer not in near]
