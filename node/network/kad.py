"""Upstream's Kademlia server, bounded, and one exchange with somebody else's."""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, routing_table, value_store
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError, env_to_send_in_RPC
from libp2p.records.validator import NamespacedValidator
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

from ...protocol.errors import Code, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .boundary import Tasks, translated
from .dialling import Dialler
from .identity import Multiaddr, MultiaddrError
from .seam import KEY_BYTES_MAX, VALUE_BYTES_MAX, Validator
from .walk import FANOUT

KAD_ID: Final = TProtocol("/fallow/kad/1.0.0")
for _module in (common, kad_dht, peer_routing, provider_store, routing_table, value_store):
    # kad_dht/kad_dht.py:340 ignores the prefix that it is given, and the mesh must never mix with the public table of
    # IPFS.
    vars(_module)["PROTOCOL_ID"] = KAD_ID

ANSWER_BYTES_MAX: Final = 1024 * 1024
"""Twenty peers with their addresses and signed records take 20 KB; 400 providers 300 KB."""

SERVED_PER_PEER_MAX: Final = 4
SERVED_S: Final = 10.0
"""Streams of the table that one peer may hold open, and for how long: kad_dht/kad_dht.py:323 serves 12 in all, and
without these bounds one idle peer takes the table away from everybody."""

PROVIDE_RATE_MAX: Final = 64
"""Provider records accepted from one peer in 10 s; upstream's 10 (kad_dht/kad_dht.py:313) is fewer than a node's
bundles."""


class Kad:
    """The routing table, what this node keeps for others, and the way to ask others."""

    def __init__(self, host: BasicHost, tasks: Tasks, dialler: Dialler, validator: Validator, *, serves: bool) -> None:
        self.serves = serves
        self._host = host
        self._tasks = tasks
        self._dialler = dialler
        mode = DHTMode.SERVER if serves else DHTMode.CLIENT
        self.upstream = KadDHT(host, mode, validator=_Rules(validator), validator_changed=True, strict_validation=True)
        self.upstream._provider_rate_max = PROVIDE_RATE_MAX
        self._served: Counter[ID] = Counter()
        if serves:
            host.set_stream_handler(KAD_ID, self._serve)

    async def maintain(self) -> None:
        """Upstream's housekeeping runs until cancelled: the table is refreshed and what has expired is dropped."""
        async with background_trio_service(self.upstream):
            await trio.sleep_forever()

    async def _serve(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        if self._served[peer] >= SERVED_PER_PEER_MAX:
            await stream.reset()
            return
        self._served[peer] += 1
        try:
            with trio.move_on_after(SERVED_S) as scope:
                await self.upstream.handle_stream(stream)
                await self.alive(peer)  # its addresses may have come with the message
            if scope.cancelled_caught:
                await stream.reset()
        finally:
            self._served[peer] -= 1
            if not self._served[peer]:
                del self._served[peer]

    def closest(self, target: bytes) -> list[ID]:
        return self.upstream.routing_table.find_local_closest_peers(target, FANOUT)

    def may_serve(self, peer: ID) -> bool:
        """kad_dht/kad_dht.py:578 takes whoever asks for a server, clients too; identify tells them apart."""
        if peer == self._host.get_id():
            return False
        try:
            protocols = self._host.get_peerstore().get_protocols(peer)
        except PeerStoreError:
            return True
        return not protocols or KAD_ID in protocols

    async def alive(self, peer: ID) -> None:
        if self.may_serve(peer):
            await self.upstream.routing_table.add_peer(peer)

    def dead(self, peer: ID) -> None:
        self.upstream.routing_table.remove_peer(peer)

    def message(self, kind: Message.MessageType, key: bytes) -> Message:
        """A question or a record. A server sends its addresses with it: whoever sends them gets into routing tables."""
        record = env_to_send_in_RPC(self._host)[0] if self.serves else None
        return Message(type=kind, key=key, senderRecord=record)

    async def exchange(self, peer: ID, message: Message) -> Message:
        """The peer's answer. Raises `peer_unreachable`, `protocol_unsupported` or `stream_closed`."""
        stream = await self._dialler.open(peer, KAD_ID)
        end = stream.reset
        try:
            with translated(Code.STREAM_CLOSED, "the peer did not answer"):
                await stream.write(encode_varint_prefixed(message.SerializeToString()))
                answer = Message.FromString(await read_varint_prefixed_bytes_limited(stream, ANSWER_BYTES_MAX))
                end = stream.close
                return answer
        finally:
            self._tasks.spawn(end)

    def learn_closer(self, answer: Message) -> list[ID]:
        """The peers that the answer names as closer, with their addresses remembered for an hour."""
        closer = []
        for entry in answer.closerPeers[:FANOUT]:
            if addresses := addresses_of(entry):
                peer = ID(entry.id)
                self._host.get_peerstore().add_addrs(peer, addresses, 3600)
                closer.append(peer)
        return closer


def addresses_of(entry: Message.Peer) -> list[Multiaddr]:
    """The addresses that can be read, at most `ADDRESSES_MAX`."""
    addresses = []
    for raw in entry.addrs[:ADDRESSES_MAX]:
        try:
            address = Multiaddr(raw)
            str(address)
        except (ValueError, MultiaddrError):
            continue  # [IGNORE] an address of a kind that we do not know
        addresses.append(address)
    return addresses


class _Rules(NamespacedValidator):
    """The seam's validator where upstream asks for one: whatever the key, there is no other rule."""

    def __init__(self, validator: Validator) -> None:
        super().__init__({}, strict_validation=True)
        self._seam = validator

    def validate(self, key: str, value: bytes) -> None:
        if len(key.encode()) > KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            raise NetworkError(Code.TOO_LARGE, "the key or the value is too large")
        self._seam.validate(key, value)

    def select(self, key: str, values: list[bytes]) -> int:
        return self._seam.select(key, values)
