"""Connecting to a peer: one address after another, one dial per peer at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError

from ...protocol.errors import Code, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .boundary import Tasks, translated
from .host import swarm_of
from .identity import Multiaddr, is_relayed, split_address
from .muxer import Muxer

ADDRESS_S: Final = 4.0
"""For one address: two round trips on a bad mobile link and a handshake on a busy machine."""

DIAL_S: Final = 12.0
"""For all addresses of one peer."""

STREAM_S: Final = 15.0
"""For the two round trips of a fresh stream, beyond libp2p's own 10 s for the second of them."""


class Dialler:
    """Connections and fresh streams of one host."""

    def __init__(self, host: BasicHost, tasks: Tasks) -> None:
        self._host = host
        self._swarm = swarm_of(host)
        self._tasks = tasks
        self._dialling: dict[ID, trio.Lock] = {}
        self.through_relay: Callable[[Multiaddr, ID], Awaitable[None]] | None = None
        """Connects through the relay that the address names; without it, such addresses are left out."""

    def connected(self, peer: ID) -> bool:
        """Whether a connection stands, as far as this side knows."""
        return any(not connection.is_closed for connection in self._swarm.get_connections(peer))

    def standing(self, peer: ID) -> list[Muxer]:
        """The connections that stand."""
        found = (getattr(each, "muxed_conn", None) for each in self._swarm.get_connections(peer))
        return [muxed for muxed in found if isinstance(muxed, Muxer) and not muxed.is_closed]

    async def connect(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        """The peer is connected: the given addresses were tried first, then those known. Raises `peer_unreachable`."""
        if not self.connected(peer):
            await self._tasks.finish(lambda: self._dial_once(peer, addresses), DIAL_S)

    async def _dial_once(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        lock = self._dialling.setdefault(peer, trio.Lock())
        try:
            async with lock:
                if not self.connected(peer):
                    await self._dial(peer, addresses)
        finally:
            if not lock.statistics().tasks_waiting:
                self._dialling.pop(peer, None)

    async def _dial(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        if peer == self._host.get_id():
            raise NetworkError(Code.PEER_UNREACHABLE, "a node does not dial itself")
        candidates = list(dict.fromkeys([*addresses, *self.known_addresses(peer)]))[:ADDRESSES_MAX]
        candidates.sort(key=is_relayed)  # a relay is the longer way, and somebody's favour
        failures: list[str] = []
        for address in candidates:
            with trio.move_on_after(ADDRESS_S) as scope:
                try:
                    with translated(Code.PEER_UNREACHABLE, str(address)):
                        # Not host.connect(): network/swarm.py:883 picks one address a transport, :936 sleeps 250 ms
                        # even after success, and :950 refuses a failed peer for 60 s whatever its address.
                        await self._dial_one(address, peer)
                    self._host.get_peerstore().add_addrs(peer, [address], 3600)
                    return
                except NetworkError as error:
                    failures.append(error.message)
            if scope.cancelled_caught:
                failures.append(f"{address}: no answer within {ADDRESS_S:g} s")
        raise NetworkError(Code.PEER_UNREACHABLE, f"cannot reach {peer} ({'; '.join(failures) or 'no address known'})")

    async def _dial_one(self, address: Multiaddr, peer: ID) -> None:
        if not is_relayed(address):
            await self._swarm.dial_addr(address, peer)
        elif self.through_relay is not None:
            await self.through_relay(address, peer)
        else:
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
        stood = self.connected(peer)
        await self.connect(peer, addresses)
        try:
            return await self._tasks.finish(lambda: self._new_stream(peer, protocol), STREAM_S, INetStream.reset)
        except NetworkError as error:
            if not stood or error.code is Code.PROTOCOL_UNSUPPORTED or self.connected(peer):
                raise
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
