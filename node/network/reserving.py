"""A node's reservations, held: `relays` says what to do, this does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from random import Random
from typing import Final

import trio
from libp2p.peer.id import ID

from ...protocol.errors import NetworkError
from .boundary import Tasks
from .circuit import Circuits
from .dht import Table
from .dialling import Dialler
from .identity import Multiaddr, bare_addresses, id_of
from .relays import Relays, Reserve, Search

WATCH_S: Final = 0.5
"""How often the connections to the relays are looked at: a profile that leads nowhere stands no longer than that."""

STEP_S: Final = 15.0
"""For one search or reservation, dialling included."""

SKEWED_S: Final = 60.0
"""What a reservation is taken to last that ends before now, by a clock that is not ours."""


class Reservations:
    """The relays of one host, found in the table, kept while `run` runs."""

    def __init__(
        self, tasks: Tasks, dialler: Dialler, table: Table, circuits: Circuits,
        keys: Collection[str], wanted: int, random: Random, tell: Callable[[list[Multiaddr]], None],
    ) -> None:  # fmt: skip
        """`keys` are where the table names relays; whenever the ways to this host are others, `tell` is given them,
        without its id at the end."""
        self._tasks = tasks
        self._dialler = dialler
        self._table = table
        self._circuits = circuits
        self._keys = keys
        self._tell = tell
        self._relays = Relays(random, wanted)
        self._news = trio.Event()
        self._said: tuple[str, ...] = ()
        self.why: str = ""
        """What the relay said that was the last to refuse."""

    def chosen(self) -> set[ID]:
        """The relays that may bring connections."""
        return {id_of(relay) for relay in self._relays.held}

    async def run(self) -> None:
        """Until cancelled, as many reservations are held as are wanted and can be had."""
        while True:
            now_s = trio.current_time()
            for relay in self._relays.held:
                if not self._dialler.connected(id_of(relay)):
                    self._relays.lost(relay, now_s)
            for action in self._relays.next(now_s):
                self._tasks.spawn(partial(self._do, action))
            self._say()
            wait_s = min(WATCH_S if self._relays.held else STEP_S, self._relays.deadline_s(now_s) - now_s)
            with trio.move_on_after(wait_s):
                await self._news.wait()
            self._news = trio.Event()

    async def _do(self, action: Search | Reserve) -> None:
        if isinstance(action, Search):
            await self._search()
        else:
            await self._reserve(action)
        self._say()
        self._news.set()

    async def _search(self) -> None:
        found: dict[bytes, tuple[str, ...]] = {}
        with trio.move_on_after(STEP_S):
            for key in self._keys:
                try:
                    found |= {each.peer: each.addresses for each in await self._table.find(key)}
                except NetworkError as error:
                    self.why = error.message
        self._relays.found(list(found.items()), trio.current_time())

    async def _reserve(self, action: Reserve) -> None:
        relay = id_of(action.relay)
        try:
            with trio.fail_after(STEP_S):
                granted = await self._circuits.reserve(relay, tuple(bare_addresses(relay, action.addresses)))
        except (NetworkError, trio.TooSlowError) as error:
            self.why = error.message if isinstance(error, NetworkError) else f"Relay {relay} did not answer in time."
            self._relays.failed(action.relay, trio.current_time())
            return
        lasts_s = granted.expires_s - time.time()
        ways = tuple(map(str, granted.addresses))
        self._relays.granted(action.relay, ways, lasts_s if lasts_s > 0 else SKEWED_S, trio.current_time())

    def _say(self) -> None:
        if (addresses := self._relays.addresses) != self._said:
            self._said = addresses
            self._tell([Multiaddr(address) for address in addresses])
