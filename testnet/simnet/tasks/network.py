"""The seam's `Network` on the medium: what `node.network.mesh` is on libp2p, with the same bounds of time.

What it does as the real one: connections are dialled, directly or through a relay, and end when nobody has used them for over a
minute; watched streams and questions end two seconds after the peer's last word, everything else after ten; a node that
cannot be dialled holds reservations with two relays, and its addresses change when they do. The table is `node.network`'s own
searches and index, over `table`. What it does not: handshakes are a number of round trips, relays are found by the medium and
not in the table, and neighbours on one LAN do not hear each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ....node.network.idle import IDLE_S
from ....node.network.racing import ADDRESS_S
from ....node.network.relays import RETRY_S, WANTED
from ....node.network.seam import CIRCUIT, Handler, Reachability
from ....node.network.services import Service
from ....node.network.standing import Fault
from ....protocol.errors import Code, NetworkError
from ....protocol.identity import peer_id
from ..regions import NATS
from .log import Log
from .medium import Medium, Place
from .streams import SMALL_BYTES, SimStream

if TYPE_CHECKING:
    from .table import SimKad

HANDSHAKE_TRIPS: Final = 3
"""Round trips until a fresh connection carries a stream: TCP, noise, and what the muxer says first."""
WATCHED_S: Final = 2.0
DEAD_S: Final = 10.0
"""After the peer's last word: until watched streams and questions end, and until the connection does (`muxer`)."""
PUNCH_S: Final = 1.5
"""For two sides behind routers to try a direct way, beside round trips."""
HANDSHAKE_BYTES: Final = 600
RESERVATIONS_MAX: Final = 128
"""Of one relay."""
WAYS_MAX: Final = 8
"""Addresses that are remembered of one peer."""


class Connection:
    """Between two networks, perhaps by way of a relay; both sides hold this one."""

    def __init__(self, medium: Medium, number: int, one: SimNetwork, other: SimNetwork, relay: Place | None) -> None:
        self.medium = medium
        self.number = number
        self.sides = (one, other)
        self.relay = relay
        self.used_at = trio.current_time()
        self.busy = 0
        """Streams and questions under way."""
        self.ended = False
        self._streams: dict[SimStream, None] = {}
        self._questions: dict[Waits, None] = {}
        self._last_at = {one: 0.0, other: 0.0}
        """When the last that each side sent arrives: nothing overtakes it."""
        self._held: list[tuple[SimNetwork, int, Callable[[], None]]] = []
        """Sent while the way was cut: TCP sends it again once it is open."""
        self._cut = 0
        """Counts how often the way was cut or opened."""
        self._shut = False

    def far(self, near: SimNetwork) -> SimNetwork:
        """The other side."""
        return self.sides[1] if near is self.sides[0] else self.sides[0]

    def places(self, near: SimNetwork) -> tuple[Place, ...]:
        """From this side to the other."""
        ends = near.place, self.far(near).place
        return ends if self.relay is None else (ends[0], self.relay, ends[1])

    def is_open(self) -> bool:
        """Whether anything comes through now."""
        return self.medium.way_open(*self.places(self.sides[0]))

    def carry(self, near: SimNetwork, length_bytes: int, arrived: Callable[[], None]) -> None:
        """What this side sends is on its way, and `arrived` is called when it is there; never, if the connection ends."""
        if self.ended:
            return
        if not self.is_open():
            self._held.append((near, length_bytes, arrived))
            return
        at = trio.current_time() + self.medium.takes_s(length_bytes, *self.places(near))
        self._last_at[near] = at = max(at, self._last_at[near])
        self.medium.post(at, lambda: None if self.ended else arrived())

    def join(self, stream: SimStream) -> None:
        """The stream is under way."""
        self._streams[stream] = None
        self.busy += 1
        self.used_at = trio.current_time()

    def leave(self, stream: SimStream) -> None:
        """It is not any more."""
        if stream in self._streams:
            del self._streams[stream]
            self.busy -= 1
            self.used_at = trio.current_time()

    def ask(self, question: Waits) -> None:
        """The question is under way."""
        self._questions[question] = None
        self.busy += 1
        self.used_at = trio.current_time()

    def asked(self, question: Waits) -> None:
        """It has its answer, or nobody waits for it."""
        if question in self._questions:
            del self._questions[question]
            self.busy -= 1
            self.used_at = trio.current_time()

    def changed(self) -> None:
        """The way was cut or opened, perhaps: what waited is sent again, or silence is noticed in time."""
        if not self.is_open() and self._shut:
            return  # it was before: what is counted goes on
        self._cut += 1
        self._shut = not self.is_open()
        if self.is_open():
            for side in self.sides:
                if side.closed:  # what runs there now knows nothing of it, and says so
                    self.carry(side, SMALL_BYTES, lambda: self.end("the peer has gone"))
            held, self._held = self._held, []
            for near, length_bytes, arrived in held:
                self.carry(near, length_bytes, arrived)
        else:
            now = trio.current_time()
            self.medium.post(now + WATCHED_S, partial(self._fall_silent, self._cut))
            self.medium.post(now + DEAD_S, partial(self._die, self._cut))

    def _fall_silent(self, cut: int) -> None:
        if cut == self._cut and not self.ended and not self.is_open():
            self._end_what_waits("the peer has fallen silent", lambda stream: stream.watched)

    def _die(self, cut: int) -> None:
        if cut == self._cut and not self.ended and not self.is_open():
            self.end("the connection is dead")

    def end(self, why: str, by: SimNetwork | None = None) -> None:
        """It is over: at once here, and at the other side as soon as it hears of it, if `by` one side."""
        if self.ended:
            return
        if by is not None:
            by.forget(self)
            for stream in [each for each in self._streams if each.here is by]:
                stream.end(why, hard=True)
            if self.is_open():
                self.carry(by, SMALL_BYTES, lambda: self.end(why))
            return
        self.ended = True
        for side in self.sides:
            side.forget(self)
        self._end_what_waits(why, lambda stream: True)

    def _end_what_waits(self, why: str, which: Callable[[SimStream], bool]) -> None:
        for stream in [each for each in self._streams if which(each)]:
            stream.end(why, hard=True)
        for question in list(self._questions):
            question.fail(why)


