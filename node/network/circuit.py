"""Circuits: connections that a relay carries, after libp2p's circuit relay v2. The two ends; `relaying` is the middle.

Only upstream's messages are used. Its `CircuitV2Protocol` keeps the two streams of a circuit under their peers' ids, so
that the end of one circuit closes another of the same peer (relay/circuit_v2/protocol.py:926), lets anybody reserve in
another's name (:541), knows no bound on all circuits together nor on their rate, and waits for every stream of a relay
that is not connected; its `CircuitV2Transport` connects by `host.connect`, with the faults that `dialling` avoids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar

import trio
from google.protobuf.message import DecodeError, Message
from libp2p.abc import INetConn, INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status, StopMessage
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

from ...protocol.errors import Code, NetworkError
from .boundary import Tasks, translated
from .dialling import Dialler
from .host import NEGOTIATION_S, swarm_of
from .identity import CIRCUIT, Multiaddr, MultiaddrError, is_relayed

HOP_ID: Final = TProtocol("/libp2p/circuit/relay/0.2.0/hop")
"""From either end to the relay: to reserve, and to be connected."""
STOP_ID: Final = TProtocol("/libp2p/circuit/relay/0.2.0/stop")
"""From the relay to whoever has reserved: somebody wants to be connected."""

MESSAGE_BYTES_MAX: Final = 4096
"""Of one message, as the specification of circuit relay v2 has it."""

ANSWER_S: Final = 5.0
"""For the relay's answer; it has to ask the other end first."""

RELAY_ADDRESSES_MAX: Final = 4
"""Of one relay in a profile: four relays fill it then."""

_REASONS: Final = {
    Status.RESERVATION_REFUSED: "it has lent all its reservations",
    Status.RESOURCE_LIMIT_EXCEEDED: "it carries as much as its owner allows",
    Status.PERMISSION_DENIED: "it does not carry this peer",
    Status.CONNECTION_FAILED: "it cannot reach the other end",
    Status.NO_RESERVATION: "the other end holds no reservation there",
}
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a relay has granted."""

    expires_s: int
    """Since 1970, by the relay's clock."""
    addresses: tuple[Multiaddr, ...]
    """Through it, without this peer's id at the end."""


class Circuits:
    """One host's circuits: those that it dials, and those that come to it through relays that it has chosen."""

    def __init__(self, host: BasicHost, tasks: Tasks, dialler: Dialler, chosen: Callable[[], Collection[ID]]) -> None:
        """`chosen` are the relays that may bring connections now."""
        self._host = host
        self._tasks = tasks
        self._dialler = dialler
        self._chosen = chosen
        host.set_stream_handler(STOP_ID, self._stopped)

    async def reserve(self, relay: ID, addresses: tuple[Multiaddr, ...] = ()) -> Reservation:
        """The relay will bring connections until then. Raises `relay_refused` with its reason, or as `Dialler.open`."""
        answer, end = await self._ask(relay, HopMessage(type=HopMessage.RESERVE), addresses)
        self._tasks.spawn(end.close)
        return Reservation(answer.reservation.expire, _circuits(relay, answer.reservation.addrs))

    async def dial(self, address: Multiaddr, peer: ID) -> INetConn:
        """A connection to the peer through the relay in the address. Raises `relay_refused`, or as `Dialler.open`."""
        relay, where = _relay_in(address)
        question = HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=peer.to_bytes()))
        _, stream = await self._ask(relay, question, (where,))
        try:
            with translated(Code.PEER_UNREACHABLE, f"{peer} through {relay}"):
                wire = _Wire(stream, relay, peer, initiator=True)
                return await swarm_of(self._host).upgrade_outbound_raw_conn(wire, peer)
        except BaseException:
            self._tasks.spawn(stream.reset)
            raise

    async def _ask(
        self, relay: ID, question: HopMessage, addresses: tuple[Multiaddr, ...]
    ) -> tuple[HopMessage, INetStream]:
        stream = await self._dialler.open(relay, HOP_ID, addresses)
        try:
            with translated(Code.PEER_UNREACHABLE, f"relay {relay}"), trio.fail_after(ANSWER_S):
                await tell(stream, question)
                answer = await hear_untrusted(stream, HopMessage)
            if answer.status != Status.OK:
                reason = _REASONS.get(answer.status, f"status {answer.status}")
                raise NetworkError(Code.RELAY_REFUSED, f"Relay {relay} refuses: {reason}.")
        except BaseException:
            self._tasks.spawn(stream.reset)
            raise
        return answer, stream

    async def _stopped(self, stream: INetStream) -> None:
        """A chosen relay brings a connection; it is upgraded as one that has come directly, by its own key."""
        relay = stream.muxed_conn.peer_id
        if relay not in self._chosen():
            await stream.reset()
            return
        with trio.fail_after(NEGOTIATION_S):
            question = await hear_untrusted(stream, StopMessage)
            peer = ID(question.peer.id)
            await tell(stream, StopMessage(type=StopMessage.STATUS, status=Status.OK))
            wire = _Wire(stream, relay, peer, initiator=False)
            await swarm_of(self._host).upgrade_inbound_raw_conn(wire, Multiaddr(f"/p2p/{relay}{CIRCUIT}"))


class _Wire(RawConnection):
    """A stream through a relay, where libp2p expects a connection."""

    def __init__(self, stream: INetStream, relay: ID, peer: ID, *, initiator: bool) -> None:
        way = Multiaddr(f"/p2p/{relay}{CIRCUIT}/p2p/{peer}")
        super().__init__(stream, initiator, ConnectionType.RELAYED, [way])

    def get_remote_address(self) -> tuple[str, int] | None:
        """The relay's would be taken for the peer's, by those who count or tell it."""
        return None


def relayed(connection: INetConn) -> bool:
    """Whether a relay carries it."""
    return connection.get_connection_type() is ConnectionType.RELAYED


def _relay_in(address: Multiaddr) -> tuple[ID, Multiaddr]:
    """The relay, and where it is. Raises `peer_unreachable`."""
    where, _, name = str(address).partition(CIRCUIT)[0].partition("/p2p/")
    try:
        return ID.from_string(name), Multiaddr(where)
    except (ValueError, MultiaddrError) as error:
        raise NetworkError(Code.PEER_UNREACHABLE, f"{address} names no relay: {error}") from error


def _circuits(relay: ID, raw: Collection[bytes]) -> tuple[Multiaddr, ...]:
    """The ways through a relay that says to be at these addresses."""
    ways: dict[str, Multiaddr] = {}
    for each in list(raw)[:RELAY_ADDRESSES_MAX]:
        try:
            where = str(Multiaddr(each)).partition("/p2p/")[0]
            if where and not is_relayed(where):
                ways.setdefault(where, Multiaddr(f"{where}/p2p/{relay}{CIRCUIT}"))
        except (ValueError, MultiaddrError):
            continue  # [IGNORE] an address of a kind that we do not know
    return tuple(ways.values())


async def tell(stream: INetStream, message: Message) -> None:
    """The message is on its way, its length before it."""
    await stream.write(encode_varint_prefixed(message.SerializeToString()))


async def hear_untrusted(stream: INetStream, kind: type[M]) -> M:
    """The next message. Raises `NetworkError(stream_closed)` for anything else."""
    raw = await read_varint_prefixed_bytes_limited(stream, MESSAGE_BYTES_MAX)
    message = kind()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise NetworkError(Code.STREAM_CLOSED, f"the peer sent no {kind.__name__}: {error}") from error
    return message
