"""The table of hints, as the seam promises it.

Upstream's client is not used. It answers from its own copy for 24 h (kad_dht/kad_dht.py:1415) and from its own provider
list (kad_dht/provider_store.py:370), counts duplicates (provider_store.py:433), spends 10 s on every frozen peer
(kad_dht/common.py:24) and cannot look up keys over 50 bytes (kad_dht/kad_dht.py:706). Here one exchange per peer both
asks and learns who is closer, so that no key is ever looked up by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.pb.kademlia_pb2 import Message, Record
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.utils import sign_record

from ...protocol.errors import Code, FallowError, NetworkError
from .identity import Multiaddr, full_addresses, key_of
from .kad import Kad, addresses_of
from .seam import KEY_BYTES_MAX, PROVIDERS_MAX, VALUE_BYTES_MAX, Provider, Validator
from .walk import PEER_S, Walk

ENOUGH_VALUES: Final = 3
"""Valid copies after which a search for a value stops; the newest of them counts, and each expires soon by itself."""


class Table:
    """Searches in the table, and this node's entries in it."""

    def __init__(self, host: BasicHost, kad: Kad, validator: Validator) -> None:
        self._host = host
        self._kad = kad
        self._validator = validator

    async def join(self, peers: Sequence[ID]) -> None:
        """The peers, and those closest to this node behind them, know this node and are known to it."""
        own = self._host.get_id().to_bytes()
        question = self._kad.message(Message.FIND_NODE, own)

        async def ask(peer: ID) -> Sequence[ID]:
            return self._kad.learn_closer(await self._kad.exchange(peer, question))

        await Walk(own, self._kad, ask).run(peers)

    async def put(self, key: str, value: bytes) -> int:
        """See `Network.put`."""
        raw = _checked(key)
        if len(value) > VALUE_BYTES_MAX:
            raise NetworkError(Code.TOO_LARGE, f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
        self._validator.validate(key, value)
        signature, author = sign_record(self._host.get_private_key(), raw, value)
        record = Record(key=raw, value=value, signature=signature, author=author)
        if self._kad.serves:
            self._kad.upstream.value_store.put_record(raw, record)
        message = self._kad.message(Message.PUT_VALUE, raw)
        message.record.CopyFrom(record)
        return await self._spread(raw, self._kad.message(Message.GET_VALUE, raw), message)

    async def get(self, key: str) -> bytes | None:
        """See `Network.get`."""
        raw = _checked(key)
        question = self._kad.message(Message.GET_VALUE, raw)
        values: list[bytes] = []

        async def ask(peer: ID) -> Sequence[ID]:
            answer = await self._kad.exchange(peer, question)
            if answer.HasField("record") and self._valid(key, answer.record.value):
                values.append(answer.record.value)
            return self._kad.learn_closer(answer)

        await Walk(raw, self._kad, ask, lambda: len(values) >= ENOUGH_VALUES).run()
        own = self._kad.upstream.value_store.get(raw)
        if own is not None and self._valid(key, own.value):
            values.append(own.value)
        return values[self._validator.select(key, values)] if values else None

    async def provide(self, key: str) -> int:
        """See `Network.provide`."""
        raw = _checked(key)
        addresses = self._host.get_addrs()
        message = self._kad.message(Message.ADD_PROVIDER, raw)
        entry = message.providerPeers.add(id=self._host.get_id().to_bytes())
        entry.addrs.extend(address.to_bytes() for address in addresses)
        if self._kad.serves:
            self._kad.upstream.provider_store.add_provider(raw, PeerInfo(self._host.get_id(), addresses))
        return await self._spread(raw, self._kad.message(Message.GET_PROVIDERS, raw), message)

    async def find(self, key: str) -> list[Provider]:
        """See `Network.find`."""
        raw = _checked(key)
        question = self._kad.message(Message.GET_PROVIDERS, raw)
        found: dict[ID, list[Multiaddr]] = {}

        def take(peer: ID, addresses: list[Multiaddr]) -> None:
            if peer in found or len(found) < PROVIDERS_MAX:
                found.setdefault(peer, []).extend(addresses)

        async def ask(peer: ID) -> Sequence[ID]:
            answer = await self._kad.exchange(peer, question)
            for entry in answer.providerPeers[:PROVIDERS_MAX]:
                take(ID(entry.id), addresses_of(entry))
            return self._kad.learn_closer(answer)

        for info in self._kad.upstream.provider_store.get_providers(raw):
            take(info.peer_id, info.addrs)
        await Walk(raw, self._kad, ask).run()
        found.pop(self._host.get_id(), None)
        return [provider for peer, addresses in found.items() if (provider := _provider(peer, addresses))]

    async def _spread(self, raw: bytes, question: Message, message: Message) -> int:
        """So many of the peers closest to the key confirmed the message."""

        async def ask(peer: ID) -> Sequence[ID]:
            return self._kad.learn_closer(await self._kad.exchange(peer, question))

        confirmed = 0

        async def tell(peer: ID) -> None:
            nonlocal confirmed
            with trio.move_on_after(PEER_S):
                try:
                    await self._kad.exchange(peer, message)
                    confirmed += 1
                except NetworkError:
                    pass  # it has left, or has something newer: the others keep the record

        closest = await Walk(raw, self._kad, ask).run()
        async with trio.open_nursery() as nursery:
            for peer in closest:
                nursery.start_soon(tell, peer)
        return confirmed

    def _valid(self, key: str, value: bytes) -> bool:
        try:
            self._validator.validate(key, value)
        except FallowError:
            return False  # [IGNORE] some peer keeps what is not, or no longer, valid
        return True


def _checked(key: str) -> bytes:
    raw = key.encode()
    if not 0 < len(raw) <= KEY_BYTES_MAX:
        raise NetworkError(Code.TOO_LARGE, f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(raw)}")
    return raw


def _provider(peer: ID, addresses: list[Multiaddr]) -> Provider | None:
    try:
        return Provider(key_of(peer), full_addresses(peer, addresses))
    except NetworkError:
        return None  # [IGNORE] no Ed25519 key: not a node of this mesh