class Waits(Protocol):
    """What waits for something on a connection."""

    def fail(self, why: str) -> None:
        """It does not come: the connection has ended, or the peer has fallen silent."""


class _Question:
    """One question under way, as its asker sees it."""

    __slots__ = ("answer", "failure", "heard")

    def __init__(self) -> None:
        self.heard = trio.Event()
        self.answer = b""
        self.failure: NetworkError | None = None

    def take(self, answer: bytes) -> None:
        if not self.heard.is_set():
            self.answer = answer
            self.heard.set()

    def fail(self, why: str, code: Code = Code.STREAM_CLOSED) -> None:
        if not self.heard.is_set():
            self.failure = NetworkError(code, why)
            self.heard.set()


class _Asked:
    """A question as the `Stream` that a service is used to: one frame comes, and then the end; one frame goes."""

    __slots__ = ("_connection", "_frame", "_here", "_question", "answered", "peer", "sent_bytes")

    def __init__(self, connection: Connection, here: SimNetwork, frame: bytes, question: _Question) -> None:
        self.peer: Final = connection.far(here).key
        self.answered = False
        self.sent_bytes = 0
        self._connection = connection
        self._here = here
        self._frame: bytes | None = frame
        self._question = question

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._frame is None:
            raise NetworkError(Code.STREAM_CLOSED, "this was the one question")
        frame, self._frame = self._frame, None
        return frame

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.answered:
            raise NetworkError(Code.STREAM_CLOSED, "a question has one answer, and it has gone")
        self.answered = True
        log, asker, number = self._connection.medium.log, self._connection.far(self._here), self._connection.number

        def arrive() -> None:
            log.frame(asker.place.number, number, frame)
            self._question.take(frame)

        self._connection.carry(self._here, len(frame), arrive)
        self.sent_bytes = len(frame)

    async def close(self) -> None:
        await self.reset()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.answered:
            self.answered = True
            self._connection.carry(self._here, SMALL_BYTES, lambda: self._question.fail("the peer did not answer"))


class SimNetwork:
    """One process's place in the network. Made by `machines`; `table` adds what is searched for."""

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
        place.network = self

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
            connection.relay = None
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
        far = connection.far(self)
        stream = SimStream(connection, self, peer, watched=watched)
        stream.other = SimStream(connection, far, self.key, watched=watched)
        stream.other.other = stream
        connection.join(stream)
        opening = _Question()
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

    def _take_stream(self, connection: Connection, protocol: str, theirs: SimStream, opening: _Question) -> None:
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

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        for last in (False, True):
            connection = await self.connected(peer, addresses)
            question = _Question()
            connection.ask(question)
            try:
                far = connection.far(self)
                connection.carry(self, len(frame), partial(far._take_question, connection, protocol, frame, question))
                await question.heard.wait()
            finally:
                connection.asked(question)
            if question.failure is None:
                return question.answer
            if last or not connection.ended:
                raise question.failure
        raise AssertionError("the second try returns or raises")

    def _take_question(self, connection: Connection, protocol: str, frame: bytes, question: _Question) -> None:
        self.log.frame(self.place.number, connection.number, frame)
        service = self._services.get(protocol)
        if service is None or service.watched:
            why = f"the peer answers no {protocol}"
            connection.carry(self, SMALL_BYTES, partial(question.fail, why, Code.PROTOCOL_UNSUPPORTED))
        elif not service.admit(connection.far(self).key):
            connection.carry(self, SMALL_BYTES, partial(question.fail, "the peer takes no more questions"))
        else:
            self.spawn(partial(service.run, _Asked(connection, self, frame, question)))

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
        if connection is None or self._is_idle(connection):
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

    def _is_idle(self, connection: Connection) -> bool:
        if connection.ended:
            return True
        if connection.busy or trio.current_time() - connection.used_at <= IDLE_S:
            return False
        return connection not in self._kept()

    def _kept(self) -> list[Connection]:
        """With relays, and for those that hold reservations here."""
        mine = [self._connections[peer] for peer in self.reserved if peer in self._connections]
        return [*self._relays.values(), *mine] if mine else list(self._relays.values())

    def _trim(self) -> None:
        now = trio.current_time()
        if now <= self._trimmed_until_s:
            return
        for connection in list(self._connections.values()):
            if not connection.busy and self._is_idle(connection) and not connection.far(self)._keeps(connection):
                connection.end("nobody has used the connection")
        used = [now if each.busy else each.used_at for each in self._connections.values()]
        # Who was not used for long is kept; that ends with the connection.
        self._trimmed_until_s = IDLE_S + min((at for at in used if now - at <= IDLE_S), default=now)

    def _keeps(self, connection: Connection) -> bool:
        return connection in self._relays.values()

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
