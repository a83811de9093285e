"""The seam's `Network` over libp2p."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import SystemRandom
from typing import Final, Literal

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID

from ...protocol.errors import Code, FallowError, NetworkError
from .boundary import Tasks, one_error
from .dht import Table
from .dialling import Dialler
from .door import Door
from .host import make_host, run_host, swarm_of
from .identity import Multiaddr, MultiaddrError, bare_addresses, full_addresses, id_of, key_of, parse_address
from .kad import Kad
from .limits import LIMITS
from .reach import ITSELF, Reach
from .seam import STREAMS_PER_PEER_MAX, Handler, Validator
from .streams import FrameStream
from .ways import Told, Ways, settle

JOIN_S: Final = 20.0
"""For all bootstrap addresses, asked at once, and the search for neighbours behind them; measured under 1 s."""


class Mesh:
    """One running node of the network; made by `open_network`."""

    def __init__(self, host: BasicHost, tasks: Tasks, dialler: Dialler, table: Table, ways: Ways, door: Door) -> None:
        self.key: Final = key_of(host.get_id())
        self.reachability = ways.reachability
        self._host = host
        self._tasks = tasks
        self._dialler = dialler
        self._table = table
        self._ways = ways
        self._door = door
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
        self._tasks.spawn(framed.pump)
        return framed

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        stream = await self.open(peer, protocol, addresses)
        try:
            await stream.send(frame)
            answer = await stream.receive()
        except BaseException:
            self._tasks.spawn(stream.reset)
            raise
        await stream.close()
        return answer

    def serve(self, protocol: str, handler: Handler, *, watched: bool = False) -> None:
        serving: Counter[ID] = Counter()

        async def handle(stream: INetStream) -> None:
            peer = stream.muxed_conn.peer_id
            if serving[peer] >= STREAMS_PER_PEER_MAX:
                await stream.reset()
                return
            serving[peer] += 1
            try:
                await self._run_handler(FrameStream(stream, self._tasks, watched=watched), handler)
            finally:
                serving[peer] -= 1
                if not serving[peer]:
                    del serving[peer]

        self._host.set_stream_handler(TProtocol(protocol), handle)

    async def _run_handler(self, framed: FrameStream, handler: Handler) -> None:
        self._tasks.spawn(framed.pump)
        try:
            await handler(framed)
        except Exception as error:
            if not _expected(error):
                logging.getLogger(__name__).exception("a stream handler failed; its stream was reset")
            await framed.reset()
        else:
            await framed.close()


def _expected(error: BaseException) -> bool:
    """Whether it tells of a peer that left or broke a rule, and not of a bug of ours."""
    if isinstance(error, BaseExceptionGroup):
        return all(_expected(inner) for inner in error.exceptions)
    return isinstance(error, FallowError)


@asynccontextmanager
async def open_network(
    seed: bytes,
    listen: Sequence[str],
    bootstrap: Sequence[str],
    validator: Validator,
    *,
    mode: Literal["server", "client"] = "server",
    reach: Reach = ITSELF,
) -> AsyncIterator[Mesh]:
    """A network that has joined the others and serves until the block ends.

    `seed` is the 32-byte Ed25519 seed; `listen` are multiaddrs (port 0 takes any free one; a client may listen
    nowhere); `bootstrap` are full multiaddrs, one of which must answer; without any, the node starts alone. A server
    keeps its part of the table, unless it is reached through relays. `reach` is how others are to come to it.
    Raises `bootstrap_unreachable`, `port_busy`.
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
                reached = await _reach(dialler, bootstrap)
                dialled = await settle(told, reach, host, tasks, dialler, reached)
                serves = mode == "server" and not told.relayed
                kad = Kad(host, tasks, dialler, validator, SystemRandom(), serves=serves)
                table = Table(host, kad, validator, SystemRandom())
                if reached:
                    with trio.move_on_after(JOIN_S):
                        await table.join(reached)
                nursery.start_soon(table.maintain)
                ways = Ways(reach, told, host, tasks, dialler, table, dialled)
                yield Mesh(host, tasks, dialler, table, ways, door)
            finally:
                tasks.close()
                stop.set()


async def _reach(dialler: Dialler, bootstrap: Sequence[str]) -> list[ID]:
    """The bootstrap peers that answered: at least one, if any were given. Raises `bootstrap_unreachable`."""
    reached: list[ID] = []

    async def reach(address: str) -> None:
        with suppress(NetworkError):  # the others may answer
            peer, where = parse_address(address)
            await dialler.connect(peer, [where])
            reached.append(peer)

    with trio.move_on_after(JOIN_S):
        async with trio.open_nursery() as nursery:
            for address in bootstrap:
                nursery.start_soon(reach, address)
    if bootstrap and not reached:
        named = ", ".join(bootstrap)
        raise NetworkError(Code.BOOTSTRAP_UNREACHABLE, f"none of the bootstrap addresses answers: {named}")
    return reached


def _parse_listen(address: str) -> Multiaddr:
    try:
        return Multiaddr(address)
    except (ValueError, MultiaddrError) as error:
        raise NetworkError(Code.PORT_BUSY, f"cannot listen on {address!r}: {error}") from error
