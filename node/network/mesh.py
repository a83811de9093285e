"""The seam's `Network` over libp2p."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import SystemRandom
from typing import Final, Literal

import trio
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID

from ...protocol.errors import Code, NetworkError
from ...protocol.streams import CONTROL_PROTOCOL
from .answering import control
from .asking import Asking
from .boundary import Tasks, one_error
from .circuit import relayed
from .dht import Table
from .dialling import Dialler
from .door import Door
from .entries import Addresses
from .host import make_host, run_host, swarm_of
from .identity import Multiaddr, MultiaddrError, bare_addresses, full_addresses, id_of, key_of, parse_address
from .idle import IDLE_S, Trimmer
from .introductions import Introductions
from .kad import KAD_ID, SERVED_PER_PEER_MAX, Kad
from .lan import LAN, Neighbours
from .limits import LIMITS
from .muxer import Muxer
from .reach import ITSELF, Reach
from .seam import Handler, Validator
from .services import Service
from .standing import Fault
from .streams import FrameStream
from .ways import Told, Ways, settle

JOIN_S: Final = 20.0
"""For all bootstrap addresses, asked at once, and the search for neighbours behind them; measured under 1 s."""
OTHERS_S: Final = 0.5
"""After the first peer that answered, this much longer for the others: one of them may be frozen."""
GIVEN_S: Final = 1.0
"""For the bootstrap addresses, before those are tried that are known from before: a dial on a bad mobile link."""


class Mesh:
    """One running node of the network; made by `open_network`."""

    def __init__(
        self,
        host: BasicHost,
        tasks: Tasks,
        dialler: Dialler,
        asking: Asking,
        kad: Kad,
        table: Table,
        ways: Ways,
        door: Door,
        trimmer: Trimmer,
    ) -> None:
        self.key: Final = key_of(host.get_id())
        self.reachability = ways.reachability
        self._host = host
        self._tasks = tasks
        self._dialler = dialler
        self._table = table
        self._ways = ways
        self._door = door
        self._trimmer = trimmer
        self._services: dict[str, Service] = {}
        if kad.serves:
            self._services[KAD_ID] = Service(kad.answer, per_peer_max=SERVED_PER_PEER_MAX)
        self._serve(CONTROL_PROTOCOL, control(self._services))
        self._asking = asking
        self.request = asking.request
        self.put = table.put
        self.get = table.get
        self.provide = table.provide
        self.find = table.find

    def addresses(self) -> tuple[str, ...]:
        return full_addresses(self._host.get_id(), self._ways.addresses())

    async def moved(self, known: Sequence[str]) -> None:
        while self.addresses() == tuple(known):
            await self._ways.changed.wait()

    def go_direct(self, peer: bytes) -> None:
        self._ways.go_direct(id_of(peer))

    def peers(self) -> list[bytes]:
        return [key_of(peer) for peer in swarm_of(self._host).get_connections_map() if self._dialler.connected(peer)]

    def blame(self, peer: bytes, fault: Fault) -> None:
        self._door.blame(id_of(peer), "", fault)

    def whereabouts(self, peer: bytes) -> tuple[str, ...]:
        known = id_of(peer)
        return full_addresses(known, self._dialler.known_addresses(known))

    def drop(self, peer: bytes) -> bool:
        known = id_of(peer)
        carried = [each for each in swarm_of(self._host).get_connections(known) if relayed(each) and silent(each)]
        if carried:
            self._asking.leave(known)
        for connection in carried:
            self._tasks.spawn(connection.close)
        return bool(carried)

    def relayed(self, peer: bytes) -> bool:
        standing = [each for each in swarm_of(self._host).get_connections(id_of(peer)) if not each.is_closed]
        return bool(standing) and all(map(relayed, standing))

    async def connect(self, address: str) -> bytes:
        peer, where = parse_address(address)
        await self._dialler.connect(peer, [where])
        return key_of(peer)

    async def open(
        self, peer: bytes, protocol: str, addresses: Sequence[str] = (), *, watched: bool = False
    ) -> FrameStream:
        known = id_of(peer)
        stream = await self._dialler.open(known, protocol, bare_addresses(known, addresses))
        framed = FrameStream(stream, self._tasks, watched=watched)
        framed.connection.keep_s = IDLE_S
        self._tasks.spawn(framed.pump)
        return framed

    def serve(self, protocol: str, handler: Handler, *, watched: bool = False) -> None:
        service = self._services[protocol] = Service(handler, watched=watched)
        self._serve(protocol, service)

    def _serve(self, protocol: str, service: Service) -> None:
        async def handle(stream: INetStream) -> None:
            framed = FrameStream(stream, self._tasks, watched=service.watched)
            if not service.admit(framed.peer):
                await framed.reset()
                return
            self._tasks.spawn(framed.pump)
            await service.run(framed)

        self._host.set_stream_handler(TProtocol(protocol), handle)


@asynccontextmanager
async def open_network(
    seed: bytes,
    listen: Sequence[str],
    bootstrap: Sequence[str],
    validator: Validator,
    *,
    mode: Literal["server", "client"] = "server",
    reach: Reach = ITSELF,
    known: Sequence[str] = (),
    lan: bool = False,
) -> AsyncIterator[Mesh]:
    """A network that has joined the others and serves until the block ends.

    `seed` is the 32-byte Ed25519 seed; `listen` are multiaddrs (port 0 takes any free one; a client may listen
    nowhere); `bootstrap` are full multiaddrs, one of which must answer; without any, the node starts alone. A server
    keeps its part of the table, unless it is reached through relays. `reach` is how others are to come to it.
    `known` are addresses from an earlier time, to join by if no bootstrap peer answers soon; a server, without bootstrap
    addresses, starts alone if they are all gone. Where `bootstrap` has `lan`, one neighbour on this machine's own networks
    will do; with `lan`, neighbours find this node too. Raises `bootstrap_unreachable`, `port_busy`.
    """
    where = [_parse_listen(address) for address in listen]
    told = Told(reach)
    host = make_host(seed, where, told)
    with one_error():
        async with trio.open_nursery() as nursery:
            started, stop = trio.Event(), trio.Event()
            nursery.start_soon(run_host, host, where, started, stop)
            tasks = Tasks(nursery)
            door = Door(host, LIMITS[mode], tasks)
            try:
                await started.wait()
                dialler = Dialler(host, tasks)
                neighbours = Neighbours(host.get_id(), tasks, dialler)
                if lan or LAN in bootstrap:
                    tasks.spawn(partial(neighbours.meet, host.get_transport_addrs() if lan else []))
                reached = await _reach(dialler, neighbours, bootstrap, known)
                if not reached and (bootstrap or (known and mode == "client")):
                    raise _nobody(bootstrap, known)
                dialled = await settle(told, reach, host, tasks, dialler, reached)
                serves = mode == "server" and not told.relayed
                asking = Asking(dialler, tasks)
                kad = Kad(
                    host, tasks, dialler, asking, validator, SystemRandom(), serves=serves, lasting=mode == "client"
                )
                table = Table(partial(_own, host), kad, validator, SystemRandom())
                if reached:
                    with trio.move_on_after(JOIN_S):
                        await table.join(reached)
                neighbours.join = table.join
                nursery.start_soon(table.maintain)
                ways = Ways(reach, told, host, tasks, dialler, table, dialled)
                door.spared = lambda: ways.kept().union(map(ID, kad.index.buckets.closest(kad.own)))
                trimmer = Trimmer(host, tasks, ways.kept)
                nursery.start_soon(trimmer.run)
                nursery.start_soon(Introductions(host).run)
                yield Mesh(host, tasks, dialler, asking, kad, table, ways, door, trimmer)
            finally:
                tasks.close()
                stop.set()


def _own(host: BasicHost) -> Addresses:
    return tuple(address.to_bytes() for address in host.get_addrs())


async def _reach(dialler: Dialler, neighbours: Neighbours, bootstrap: Sequence[str], known: Sequence[str]) -> list[ID]:
    """The peers that answered."""
    reached: list[ID] = []
    all_asked = trio.Event()

    async def reach(address: str) -> None:
        if address == LAN:
            if (neighbour := await neighbours.first()) is not None:
                reached.append(neighbour)
                limit.deadline = min(limit.deadline, trio.current_time() + OTHERS_S)
            return
        with suppress(NetworkError):  # the others may answer
            peer, where = parse_address(address)
            await dialler.connect(peer, [where])
            reached.append(peer)
            limit.deadline = min(limit.deadline, trio.current_time() + OTHERS_S)

    async def reach_given() -> None:
        async with trio.open_nursery() as nursery:
            for address in bootstrap:
                nursery.start_soon(reach, address)
        all_asked.set()

    with trio.move_on_after(JOIN_S) as limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reach_given)
            with trio.move_on_after(GIVEN_S):
                await all_asked.wait()
            for address in [] if reached else known:
                nursery.start_soon(reach, address)
    return reached


def _nobody(bootstrap: Sequence[str], known: Sequence[str]) -> NetworkError:
    given = f"none of the bootstrap addresses answers: {', '.join(bootstrap)}" if bootstrap else ""
    before = f"nobody answers at the {len(known)} addresses known from before" if known else ""
    return NetworkError(Code.BOOTSTRAP_UNREACHABLE, "; ".join(filter(None, (given, before))))


def silent(connection: INetConn) -> bool:
    """Whether nothing has come on it lately, though it was asked for."""
    return not isinstance(connection.muxed_conn, Muxer) or connection.muxed_conn.silent_s > 0


def _parse_listen(address: str) -> Multiaddr:
    try:
        return Multiaddr(address)
    except (ValueError, MultiaddrError) as error:
        raise NetworkError(Code.PORT_BUSY, f"cannot listen on {address!r}: {error}") from error
