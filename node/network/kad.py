"""Kademlia's exchanges on the wire: this node's answers to others, and theirs to its questions.

Of upstream's implementation only the messages are used; `index` and `dht` say why. Questions go over the peer's control
stream, or where it knows none over a stream as libp2p has it: there they may be asked one after another. A FIND_NODE is asked
with any key: upstream's takes none over 50 bytes (kad_dht/kad_dht.py:706).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from random import Random
from typing import Final
from weakref import WeakKeyDictionary

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
from .answering import Asked
from .asking import Asking
from .boundary import Tasks, translated
from .buckets import Contact
from .dialling import Dialler
from .entries import ADDRESS_BYTES_MAX, Sender, network_of
from .identity import Multiaddr, MultiaddrError, bare_addresses, key_of
from .idle import PASSING_S
from .index import Index
from .muxer import Muxer
from .seam import VALUE_BYTES_MAX, Stream, Validator
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
        self,
        host: BasicHost,
        tasks: Tasks,
        dialler: Dialler,
        asking: Asking,
        rules: Validator,
        random: Random,
        *,
        serves: bool,
        lasting: bool = False,
    ) -> None:
        """`lasting`: a connection that a question began is kept for further ones, as by clients, whose time counts."""
        self.serves = serves
        self._lasting = lasting
        self.own: Final = host.get_id().to_bytes()
        self.index = Index(self.own, rules, random)
        self.told: dict[bytes, tuple[bytes, ...]] = {}
        """Whom those by which a client joined have named, and where: to go on by if these are gone. A few answers' worth."""
        self.spawn = tasks.spawn
        self._host = host
        self._dialler = dialler
        self._asking = asking
        self._served: Counter[ID] = Counter()
        self._said: WeakKeyDictionary[Muxer, bytes] = WeakKeyDictionary()
        """What the other end knows of where this node is."""
        self._records: WeakKeyDictionary[Muxer, bytes] = WeakKeyDictionary()
        """What the other end has said of itself, and what holds for its later messages too."""
        if serves:
            host.set_stream_handler(KAD_ID, self._serve)

    async def answer(self, stream: Stream) -> None:
        """A question of a control stream has got its answer. Raises what is wrong with it, which counts against the asker."""
        assert isinstance(stream, Asked), "streams of the table's own carry libp2p's framing"
        try:
            question = Message.FromString(await stream.receive())
        except DecodeError:
            answer: Message | Fault = Fault.BAD_FRAME
        else:
            answer = self._reply(question, stream.connection)
        if isinstance(answer, Fault):
            stream.connection.blame(answer)
            raise NetworkError(Code.STREAM_CLOSED, f"the question breaks a rule of the table: {answer.name.lower()}")
        if self._said.get(stream.connection) == answer.senderRecord:
            answer.ClearField("senderRecord")
        else:
            self._said[stream.connection] = answer.senderRecord
        if answer.type == Message.PUT_VALUE:
            answer.ClearField("record")  # the asker has it
        await stream.send(answer.SerializeToString())

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
        muxed = stream.muxed_conn
        assert isinstance(muxed, Muxer)
        while True:
            try:
                raw = await read_varint_prefixed_bytes_limited(stream, QUESTION_BYTES_MAX)
                question = Message.FromString(raw)
            except IncompleteReadError:
                return await stream.close()  # the end; a question cut short asks nothing
            except (DecodeError, ValueError):
                answer: Message | Fault = Fault.BAD_FRAME
            else:
                answer = self._reply(question, muxed)
            if isinstance(answer, Fault):
                await stream.reset()
                return muxed.blame(answer)
            await stream.write(encode_varint_prefixed(answer.SerializeToString()))

    def _reply(self, question: Message, muxed: Muxer) -> Message | Fault:
        answer = self.index.answer_untrusted(question, sender_of(muxed), trio.current_time())
        if isinstance(answer, Fault):
            return answer
        if not self.heard(muxed, question, proven=False):
            return Fault.BAD_RECORD
        answer.senderRecord = self._record()
        return answer

    def message(self, kind: Message.MessageType, key: bytes) -> Message:
        """A question or a record. An index node says with it where it is; who does not say so is none."""
        return Message(type=kind, key=key, senderRecord=self._record() if self.serves else None)

    async def exchange(self, peer: ID, message: Message, addresses: Sequence[bytes] = ()) -> Message:
        """The peer's answer. Raises `peer_unreachable`, `protocol_unsupported` or `stream_closed`."""
        met = self._dialler.connected(peer)
        where, question = [*self._known(peer), *readable(peer, addresses)], message.SerializeToString()
        answered = await self._asking.over_control(peer, KAD_ID, question, where, partial(self._brief, message))
        if answered is None:
            answered = await self._over_its_own_stream(peer, question, where)
        raw, muxed = answered
        if muxed.is_initiator and not met and not self._lasting:
            muxed.keep_s = max(muxed.keep_s, PASSING_S)
        self._said[muxed] = message.senderRecord or self._said.get(muxed, b"")
        with translated(Code.STREAM_CLOSED, "the peer did not answer as the table does"):
            if len(raw) > ANSWER_BYTES_MAX:
                raise ValueError(f"{len(raw)} bytes")
            answer = Message.FromString(raw)
        if not self.heard(muxed, answer, proven=True):
            muxed.blame(Fault.BAD_RECORD)
            raise NetworkError(Code.STREAM_CLOSED, f"{peer} says in another's name where it is")
        return answer

    def _brief(self, message: Message, muxed: Muxer) -> bytes | None:
        """The message without what the peer has been told on this connection before; None if it has not been."""
        if self._said.get(muxed) != message.senderRecord:
            return None
        brief = Message()
        brief.CopyFrom(message)
        brief.ClearField("senderRecord")
        return bytes(brief.SerializeToString())

    async def _over_its_own_stream(
        self, peer: ID, question: bytes, addresses: Sequence[Multiaddr]
    ) -> tuple[bytes, Muxer]:
        stream = await self._dialler.open(peer, KAD_ID, addresses)
        end = stream.reset
        try:
            with translated(Code.STREAM_CLOSED, "the peer did not answer"):
                await stream.write(encode_varint_prefixed(question))
                answer = await read_varint_prefixed_bytes_limited(stream, ANSWER_BYTES_MAX)
                end = stream.close
            assert isinstance(stream.muxed_conn, Muxer)
            return answer, stream.muxed_conn
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

    def heard(self, muxed: Muxer, message: Message, *, proven: bool) -> bool:
        """Where the peer at the other end says that it is, or has said on this connection, is known. False if it did not say
        so itself."""
        raw, peer = message.senderRecord or self._records.get(muxed, b""), muxed.peer_id
        if not raw:
            return True
        name = peer.to_bytes()
        known = self.index.buckets.get(name)
        if known is not None and known.record == raw:
            known.proven = known.proven or proven
            self._records[muxed] = raw
            return True
        try:
            with translated(Code.STREAM_CLOSED, "no signed addresses"):
                _, record = consume_envelope(raw, "libp2p-peer-record")
        except NetworkError:
            return False
        addresses = tuple(address.to_bytes() for address in record.addrs[:ADDRESSES_MAX])
        if record.peer_id != peer or any(len(address) > ADDRESS_BYTES_MAX for address in addresses):
            return False
        self._records[muxed] = raw
        if addresses:
            self.index.buckets.add(Contact(name, addresses, raw, sender_of(muxed).network, proven))
        return True

    def _known(self, peer: ID) -> list[Multiaddr]:
        name = peer.to_bytes()
        contact = self.index.buckets.get(name)
        return readable(peer, contact.addresses if contact else self.told.get(name, ()))

    def _record(self) -> bytes:
        return env_to_send_in_RPC(self._host)[0]


def sender_of(muxed: Muxer) -> Sender:
    """Who is at the other end."""
    where = muxed.get_remote_address()
    return Sender(muxed.peer_id.to_bytes(), network_of(where[0]) if where else "")


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
