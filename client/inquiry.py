"""Which of the nodes that were named for a bundle are asked now: a few, since each one not met before costs two handshakes.

A wave goes out. Who fails in it, or is late, is replaced at once (the first ones that are late by two each: where one is
frozen, others are), and who has answered is not: ten nodes are found for some ten handshakes, whether twenty were named or
four hundred. The next wave goes when all of this one have had their time and somebody still looks. At the very end it is
asked for other addresses of those whom nobody found where they were named: most of them are gone, and looking for one costs
as much as the whole search.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from random import Random
from statistics import median
from typing import Final

import trio

from ..node.network.seam import Provider

WAVE: Final = 10
"""As many as are looked for. Each handshake more that is under way takes its share of the processor from those that will do."""
NEAR_MAX: Final = 7
"""Of those named, so many are asked for a connection that stands, whether the wave is full or not: it costs no handshake. Fewer
than a wave: whoever is near a key in the table, or has dialled us, is not to be all that we find."""
LATE_S: Final = 0.3
"""After so long somebody else is asked as well, as in the table's searches: a frozen machine holds no place in the wave."""
LATE_FACTOR: Final = 3.0
LATE_SPAN_S: Final = (0.075, 1.0)
"""Once some have answered, after so many times as long as half of them took, within this span: somewhat more than a handshake
nearby, and half of a question's time. Who is silent among near ones is known for it sooner; far ones are waited for."""
LATE_KNOWN: Final = 3
"""Answers by which that can be told."""
SPARE_MAX: Final = 4
"""Besides one for each that is late, one more for each, and so many of these at most: a row of silent ones, each of them
waited for, is what makes a search long."""
SOUGHT_AT_ONCE: Final = 4
"""Of those that were not where they were said to be: each is a search of the table."""

Ask = Callable[[Provider], Awaitable[bool]]
"""Whether the node answered."""


class Inquiry:
    """The nodes of one bundle."""

    def __init__(
        self,
        nursery: trio.Nursery,
        ask: Ask,
        seek: Ask,
        told: Callable[[], None],
        random: Random,
        connected: Callable[[], Collection[bytes]] = frozenset,
    ) -> None:
        """`seek` asks a node where it says itself that it is; `told` is called after each answer, and each failure;
        `connected` are those to whom a connection stands."""
        self._nursery = nursery
        self._ask = ask
        self._seek = seek
        self._told = told
        self._random = random
        self._connected = connected
        self._near = 0
        """Asked for being connected, since the search began."""
        self._named: dict[bytes, Provider] = {}
        """Whom to ask."""
        self._lost: dict[bytes, Provider] = {}
        """Who did not answer where they were said to be."""
        self._answered: set[bytes] = set()
        """Since the search began."""
        self._under_way: dict[bytes, Ask] = {}
        self._late: set[bytes] = set()
        self._in_wave = 0
        """Answers."""
        self._took_s: list[float] = []
        """Of every answer since the search began, by a node to which no connection stood, and that had not to be looked for."""
        self._late_after_s = LATE_S
        self._heard = trio.Event()
        """That has changed."""
        self._lookers: list[Callable[[], bool]] = []

    @property
    def busy(self) -> bool:
        """Whether anybody is asked, or could still be."""
        return bool(self._named or self._lost or self._under_way)

    @property
    def waits(self) -> bool:
        """Whether an answer may come at any moment."""
        return len(self._under_way) > len(self._late)

    def begin(self) -> None:
        """A new search: what was named in an earlier one is forgotten."""
        self._named.clear()
        self._lost.clear()
        self._answered.clear()
        self._near = 0
        self._took_s.clear()
        self._late_after_s = LATE_S

    @contextmanager
    def looking(self, enough: Callable[[], bool]) -> Iterator[None]:
        """Somebody looks for nodes until there are enough: while nobody does, no further one is asked."""
        self._lookers.append(enough)
        self._fill()
        try:
            yield
        finally:
            self._lookers.remove(enough)

    def add(self, provider: Provider) -> None:
        """The search has named the node: it is asked in its turn, unless it has answered already."""
        if provider.peer not in self._answered:
            self.again(provider)

    def again(self, provider: Provider, *, at_once: bool = False) -> None:
        """The node is asked in its turn, or at once: one to which a connection stands."""
        if provider.peer in self._under_way:
            return
        self._lost.pop(provider.peer, None)  # there may be more addresses now
        if at_once:
            self._named.pop(provider.peer, None)
            self._begin(provider, self._ask)
        else:
            self._named[provider.peer] = provider
            self._fill()

    def _fill(self) -> None:
        if all(enough() for enough in self._lookers):
            return
        if not self.waits:
            self._in_wave = 0
        connected = self._connected() if self._named and self._near < NEAR_MAX else ()
        for peer in [peer for peer in self._named if peer in connected][: NEAR_MAX - self._near]:
            self._near += 1
            self._begin(self._named.pop(peer), self._ask)
        spare = min(SPARE_MAX, len(self._late))
        while self._named and len(self._under_way) - len(self._late) + self._in_wave < WAVE + spare:
            self._begin(self._named.pop(self._random.choice(list(self._named))), self._ask)
        while self._lost and not self._named and len(self._under_way) - len(self._late) < SOUGHT_AT_ONCE:
            if any(ask is self._ask for peer, ask in self._under_way.items() if peer not in self._late):
                break
            self._begin(self._lost.pop(next(iter(self._lost))), self._seek)

    def _begin(self, provider: Provider, ask: Ask) -> None:
        self._under_way[provider.peer] = ask
        self._nursery.start_soon(self._one, provider, ask)

    async def _one(self, provider: Provider, ask: Ask) -> None:
        peer, answered, began = provider.peer, False, trio.current_time()
        met = peer in self._connected()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._grow_late, peer, began)
                answered = await ask(provider)
                nursery.cancel_scope.cancel()
        finally:
            del self._under_way[peer]
            self._in_wave += answered and peer not in self._late
            self._late.discard(peer)
            if answered:
                self._answered.add(peer)
            if answered and ask is self._ask and not met:  # whoever is connected answers without a handshake
                self._learn(trio.current_time() - began)
            if not answered and ask is self._ask:
                self._lost[peer] = provider
            self._fill()
            self._told()

    def _learn(self, took_s: float) -> None:
        """How long an answer takes here."""
        self._took_s.append(took_s)
        if len(self._took_s) >= LATE_KNOWN:
            least, most = LATE_SPAN_S
            self._late_after_s = min(most, max(least, LATE_FACTOR * median(self._took_s)))
            self._heard.set()
            self._heard = trio.Event()

    async def _grow_late(self, peer: bytes, began: float) -> None:
        while (left_s := began + self._late_after_s - trio.current_time()) > 0:
            with trio.move_on_after(left_s):
                await self._heard.wait()
        self._late.add(peer)
        self._fill()
        self._told()
