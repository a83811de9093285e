"""The seam's `Network` on the medium: what `node.network.mesh` is on libp2p, with the same bounds of time.

What it does as the real one: connections are dialled, directly or through a relay, and end when nobody has used them for over a
minute, or for two seconds if a node began them for the table alone; watched streams and questions end two seconds after the
peer's last word, everything else after ten; a node that cannot be dialled holds reservations with two relays, and its addresses
change when they do. The table is `node.network`'s own searches and index, over `table`. What it does not: handshakes are a
number of round trips, relays are found by the medium and not in the table, and neighbours on one LAN do not hear each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from ....node.network.idle import IDLE_S, PASSING_S
from ....node.network.racing import ADDRESS_S
from ....node.network.relays import RETRY_S, WANTED
from ....node.network.seam import CIRCUIT, Handler, Reachability
from ....node.network.services import Service
from ....node.network.standing import Fault, Standings
from ....protocol.errors import Code, NetworkError
from ....protocol.identity import peer_id
from ..regions import NATS
from .connections import Connection
from .log import Log
from .medium import Medium, Place
from .questions import Asked, Question
from .streams import SMALL_BYTES, SimStream

if TYPE_CHECKING:
    from .table import SimKad

HANDSHAKE_TRIPS: Final = 3
"""Round trips until a fresh connection carries a stream: TCP, noise, and what the muxer says first."""
PUNCH_S: Final = 1.5
"""For two sides behind routers to try a direct way, beside round trips."""
HANDSHAKE_BYTES: Final = 600
RESERVATIONS_MAX: Final = 128
"""Of one relay."""
WAYS_MAX: Final = 8
"""Addresses that are remembered of one peer."""


class SimNetwork:
    """One process's place in the network. Made by `nodes` and others; `table` adds what is searched for."""

    def __init__(self, medium: Medium, place: Place, context: Context, nursery: trio.Nursery) -> None:
        self.key: Final = place.key
        self.place = place
        self.medium = medium
        self.peer_id: Final = peer_id(place.key)
        self.reserved: dict[bytes, SimNetwork] = {}
        """As a relay: for whom."""
        self.kad: SimKad | None = None
        """Its part of the table, once it has begun."""
        self._context = context
        self._nursery = nursery
        self.closed = False
        self._services: dict[str, Service] = {}
        self._connections: dict[bytes, Connection] = {}
        self._dialling: dict[bytes, trio.Lock] = {}
        self._ways: dict[bytes, tuple[str, ...]] = {}
        self._relays: dict[bytes, Connection] = {}
        self._news = trio.Event()
        self._trimmed_until_s = 0.0
        """Until then no connection can have been unused for too long: looking through all of them takes long."""
        self._standings = Standings()
        place.network = self
        place.note(medium.now_s)

    @property
    def log(self) -> Log:
        return self.medium.log

    def spawn(self, task: Callable[[], Awaitable[object]]) -> None:
        """The task runs on this machine until it or the network ends."""
        if not self.closed:
            self._context.run(self._nursery.start_soon, task)

    # What others see of it.

    def addresses(self) -> tuple[str, ...]:
        if self.place.dialable:
            return (self._own_address,)
        relays = [each.far(self) for each in self._relays.values()]
        return tuple(f"{relay._own_address}{CIRCUIT}/p2p/{self.peer_id}" for relay in relays)

    @property
    def _own_address(self) -> str:
        return f"/ip4/{self.place.ip}/tcp/4001/p2p/{self.peer_id}"

    async def moved(self, known: Sequence[str]) -> None:
        while self.addresses() == tuple(known):
            await self._news.wait()

    def reachability(self) -> Reachability:
        relayed = not self.place.dialable
        why = "" if self.addresses() else "no relay has a place for it"
        return Reachability(relayed, None, tuple(self._relays), why, len(self.reserved), 0)

    # Whom it knows.

    def peers(self) -> list[bytes]:
        self._trim()
        return list(self._connections)

    def blame(self, peer: bytes, fault: Fault) -> None:
        self.log.write(self.place.number, "blamed", int(fault))
        self.medium.blamed.append((self.place.number, peer, fault))
        if self.medium.bans and self._standings.blame(peer.hex(), fault, self.medium.now_s):
            self.log.write(self.place.number, "bans", self.medium.by_key[peer].number)
            if (connection := self._connections.get(peer)) is not None:
                connection.end("the peer is let in no more", by=self)

    def bans(self, peer: bytes) -> bool:
        """Whether the peer is not let in for a while."""
        return self._standings.banned_s(peer.hex(), self.medium.now_s) > 0

    def whereabouts(self, peer: bytes) -> tuple[str, ...]:
        return self._ways.get(peer, ())

    def learn(self, peer: bytes, addresses: Sequence[str]) -> None:
        """The peer is said to be there."""
        if addresses:
            self._ways[peer] = tuple(dict.fromkeys((*addresses, *self._ways.get(peer, ()))))[:WAYS_MAX]

    def relayed(self, peer: bytes) -> bool:
        connection = self._connections.get(peer)
        return connection is not None and connection.relay is not None

    def drop(self, peer: bytes) -> bool:
        connection = self._connections.get(peer)
        if connection is None or connection.relay is None or connection.is_open():
            return False
        connection.end("the way through the relay was given up")
        return True

    def go_direct(self, peer: bytes) -> None:
        connection = self._connections.get(peer)
        if connection is not None and connection.relay is not None:
            self.spawn(partial(self._punch, connection))

    async def _punch(self, connection: Connection) -> None:
        """One try; whoever is dialable is simply dialled by the other."""
        here, there = NATS[self.place.nat], NATS[connection.far(self).place.nat]
        chance = 1.0 if here.dialable or there.dialable else here.punched * there.punched
        await self.medium.wait(PUNCH_S)
        works = self.medium.random.random() < chance and self.medium.way_open(self.place, connection.far(self).place)
        if works and not connection.ended:
            connection.lead(None)
            self.log.write(self.place.number, "direct", connection.number)

    # Streams and questions.

    def serve(self, protocol: str, handler: Handler, *, watched: bool = False) -> None:
        self._services[protocol] = Service(handler, watched=watched)

    async def connect(self, address: str) -> bytes:
        place = self._place_at(address)
        if place is None:
            raise NetworkError(Code.PEER_UNREACHABLE, f"nobody is at {address}")
        await self.connected(place.key, (address,))
        return place.key

    async def open(
        self, peer: bytes, protocol: str, addresses: Sequence[str] = (), *, watched: bool = False
    ) -> SimStream:
        if watched and (gone_since_s := self.medium.by_key[peer].gone_since_s) is not None:
            self.medium.ordered_gone.append((trio.current_time() - gone_since_s, self.medium.by_key[peer].number))
        connection = await self.connected(peer, addresses)
        connection.keep(self, IDLE_S)
        far = connection.far(self)
        stream = SimStream(connection, self, peer, watched=watched)
        stream.other = SimStream(connection, far, self.key, watched=watched)
        stream.other.other = stream
        connection.join(stream)
        opening = Question()
        connection.ask(opening)
        try:
            connection.carry(self, SMALL_BYTES, lambda: far._take_stream(connection, protocol, stream, opening))
            await opening.heard.wait()
            if opening.failure is not None:
                raise opening.failure
        except BaseException:
            stream.end("the stream was given up", hard=True)
            if stream.other is not None:
                other = stream.other
                connection.carry(self, SMALL_BYTES, lambda: other.end("the other side gave up", hard=True))
            raise
        finally:
            connection.asked(opening)
        return stream

    def _take_stream(self, connection: Connection, protocol: str, theirs: SimStream, opening: Question) -> None:
        service, stream = self._services.get(protocol), theirs.other
        assert stream is not None, "`open` made both ends"
        if service is None:
            refusal = partial(opening.fail, f"the peer does not speak {protocol}", Code.PROTOCOL_UNSUPPORTED)
        elif not service.admit(stream.peer):
            refusal = partial(opening.fail, "the peer takes no more streams")
        else:
            connection.join(stream)
            self.spawn(partial(service.run, stream))
            connection.carry(self, SMALL_BYTES, lambda: opening.take(b"open"))
            return
        connection.carry(self, SMALL_BYTES, refusal)

    async def request(
        self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = (), *, passing: bool = False
    ) -> bytes:
        for last in (False, True):
            connection = await self.connected(peer, addresses)
            question = Question()
            connection.ask(question)
            try:
                far = connection.far(self)
                connection.carry(self, len(frame), partial(far._take_question, connection, protocol, frame, question))
                await question.heard.wait()
            finally:
                connection.asked(question)
            if question.failure is None:
                if not passing:
                    connection.keep(self, IDLE_S)
                return question.answer
            if last or not connection.ended:
                raise question.failure
        raise AssertionError("the second try returns or raises")

    def _take_question(self, connection: Connection, protocol: str, frame: bytes, question: Question) -> None:
        self.log.frame(self.place.number, connection.number, frame)
        service = self._services.get(protocol)
        if service is None or service.watched:
            why = f"the peer answers no {protocol}"
            connection.carry(self, SMALL_BYTES, partial(question.fail, why, Code.PROTOCOL_UNSUPPORTED))
        elif not service.admit(connection.far(self).key):
            connection.carry(self, SMALL_BYTES, partial(question.fail, "the peer takes no more questions"))
        else:
            self.spawn(partial(service.run, Asked(connection, self, frame, question)))

    # Connections.

    async def connected(self, peer: bytes, addresses: Sequence[str] = ()) -> Connection:
        """A connection to the peer, dialled if there is none. Raises `peer_unreachable`."""
        if (standing := self.standing(peer)) is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return standing
        lock = self._dialling.setdefault(peer, trio.Lock())
        async with lock:
            if (standing := self.standing(peer)) is not None:
                return standing
            ways = tuple(dict.fromkeys((*addresses, *self._ways.get(peer, ()))))
            why = "nobody has said where it is"
            for address in sorted(ways, key=lambda each: CIRCUIT in each)[:WAYS_MAX]:
                try:
                    return await self._dial(peer, address)
                except NetworkError as error:
                    why = error.message
            raise NetworkError(Code.PEER_UNREACHABLE, f"peer {peer.hex()[:8]} cannot be reached: {why}")

    def standing(self, peer: bytes) -> Connection | None:
        """The connection to the peer that can be used, if there is one."""
        connection = self._connections.get(peer)
        if connection is None or connection.ended or connection.is_unused(trio.current_time()):
            return None
        return connection

    async def _dial(self, peer: bytes, address: str) -> Connection:
        place, relay = self._place_at(address), self._relay_in(address)
        if place is None or place.key != peer or place is self.place:
            raise NetworkError(Code.PEER_UNREACHABLE, f"somebody else is at {address}")
        way = (self.place, place) if relay is None else (self.place, relay, place)
        if not self.medium.way_open(*way) or (relay is None and not place.dialable):
            await self.medium.wait(ADDRESS_S)
            raise NetworkError(Code.PEER_UNREACHABLE, f"no answer from {address}")
        trip_s = 2 * self.medium.one_way_s(*way)
        if place.network is None or (relay is not None and not _reserved(relay, peer)):
            await self.medium.wait(trip_s)  # a closed port, or a relay that has no place for it, says so at once
            raise NetworkError(Code.PEER_UNREACHABLE, f"refused at {address}")
        takes_s = self.medium.takes_s(HANDSHAKE_BYTES, *way) + (HANDSHAKE_TRIPS - 0.5) * trip_s
        await self.medium.wait(takes_s)
        far = place.network
        if far is None or far.closed or not self.medium.way_open(*way):
            raise NetworkError(Code.PEER_UNREACHABLE, f"the handshake at {address} was not finished")
        if self.bans(peer) or far.bans(self.key):
            raise NetworkError(Code.PEER_UNREACHABLE, f"not let in at {address}")
        if (standing := self.standing(peer)) is not None:
            return standing  # it has dialled us meanwhile
        if (old := self._connections.get(peer)) is not None:
            old.end("nobody had used the connection")
        return self._join(far, relay, address)

    def _join(self, far: SimNetwork, relay: Place | None, address: str) -> Connection:
        number = self.medium.next_connection()
        connection = Connection(self.medium, number, self, far, relay)
        self._connections[far.key] = connection
        far._connections[self.key] = connection
        self.learn(far.key, (address,))
        far.learn(self.key, self.addresses())
        self.log.write(self.place.number, "connected", far.place.number, number, int(relay is not None))
        return connection

    def _place_at(self, address: str) -> Place | None:
        if CIRCUIT in address:
            name = address.rpartition("/p2p/")[2]
            return self.medium.by_peer_id.get(name)
        return self.medium.by_address.get(address.split("/")[2]) if address.count("/") > 2 else None

    def _relay_in(self, address: str) -> Place | None:
        return self.medium.by_address.get(address.split("/")[2]) if CIRCUIT in address else None

    def spares(self, connection: Connection) -> bool:
        """With relays, and for those that hold reservations here, connections are kept though nobody uses them."""
        peer = connection.far(self).key
        mine = peer in self.reserved and self._connections.get(peer) is connection
        return mine or self._relays.get(peer) is connection

    def trims_from(self, at_s: float) -> None:
        """From then on, a connection may have been unused for too long."""
        self._trimmed_until_s = min(self._trimmed_until_s, at_s)

    def _trim(self) -> None:
        now = trio.current_time()
        if now <= self._trimmed_until_s:
            return
        self._trimmed_until_s = now + PASSING_S
        for connection in list(self._connections.values()):
            if connection.is_unused(now):
                connection.end("nobody has used the connection")
        ends = [each.ends_at(now) for each in self._connections.values()]
        # Who was not used for longer is spared; that ends with the connection.
        self._trimmed_until_s = min((at for at in ends if at >= now), default=now + PASSING_S)

    def forget(self, connection: Connection) -> None:
        """The connection is none of ours any more."""
        peer = connection.far(self).key
        if self._connections.get(peer) is connection:
            del self._connections[peer]
        self.reserved.pop(peer, None)
        if self._relays.get(peer) is connection:
            del self._relays[peer]
            self._told()

    def changed(self) -> None:
        """This machine, or others, can be reached no more or again."""
        for connection in list(self._connections.values()):
            connection.changed()

    def close(self) -> None:
        """The process has ended: the others learn of it if its machine can still say so."""
        self.closed = True
        if self.place.network is self:
            self.place.network = None
            self.place.note(self.medium.now_s)
        for connection in list(self._connections.values()):
            connection.end("the peer has gone", by=self)

    # Relays.

    async def keep_relays(self) -> None:
        """It holds reservations with as many relays as it wants, as far as there are any; until cancelled."""
        while not self.place.dialable:
            while len(self._relays) < WANTED:
                found = [
                    each
                    for each in self.medium.places
                    if each.relay and each.key not in self._relays and self.medium.way_open(self.place, each)
                    and each.network is not None and len(each.network.reserved) < RESERVATIONS_MAX
                ]  # fmt: skip
                if not found:
                    break
                near = sorted(found, key=lambda each: (self.medium.one_way_s(self.place, each), each.number))[:4]
                with suppress(NetworkError):
                    await self._reserve(self.medium.random.choice(near))
            news = self._news
            if len(self._relays) < WANTED:
                with trio.move_on_after(RETRY_S):
                    await news.wait()
                await trio.sleep(self.medium.random.uniform(0.1, 1.0))
            else:
                await news.wait()
        await trio.sleep_forever()

    async def _reserve(self, relay: Place) -> None:
        with trio.move_on_after(ADDRESS_S):
            assert relay.network is not None, "the medium named a running one"
            address = relay.network._own_address
            connection = await self.connected(relay.key, (address,))
            await trio.sleep(2 * self.medium.one_way_s(self.place, relay))
            far = connection.far(self)
            if not connection.ended and len(far.reserved) < RESERVATIONS_MAX and relay.key not in self._relays:
                far.reserved[self.key] = self
                self._relays[relay.key] = connection
                self._told()

    def _told(self) -> None:
        self.log.write(self.place.number, "reachable", len(self._relays))
        self._news.set()
        self._news = trio.Event()


def _reserved(relay: Place, peer: bytes) -> bool:
    return relay.network is not None and peer in relay.network.reserved
