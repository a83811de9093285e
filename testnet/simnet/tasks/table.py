"""The table of the simulated network: `node.network`'s own searches, buckets and index, asked over the medium.

Only the exchange of one question for one answer is other than in `node.network.kad`: protobuf's messages are handed over as
they are, and an index node is told who asks instead of reading it from a signed record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from random import Random
from typing import Any, Final

import trio

from ....node.network.buckets import Contact
from ....node.network.dht import Table
from ....node.network.entries import Sender, network_of
from ....node.network.identity import Multiaddr, id_of, key_of, split_address
from ....node.network.idle import PASSING_S
from ....node.network.index import Index, Message
from ....node.network.seam import Provider, Validator
from ....node.network.standing import Fault
from ....node.network.walk import FANOUT
from ....protocol.errors import Code, NetworkError
from ....protocol.identity import peer_id
from .medium import Place, Waiting
from .network import SimNetwork

JOIN_S: Final = 20.0
EXCHANGE_S: Final = 15.0
"""Then the stream of an exchange is given up (`dialling.STREAM_S`); searches give up long before."""


class SimKad:
    """One machine's part of the table, and the way to ask others: what `node.network.kad.Kad` is."""

    def __init__(
        self, network: SimNetwork, rules: Validator, random: Random, *, serves: bool, lasting: bool = False
    ) -> None:
        """`lasting` as in `node.network.kad.Kad`."""
        self.serves = serves
        self._lasting = lasting
        self.peer = id_of(network.key)
        self.index = Index(self.peer.to_bytes(), rules, random)
        self.told: dict[bytes, tuple[bytes, ...]] = {}
        self.friends: Sequence[Contact] = ()
        """If it is hostile: whom alone it names, and it hides who provides what."""
        self._network = network
        self._sender = Sender(self.own, network_of(network.place.ip))
        network.kad = self

    @property
    def own(self) -> bytes:
        return self.peer.to_bytes()

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            with suppress(NetworkError):
                await task()

        self._network.spawn(guarded)

    def message(self, kind: Message.MessageType, key: bytes) -> Message:
        return Message(type=kind, key=key)

    async def exchange(self, peer: Any, message: Message, addresses: Sequence[bytes] = ()) -> Message:
        network, key = self._network, key_of(peer)
        connection = network.standing(key)
        passes = connection is None and not self._lasting
        if connection is None:
            contact = self.index.buckets.get(peer.to_bytes())
            where = contact.addresses if contact else self.told.get(peer.to_bytes(), ())
            name = peer_id(key)
            connection = await network.connected(key, [f"{_text(each)}/p2p/{name}" for each in (*where, *addresses)])
        far = connection.far(network)
        network.medium.exchanged[message.type] += 1
        connection.ask(exchange := Waiting())
        try:
            there, back = connection.places(network), connection.places(far)
            length = message.ByteSize()
            await network.medium.wait(network.medium.takes_s(length, *there), exchange)
            if not connection.is_open() or far.closed or far.kad is None or not far.kad.serves:
                await network.medium.wait(EXCHANGE_S, exchange)
                raise NetworkError(Code.STREAM_CLOSED, "the peer does not answer")
            answer = far.kad.answer(message, self)
            if isinstance(answer, Fault):
                raise NetworkError(Code.STREAM_CLOSED, f"the peer refused: {answer.name}")
            said = answer.ByteSize()
            await network.medium.wait(network.medium.takes_s(said, *back), exchange)
            if not connection.is_open():
                await network.medium.wait(EXCHANGE_S, exchange)
                raise NetworkError(Code.STREAM_CLOSED, "the peer does not answer")
            if passes:
                connection.keep(network, PASSING_S)
            self._heard(far.kad, proven=True)
            return answer
        finally:
            connection.asked(exchange)

    def answer(self, question: Message, asker: SimKad) -> Message | Fault:
        """As an index node answers, or a hostile one."""
        network = self._network
        minute = int(trio.current_time() // 60)
        network.place.asked[minute] += 1
        network.place.told[minute] += question.type in (Message.PUT_VALUE, Message.ADD_PROVIDER)
        network.log.write(
            network.place.number, "asked", asker._network.place.number, question.type, _short(question.key)
        )
        if self.friends:
            return self._lie(question)
        answer = self.index.answer_untrusted(question, asker._sender, trio.current_time())
        if not isinstance(answer, Fault):
            self._heard(asker, proven=False)
        return answer

    def accuse(self, peer: Any, fault: Fault) -> None:
        """Nothing is held against it here: `standing` is not simulated."""

    def connected(self, peer: Any) -> bool:
        return self._network.standing(key_of(peer)) is not None

    def lost(self, peer: Any) -> None:
        if not self.connected(peer):
            self.index.buckets.remove(peer.to_bytes())

    def frozen(self, peer: Any) -> None:
        self.index.buckets.remove(peer.to_bytes())

    def contact(self, *, proven: bool) -> Contact:
        """This node, as others note it."""
        return contact_of(self._network.place, self._network.addresses(), proven=proven)

    def _heard(self, other: SimKad, *, proven: bool) -> None:
        if not other.serves:
            return
        known = self.index.buckets.get(other.own)
        if known is None:
            self.index.buckets.add(other.contact(proven=proven))
        elif proven:
            known.proven = True

    def _lie(self, question: Message) -> Message:
        answer = self.message(question.type, question.key)
        if question.HasField("record"):
            answer.record.CopyFrom(question.record)  # it says that it keeps it
        for friend in self.friends[:FANOUT]:
            answer.closerPeers.add(id=friend.peer, addrs=friend.addresses)
        return answer


class TableNetwork(SimNetwork):
    """A network with its table. `join` before anything is looked up."""

    def begin(self, rules: Validator, random: Random, *, serves: bool, lasting: bool = False) -> SimKad:
        """It has a part of the table, or at least the way to ask others."""
        kad = SimKad(self, rules, random, serves=serves, lasting=lasting)
        self.table = Table(lambda: tuple(map(_binary, self.addresses())), kad, rules, random)
        return kad

    async def join(self, contacts: Sequence[str]) -> bool:
        """Whether one of the contacts answered, and the table knows this machine."""
        reached = []
        for address in contacts:
            with suppress(NetworkError), trio.move_on_after(4.0):
                reached.append(id_of(await self.connect(address)))
        if reached:
            with trio.move_on_after(JOIN_S):
                await self.table.join(reached)
        return bool(reached)

    async def put(self, key: str, value: bytes) -> int:
        return await self.table.put(key, value)

    async def get(self, key: str) -> bytes | None:
        return await self.table.get(key)

    async def provide(self, key: str) -> int:
        return await self.table.provide(key)

    async def find(self, key: str, tell: Callable[[Provider], None] | None = None) -> list[Provider]:
        self.medium.finds += 1
        found = await self.table.find(key, tell)
        for provider in found:
            place = self.medium.by_key[provider.peer]
            if place.gone_since_s is None:
                self.medium.named_there += 1
            else:
                self.medium.named.append((trio.current_time() - place.gone_since_s, place.number))
        return found


def contact_of(place: Place, addresses: Sequence[str], *, proven: bool) -> Contact:
    """The machine there as index nodes note it."""
    where = tuple(map(_binary, addresses))
    return Contact(id_of(place.key).to_bytes(), where, b"", network_of(place.ip), proven)


@lru_cache(maxsize=65_536)
def _binary(address: str) -> bytes:
    return bytes(Multiaddr(split_address(address)[0]).to_bytes())


@lru_cache(maxsize=65_536)
def _text(address: bytes) -> str:
    return str(Multiaddr(address))


def _short(key: bytes) -> str:
    return key[-12:].hex()
