"""The addresses of one peer, dialled a little apart; the first that answers wins (Happy Eyeballs, RFC 8305)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import trio

from ...protocol.errors import Code, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .boundary import translated
from .identity import Multiaddr, is_relayed

T = TypeVar("T")

GAP_S: Final = 0.1
"""Between one start and the next: the least that RFC 8305 recommends, and twice what a handshake takes nearby. After a
failure the next one starts at once."""

RELAYED_GAP_S: Final = 0.5
"""Before a way through a relay: it is the longer one, and somebody's favour. Two round trips on a bad mobile link."""

ADDRESS_S: Final = 4.0
"""For one address: two round trips on a bad mobile link and a handshake on a busy machine."""

RACE_S: Final = 12.0
"""For all addresses of one peer."""

CLOSE_S: Final = 2.0
"""To say to the other side that a connection is one too many."""


class Race(Generic[T]):
    """One race. `run` runs it, once; addresses may join until it has ended."""

    def __init__(self, dial: Callable[[Multiaddr], Awaitable[T]], undo: Callable[[T], Awaitable[None]]) -> None:
        """`dial` may be cancelled at any moment; `undo` ends what a second one still brought."""
        self._dial = dial
        self._undo = undo
        self._seen: set[Multiaddr] = set()
        self._waiting: list[Multiaddr] = []
        """Direct ones first."""
        self._trying: list[Multiaddr] = []
        self._next_at = self._relayed_at = trio.current_time()
        self._news = trio.Event()
        self.winner: Multiaddr | None = None
        self.over = False
        """No address can join any more."""
        self.ended = trio.Event()
        """For whoever waits for it; the owner of the race sets it."""
        self.failures: list[str] = []
        """Why each of the addresses that failed did."""

    def add(self, addresses: Iterable[Multiaddr]) -> None:
        """The addresses take part, those that already do only once; at most `ADDRESSES_MAX` in all."""
        for address in addresses:
            if address not in self._seen and len(self._seen) < ADDRESSES_MAX:
                self._seen.add(address)
                self._waiting.append(address)
        self._waiting.sort(key=is_relayed)
        self._news.set()

    async def run(self) -> Multiaddr | None:
        """The address that answered first, if one did; nothing else of the race is left."""
        with trio.move_on_after(RACE_S):
            async with trio.open_nursery() as nursery:
                while self.winner is None and (self._waiting or self._trying):
                    self._news = trio.Event()
                    due = self._due()
                    if due <= trio.current_time():
                        nursery.start_soon(self._try, self._begin())
                        continue
                    with trio.move_on_at(due):
                        await self._news.wait()
                self.over = True
                nursery.cancel_scope.cancel()
        self.over = True
        return self.winner

    def _due(self) -> float:
        """When the next one starts."""
        if not self._waiting:
            return float("inf")
        relayed = is_relayed(self._waiting[0]) and self._trying
        return max(self._next_at, self._relayed_at) if relayed else self._next_at

    def _begin(self) -> Multiaddr:
        address = self._waiting.pop(0)
        self._trying.append(address)
        now = trio.current_time()
        self._next_at, self._relayed_at = now + GAP_S, now + RELAYED_GAP_S
        return address

    async def _try(self, address: Multiaddr) -> None:
        try:
            with trio.move_on_after(ADDRESS_S) as scope:
                reached = await self._dial(address)
                if self.winner is None:
                    self.winner = address
                else:
                    await self._discard(reached)
            if scope.cancelled_caught:
                self._fail(f"{address}: no answer within {ADDRESS_S:g} s")
        except NetworkError as error:
            self._fail(error.message)
        finally:
            self._trying.remove(address)
            self._news.set()

    def _fail(self, why: str) -> None:
        self.failures.append(why)
        self._next_at = trio.current_time()

    async def _discard(self, reached: T) -> None:
        gone = translated(Code.STREAM_CLOSED, "gone already")
        with trio.move_on_after(CLOSE_S, shield=True), suppress(NetworkError), gone:
            await self._undo(reached)
