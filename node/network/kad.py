"""Kademlia's exchanges on the wire: this node's answers to others, and theirs to its questions.

Of upstream's implementation only the messages are used; `index` and `dht` say why. Questions may be asked one after
another on a stream. A FIND_NODE is asked with any key: upstream's takes none over 50 bytes (kad_dht/kad_dht.py:706).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Final

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IncompleteReadError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.envelope import consume_envelope
from libp2p.peer.id import ID
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

from ...protocol.errors import Code, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .boundary import Tasks, translated
from .buckets import Contact
from .dialling import Dialler
from .entries import ADDRESS_BYTES_MAX, Sender, network_of
from .identity import Multiaddr, MultiaddrError, bare_addresses, key_of
from .index import Index
from .muxer import Muxer
from .seam import VALUE_BYTES_MAX, Validator
from .standing import Fault

KAD_ID: Final = TProtocol("/fallow/kad/1.0.0")

QUESTION_BYTES_MAX: Final = VALUE_BYTES_MAX + 16 * 1024
"""A value, its key, and the sender's signed addresses."""

ANSWER_BYTES_MAX: Final = 256 * 1024
"""Twenty peers with their addresses take 20 KB at most, 64 providers 80 KB."""

SERVED_PER_PEER_MAX: Final = 16
SERVED_S: Final = 10.0
"""Streams of the table that one peer may hold open, and for how long. A client that looks for several bundles at once
opens some; what all peers together may open, their number bounds."""


TEXTS_REMEMBERED: Final = 4096
"""Addresses that are not read again, at some 300 bytes each: every search hears the same few from twenty peers."""


