"""How shed orders come to all who trust their grid key: each passes on what is news to those that it exchanges orders with.

Those who trust a key find one another in the DHT, under the key. A round of exchanges every few minutes brings what was lost,
and what was said before a machine was there: an order holds for hours, and a car that comes home then has to hear of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from ...protocol.envelope import Signed
from ...protocol.errors import REGISTRY, Code, Disposition, NetworkError, RemoteProtocolError
from ...protocol.grid import ShedOrder
from ...protocol.limits import SHED_ORDERS_MAX, SHED_SENT_MAX
from ...protocol.messages.codec import decode_message_untrusted, encode_message
from ...protocol.messages.grid import ShedExchange
from ...protocol.names import shed_key
from ...protocol.streams import SHED_PROTOCOL
from ..log import EventLog, wall_ms
from ..machine import chance
from ..network.seam import Network, Provider, Stream
from .shed import Orders

CHOSEN: Final = 8
"""Found in the DHT and exchanged with: with so many each, a random graph of a million hangs together, a tenth of them dead."""
ASKERS_MAX: Final = 16
"""Those who asked us last are told news, too: they are known to be there."""
ROUND_S: Final = 600.0
"""As a node's other provider records: they last half an hour."""
ALONE_S: Final = 30.0
"""The same while nobody is found; twice as long each time."""
EXCHANGED: Final = 3
"""In each round, in full: what was lost is there again after one or two."""
FIND_S: Final = 30.0
EXCHANGE_S: Final = 10.0
"""To reach somebody, dead addresses first, and for the answer."""
AT_ONCE: Final = 32
TURNS_MAX: Final = 2 * SHED_ORDERS_MAX // SHED_SENT_MAX
"""Of one exchange: either side lacks everything."""
JITTER: Final = 0.1
USELESS_S: Final = 0.05
"""A peer waits so long for each order that was checked, and was over or replaced: checking takes 0.1 ms, so that whoever
brings old ones again and again gets a five-hundredth of a core."""


