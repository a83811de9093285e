"""Connecting to a peer: its addresses race, in one race at a time, and a dead connection is replaced once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, cast

from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError

from ...protocol.errors import Code, NetworkError
from .boundary import Tasks, translated
from .host import swarm_of
from .identity import Multiaddr, is_relayed, split_address
from .muxer import Muxer
from .racing import Race

STREAM_S: Final = 15.0
"""For the two round trips of a fresh stream, beyond libp2p's own 10 s for the second of them."""


class Dialler:
    """Connections and fresh streams of one host."""

    def __init__(self, host: BasicHost, tasks: Tasks) -> None:
        self._host = host
        self._swarm = swarm_of(host)
        self._tasks = tasks
        self._races: dict[ID, Race[INetConn]] = {}
        self.through_relay: Callable[[Multiaddr, ID], Awaitable[INetConn]] | None = None
        """Connects through the relay that the address names; without it, such addresses are left out."""

    def connected(self, peer: ID) -> bool:
        """Whether a connection stands, as far as this side knows."""
        return bool(self.standing(peer))

    def standing(self, peer: ID) -> list[Muxer]:
        """The connections that stand."""
        found = (getattr(each, "muxed_conn", None) for each in self._swarm.get_connections(peer))
        return [muxed for muxed in found if isinstance(muxed, Muxer) and muxed.is_established]

    async def connect(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        """The peer is connected, at one of the given addresses or of those known. Raises `peer_unreachable`.

        Whoever else is about to connect to the peer gives his addresses to the same race.
        """
        self._forget_ended(peer)
        if self.connected(peer):
            return
        if peer == self._host.get_id():
            raise NetworkError(Code.PEER_UNREACHABLE, "a node does not dial itself")
        race = self._races.get(peer)
        if race is None or race.over:
            race = self._races[peer] = Race(partial(self._dial, peer), _close)
            self._tasks.spawn(partial(self._run, peer, race))
        race.add([*addresses, *self.known_addresses(peer)])
        if self._tasks.closed:
            raise NetworkError(Code.STREAM_CLOSED, "the network was closed")
        await race.ended.wait()
        if race.winner is None and not self.connected(peer):
            failures = "; ".join(race.failures) or "no address known"
            raise NetworkError(Code.PEER_UNREACHABLE, f"cannot reach {peer} ({failures})")

    def _forget_ended(self, peer: ID) -> None:
        """The swarm does not use what has ended and is still saying goodbye: network/swarm.py:1708 takes it for open."""
        for connection in list(self._swarm.get_connections(peer)):
            muxed = getattr(connection, "muxed_conn", None)
            if isinstance(muxed, Muxer) and not muxed.is_established:
                self._swarm.remove_conn(cast(SwarmConn, connection))

    async def _run(self, peer: ID, race: Race[INetConn]) -> None:
        try:
            if address := await race.run():
                self._host.get_peerstore().add_addrs(peer, [address], 3600)
        finally:
            if self._races.get(peer) is race:
                del self._races[peer]
            race.ended.set()

    async def _dial(self, peer: ID, address: Multiaddr) -> INetConn:
        with translated(Code.PEER_UNREACHABLE, str(address)):
            # Not host.connect(): network/swarm.py:883 picks one address a transport, :936 sleeps 250 ms even after
            # success, and :950 refuses a failed peer for 60 s whatever its address.
            if not is_relayed(address):
                return await self._swarm.dial_addr(address, peer)
            if self.through_relay is not None:
                return await self.through_relay(address, peer)
            raise NetworkError(Code.PEER_UNREACHABLE, "relays are not used here")

    def known_addresses(self, peer: ID) -> list[Multiaddr]:
        """Where the peer was, or was said to be, without its id."""
        try:
            known = self._host.get_peerstore().addrs(peer)
        except PeerStoreError:
            return []
        return [Multiaddr(text) for address in known if (text := split_address(str(address))[0])]

    async def open(self, peer: ID, protocol: str, addresses: Sequence[Multiaddr] = ()) -> INetStream:
        """A fresh stream. A connection that turns out to be dead is replaced, once.

        Raises `peer_unreachable`, `protocol_unsupported`, or `stream_closed` when the peer is there but will not.
        """
        stood = self.standing(peer)
        await self.connect(peer, addresses)
        try:
            return await self._tasks.finish(lambda: self._new_stream(peer, protocol), STREAM_S, INetStream.reset)
        except NetworkError as error:
            if error.code is Code.PROTOCOL_UNSUPPORTED or all(muxed.is_established for muxed in stood):
                raise  # whichever it went by, it stands
        await self.connect(peer, addresses)
        return await self._tasks.finish(lambda: self._new_stream(peer, protocol), STREAM_S, INetStream.reset)

    async def _new_stream(self, peer: ID, protocol: str) -> INetStream:
        try:
            return await self._host.new_stream(peer, [TProtocol(protocol)])
        except StreamFailure as error:
            # protocol_muxer/multiselect_client.py:257 tells a refusal from a reset or a silence by its words alone.
            if str(error.__cause__).startswith("protocols not supported"):
                raise NetworkError(Code.PROTOCOL_UNSUPPORTED, f"{peer} does not offer {protocol}") from error
            raise NetworkError(Code.STREAM_CLOSED, f"{peer} did not take the stream: {error.__cause__}") from error


async def _close(connection: INetConn) -> None:
    await connection.close()