class Kad:
    """This node's part of the table, and the way to ask others. `serves`: it is an index node."""

    def __init__(
        self, host: BasicHost, tasks: Tasks, dialler: Dialler, rules: Validator, random: Random, *, serves: bool
    ) -> None:
        self.serves = serves
        self.own: Final = host.get_id().to_bytes()
        self.index = Index(self.own, rules, random)
        self.told: dict[bytes, tuple[bytes, ...]] = {}
        """Whom those by which a client joined have named, and where: to go on by if these are gone. A few answers' worth."""
        self.spawn = tasks.spawn
        self._host = host
        self._dialler = dialler
        self._served: Counter[ID] = Counter()
        if serves:
            host.set_stream_handler(KAD_ID, self._serve)

    async def _serve(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        if self._served[peer] >= SERVED_PER_PEER_MAX:
            await stream.reset()
            return
        self._served[peer] += 1
        try:
            with trio.move_on_after(SERVED_S) as scope:
                await self._answer_all(stream)
            if scope.cancelled_caught:
                await stream.reset()
        finally:
            self._served[peer] -= 1
            if not self._served[peer]:
                del self._served[peer]

    async def _answer_all(self, stream: INetStream) -> None:
        """Every question on the stream is answered, until its end, or the first that breaks a rule."""
        sender = sender_of(stream)
        while True:
            try:
                raw = await read_varint_prefixed_bytes_limited(stream, QUESTION_BYTES_MAX)
                question = Message.FromString(raw)
            except IncompleteReadError:
                return await stream.close()  # the end; a question cut short asks nothing
            except (DecodeError, ValueError):
                return await self._refuse(stream, Fault.BAD_FRAME)
            answer = self.index.answer_untrusted(question, sender, trio.current_time())
            if isinstance(answer, Fault):
                return await self._refuse(stream, answer)
            if not self.heard(stream, question, proven=False):
                return await self._refuse(stream, Fault.BAD_RECORD)
            answer.senderRecord = self._record()
            await stream.write(encode_varint_prefixed(answer.SerializeToString()))

    async def _refuse(self, stream: INetStream, fault: Fault) -> None:
        await stream.reset()
        blame(stream, fault)

    def message(self, kind: Message.MessageType, key: bytes) -> Message:
        """A question or a record. An index node says with it where it is; who does not say so is none."""
        return Message(type=kind, key=key, senderRecord=self._record() if self.serves else None)

    async def exchange(self, peer: ID, message: Message, addresses: Sequence[bytes] = ()) -> Message:
        """The peer's answer. Raises `peer_unreachable`, `protocol_unsupported` or `stream_closed`."""
        stream = await self._dialler.open(peer, KAD_ID, [*self._known(peer), *readable(peer, addresses)])
        end = stream.reset
        try:
            with translated(Code.STREAM_CLOSED, "the peer did not answer"):
                await stream.write(encode_varint_prefixed(message.SerializeToString()))
                answer = Message.FromString(await read_varint_prefixed_bytes_limited(stream, ANSWER_BYTES_MAX))
                end = stream.close
            if not self.heard(stream, answer, proven=True):
                blame(stream, Fault.BAD_RECORD)
                raise NetworkError(Code.STREAM_CLOSED, f"{peer} says in another's name where it is")
            return answer
        finally:
            self.spawn(end)

    def accuse(self, peer: ID, fault: Fault) -> None:
        """What the peer answered counts against it."""
        for connection in list(self._host.get_network().get_connections(peer)):
            muxed = getattr(connection, "muxed_conn", None)
            if isinstance(muxed, Muxer):
                muxed.blame(fault)
                return

    def connected(self, peer: ID) -> bool:
        """Whether a connection to the peer stands."""
        return self._dialler.connected(peer)

    def lost(self, peer: ID) -> None:
        """The peer did not answer: it is no index node to us, but for one that only had no room for another stream."""
        if not self._dialler.connected(peer):
            self.index.buckets.remove(peer.to_bytes())

    def frozen(self, peer: ID) -> None:
        """The peer has been silent for so long that it is none to us, connected or not."""
        self.index.buckets.remove(peer.to_bytes())

    def heard(self, stream: INetStream, message: Message, *, proven: bool) -> bool:
        """Where the sender says that it is, is known. False if it did not say so itself."""
        raw, peer = message.senderRecord, stream.muxed_conn.peer_id
        if not raw:
            return True
        name = peer.to_bytes()
        known = self.index.buckets.get(name)
        if known is not None and known.record == raw:
            known.proven = known.proven or proven
            return True
        try:
            with translated(Code.STREAM_CLOSED, "no signed addresses"):
                _, record = consume_envelope(raw, "libp2p-peer-record")
        except NetworkError:
            return False
        addresses = tuple(address.to_bytes() for address in record.addrs[:ADDRESSES_MAX])
        if record.peer_id != peer or any(len(address) > ADDRESS_BYTES_MAX for address in addresses):
            return False
        if addresses:
            self.index.buckets.add(Contact(name, addresses, raw, sender_of(stream).network, proven))
        return True

    def _known(self, peer: ID) -> list[Multiaddr]:
        name = peer.to_bytes()
        contact = self.index.buckets.get(name)
        return readable(peer, contact.addresses if contact else self.told.get(name, ()))

    def _record(self) -> bytes:
        return env_to_send_in_RPC(self._host)[0]


def sender_of(stream: INetStream) -> Sender:
    """Who is at the other end."""
    muxed = stream.muxed_conn
    where = muxed.get_remote_address() if isinstance(muxed, Muxer) else None
    return Sender(muxed.peer_id.to_bytes(), network_of(where[0]) if where else "")


def blame(stream: INetStream, fault: Fault) -> None:
    """The fault counts against the peer at the other end."""
    if isinstance(stream.muxed_conn, Muxer):
        stream.muxed_conn.blame(fault)


def peer_untrusted(name: bytes) -> ID | None:
    """The peer of that libp2p id; None if it is none of this mesh."""
    peer = ID(name)
    try:
        key_of(peer)
    except NetworkError:
        return None
    return peer


def readable(peer: ID, addresses: Sequence[bytes]) -> list[Multiaddr]:
    """Those of the addresses that can be read and name this peer or nobody, at most `ADDRESSES_MAX`."""
    texts = map(_text, addresses[:ADDRESSES_MAX])
    return bare_addresses(peer, [text for text in texts if text is not None])


@lru_cache(maxsize=TEXTS_REMEMBERED)
def _text(address: bytes) -> str | None:
    try:
        return str(Multiaddr(address)) if len(address) <= ADDRESS_BYTES_MAX else None
    except (ValueError, MultiaddrError):
        return None  # [IGNORE] an address of a kind that we do not know, or longer than any