class Gossip:
    """The exchange of one node's orders with others."""

    def __init__(self, network: Network, orders: Orders, changed: Callable[[], None], log: EventLog) -> None:
        """`changed` is called at once when an order has come that counts."""
        self._network = network
        self._orders = orders
        self._changed = changed
        self._log = log
        self._chosen: dict[bytes, dict[bytes, tuple[str, ...]]] = {grid: {} for grid in orders.keys}
        self._askers: dict[bytes, OrderedDict[bytes, None]] = {grid: OrderedDict() for grid in orders.keys}
        self._told = trio.CapacityLimiter(AT_ONCE)
        self._turns: dict[bytes, tuple[trio.Lock, int]] = {}
        """Of peers that are being answered, and how many of their questions there are."""
        self._news, self._heard = trio.open_memory_channel[tuple[bytes, list[bytes], bytes]](SHED_ORDERS_MAX)

    async def answer(self, stream: Stream) -> None:
        """`/fallow/shed/1`: one exchange was answered. Raises `RemoteProtocolError` for anything but one."""
        exchange = _exchange_untrusted(await stream.receive())
        async with self._turn(stream.peer):
            useless = self._take(exchange, stream.peer)
            await trio.sleep(useless * USELESS_S)
        self._remember(exchange.grid, stream.peer)
        lacks = self._lacked(exchange.grid, set(exchange.known))
        await stream.send(encode_message(self._said(exchange.grid, lacks)))

    async def run(self) -> None:
        """News is passed on and rounds are made, until cancelled."""
        async with trio.open_nursery() as nursery:
            for grid in self._orders.keys:
                nursery.start_soon(self._rounds, grid)
            async for grid, envelopes, source in self._heard:
                await trio.to_thread.run_sync(self._orders.save)
                for peer in self._near(grid) - {source}:
                    nursery.start_soon(self._tell, peer, grid, envelopes)

    async def _rounds(self, grid: bytes) -> None:
        alone_s = ALONE_S
        while True:
            self._orders.forget(wall_ms())
            with trio.move_on_after(FIND_S), suppress(NetworkError):
                await self._network.provide(shed_key(grid))
            with trio.move_on_after(FIND_S), suppress(NetworkError):
                self._choose(grid, await self._network.find(shed_key(grid)))
            near = sorted(self._near(grid))
            for peer in chance().sample(near, min(EXCHANGED, len(near))):
                await self._tell(peer, grid, [])
            wait_s, alone_s = (ROUND_S, ALONE_S) if near else (alone_s, min(ROUND_S, 2 * alone_s))
            await trio.sleep(wait_s * chance().uniform(1 - JITTER, 1 + JITTER))

    def _choose(self, grid: bytes, found: Sequence[Provider]) -> None:
        """Some of those found, by chance; the others are somebody else's."""
        picked = chance().sample(list(found), min(CHOSEN, len(found)))
        self._chosen[grid] = {each.peer: each.addresses for each in picked}

    async def _tell(self, peer: bytes, grid: bytes, envelopes: list[bytes]) -> None:
        """Both have what either had, these first; or the peer is not there, and not told news any more."""
        async with self._told:
            try:
                with trio.fail_after(EXCHANGE_S):
                    await self._exchange(peer, grid, envelopes)
            except (NetworkError, RemoteProtocolError, trio.TooSlowError):
                self._chosen[grid].pop(peer, None)
                self._askers[grid].pop(peer, None)

    async def _exchange(self, peer: bytes, grid: bytes, envelopes: list[bytes]) -> None:
        sent: set[bytes] = set(envelopes)
        for _ in range(TURNS_MAX):
            frame = encode_message(self._said(grid, envelopes))
            reply = await self._network.request(peer, SHED_PROTOCOL, frame, self._chosen[grid].get(peer, ()))
            theirs = _exchange_untrusted(reply)
            if theirs.grid != grid:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "It answers with the orders of another grid key.")
            self._take(theirs, peer)
            envelopes = [each for each in self._lacked(grid, set(theirs.known)) if each not in sent]
            sent.update(envelopes)
            if not envelopes and len(theirs.orders) < SHED_SENT_MAX:
                return

    @asynccontextmanager
    async def _turn(self, peer: bytes) -> AsyncIterator[None]:
        """One of a peer's questions after the other."""
        lock, waiting = self._turns.get(peer, (trio.Lock(), 0))
        self._turns[peer] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns.pop(peer)
            if waiting > 1:
                self._turns[peer] = lock, waiting - 1

    def _take(self, exchange: ShedExchange, source: bytes) -> int:
        """What is news counts, and is passed on; how many orders had to be checked and are none.

        Raises `RemoteProtocolError` for what the sender is at fault for.
        """
        if exchange.grid not in self._orders.keys:
            return 0
        news: list[bytes] = []
        useless = 0
        try:
            for envelope in exchange.orders:
                if self._orders.knows(envelope):  # [IGNORE] it is known
                    continue
                try:
                    if self._orders.take_untrusted(envelope, exchange.grid, wall_ms()):
                        news.append(envelope)
                    else:
                        useless += 1
                except RemoteProtocolError as error:
                    if REGISTRY[error.code].disposition is Disposition.REJECT:
                        raise
                    useless += 1
            return useless
        finally:
            if news:
                self._changed()
                with suppress(trio.WouldBlock):  # the next round brings it
                    self._news.send_nowait((exchange.grid, news, source))
                for envelope in news:
                    self._orders.note(envelope)

    def _said(self, grid: bytes, envelopes: Sequence[bytes]) -> ShedExchange:
        return ShedExchange(grid, tuple(self._orders.of(grid)), tuple(envelopes[:SHED_SENT_MAX]))

    def _lacked(self, grid: bytes, known: Iterable[bytes]) -> list[bytes]:
        """Of our orders, what somebody lacks who knows of these; nothing is said of a key that is not trusted here."""
        have = set(known)
        return [envelope for id_, envelope in self._orders.of(grid).items() if id_ not in have][:SHED_SENT_MAX]

    def _remember(self, grid: bytes, peer: bytes) -> None:
        if (askers := self._askers.get(grid)) is not None:
            askers[peer] = None
            askers.move_to_end(peer)
            if len(askers) > ASKERS_MAX:
                askers.popitem(last=False)

    def _near(self, grid: bytes) -> set[bytes]:
        return {*self._chosen[grid], *self._askers[grid]} - {self._network.key}


async def publish(network: Network, order: Signed[ShedOrder], most: int) -> tuple[int, int]:
    """The order is with up to `most` of those who trust its key, who pass it on: how many of them took it, and how many are
    known. `order` was signed, or checked, by the caller."""
    found = await network.find(shed_key(order.signer))
    frame = encode_message(ShedExchange(order.signer, (order.id,), (order.envelope,)))
    took = 0

    async def tell(provider: Provider) -> None:
        nonlocal took
        with suppress(NetworkError, RemoteProtocolError), trio.move_on_after(EXCHANGE_S):
            reply = await network.request(provider.peer, SHED_PROTOCOL, frame, provider.addresses)
            took += order.id in _exchange_untrusted(reply).known

    async with trio.open_nursery() as nursery:
        for provider in chance().sample(found, min(most, len(found))):
            nursery.start_soon(tell, provider)
    return took, len(found)


def _exchange_untrusted(frame: bytes) -> ShedExchange:
    message = decode_message_untrusted(frame)
    if not isinstance(message, ShedExchange):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That is not said on this stream.")
    return message
