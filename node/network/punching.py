"""A direct way between two hosts behind routers, found over a relay: libp2p's DCUtR, over TCP.

Both dial each other in the same moment, from ports that they have told each other, so that each router takes what comes
for an answer. Whoever does that learns the other's address: this host begins it only with those that it works with, and
lets only those begin it whom it has dialled itself.

Upstream's `DCUtRProtocol` begins it with every peer that comes through a relay, every two seconds, and answers everybody
(relay/circuit_v2/dcutr.py:271 and :326); a stranger would have a household's address for the asking.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from ...protocol.errors import Code, NetworkError
from .boundary import Tasks, translated
from .circuit import hear_untrusted, relayed, tell
from .dialback import at, port_of
from .dialling import Dialler
from .host import swarm_of
from .identity import Multiaddr, MultiaddrError, is_relayed
from .muxer import Muxer

PUNCH_ID: Final = TProtocol("/libp2p/dcutr")

ROUNDS: Final = 3
ROUND_S: Final = 3.0
"""The first packet of one side is mostly lost at the other's router, and TCP sends it again after 1 s."""
TALK_S: Final = 10.0
"""For the messages over the relay."""
ADDRESSES_MAX: Final = 4
"""Dialled of one peer: its router's, and its own in the same house."""
RETRY_S: Final = 600.0
"""A router that did not let us through will not do so a minute later."""
RETIRE_S: Final = 5.0
"""How often is looked whether nothing uses the relayed connection any more."""
WORKS_WITH_MAX: Final = 256
"""Peers remembered; those forgotten stay relayed."""


class Puncher:
    """Direct ways of one host. `own_ips` gives the IP addresses under which it may be dialled, the router's first."""

    def __init__(
        self, host: BasicHost, tasks: Tasks, dialler: Dialler, own_ips: Callable[[], Awaitable[list[str]]]
    ) -> None:
        self._host = host
        self._tasks = tasks
        self._dialler = dialler
        self._own_ips = own_ips
        self._tried_at: dict[ID, float] = {}
        host.set_stream_handler(PUNCH_ID, self._answer)

    def punch(self, peer: ID) -> None:
        """A direct way to a peer that is connected through a relay alone is being looked for, unless that failed lately."""
        now_s = trio.current_time()
        if not self._relayed_only(peer) or now_s - self._tried_at.get(peer, -RETRY_S) < RETRY_S:
            return
        self._tried_at.pop(peer, None)
        while len(self._tried_at) >= WORKS_WITH_MAX:
            del self._tried_at[next(iter(self._tried_at))]
        self._tried_at[peer] = now_s
        self._tasks.spawn(lambda: self._begin(peer))

    def _relayed_only(self, peer: ID) -> bool:
        connections = [each for each in swarm_of(self._host).get_connections(peer) if not each.is_closed]
        return bool(connections) and all(map(relayed, connections))

    async def _begin(self, peer: ID) -> None:
        """The side that was dialled begins, as DCUtR has it."""
        port = self._port()
        stream = await self._dialler.open(peer, PUNCH_ID)
        try:
            with translated(Code.STREAM_CLOSED, "the peer does not dial directly"), trio.fail_after(TALK_S):
                began = trio.current_time()
                await tell(stream, await self._offer(port))
                answer = await hear_untrusted(stream, HolePunch)
                trip_s = trio.current_time() - began
                await tell(stream, HolePunch(type=HolePunch.SYNC))
                await trio.sleep(trip_s / 2)
        finally:
            self._tasks.spawn(stream.close)
        await self._dial(peer, _addresses_untrusted(answer), port, begun_here=True)

    async def _answer(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        if not self._dialled_by_us(stream):  # [REJECT] a stranger would learn where we are
            return await stream.reset()
        port = self._port()
        with trio.fail_after(TALK_S):
            offer = await hear_untrusted(stream, HolePunch)
            await tell(stream, await self._offer(port))
            await hear_untrusted(stream, HolePunch)
        await stream.close()
        await self._dial(peer, _addresses_untrusted(offer), port, begun_here=False)

    def _dialled_by_us(self, stream: INetStream) -> bool:
        muxed = stream.muxed_conn
        connections = swarm_of(self._host).get_connections(muxed.peer_id)
        return muxed.is_initiator and any(each.muxed_conn is muxed and relayed(each) for each in connections)

    async def _dial(self, peer: ID, addresses: list[Multiaddr], port: int, *, begun_here: bool) -> None:
        """Connected directly if the routers let it be; then, the connection through the relay ends when nothing uses it.

        Sockets that meet half-way have no dialler: the side that began takes the listener's part in the handshake.
        """
        swarm = swarm_of(self._host)
        dial = swarm.dial_addr_as_responder if begun_here else swarm.dial_addr

        async def one(address: Multiaddr) -> None:
            with suppress(NetworkError), translated(Code.PEER_UNREACHABLE, str(address)):
                await dial(address, peer, ("0.0.0.0", port))
                nursery.cancel_scope.cancel()

        for _ in range(ROUNDS):
            with trio.move_on_after(ROUND_S):
                async with trio.open_nursery() as nursery:
                    for address in addresses:
                        nursery.start_soon(one, address)
                    nursery.start_soon(trio.sleep, ROUND_S)
            if not self._relayed_only(peer):
                return await self._retire(peer)

    async def _retire(self, peer: ID) -> None:
        """No stream uses the connections through relays any more, and they are closed."""
        swarm = swarm_of(self._host)
        while old := [each for each in swarm.get_connections(peer) if relayed(each)]:
            await trio.sleep(RETIRE_S)
            if all(map(relayed, swarm.get_connections(peer))):
                return  # the direct way has ended first
            for connection in old:
                if not (isinstance(connection.muxed_conn, Muxer) and connection.muxed_conn.streams.busy):
                    await connection.close()

    def _port(self) -> int:
        """Where this host listens, else a port that is free now: what meets half-way needs no listener."""
        for address in self._host.get_transport_addrs():
            if port := port_of(address):
                return port
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    async def _offer(self, port: int) -> HolePunch:
        ips = await self._own_ips()
        return HolePunch(type=HolePunch.CONNECT, ObsAddrs=[at(ip, port).to_bytes() for ip in ips])


def _addresses_untrusted(message: HolePunch) -> list[Multiaddr]:
    addresses = []
    for raw in message.ObsAddrs[:ADDRESSES_MAX]:
        try:
            address = Multiaddr(raw)
            if port_of(address) and not is_relayed(address):
                addresses.append(address)
        except (ValueError, MultiaddrError):
            continue  # [IGNORE] an address of a kind that we do not know
    return addresses
