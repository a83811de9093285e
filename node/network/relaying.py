"""Being a relay: others reserve, and are connected through this node, within what its owner lends.

A relay sees who talks with whom, when and how much; the two have a secured connection of their own inside of what it
carries. The rules are pure, and time is an argument; `serve` is what moves bytes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final, cast

import trio
from libp2p.abc import INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, PeerId, Reservation, Status, StopMessage

from ...protocol.errors import Code, NetworkError
from .boundary import Tasks, translated
from .circuit import ANSWER_S, HOP_ID, STOP_ID, hear_untrusted, relayed, tell
from .host import swarm_of
from .identity import Multiaddr, split_address
from .reach import Caps

READ_BYTES: Final = 64 * 1024
"""Moved at once: one frame of yamux."""

LINGER_S: Final = 5.0
"""Between the end of one direction and that of the circuit, for what is still on its way in the other."""


class Ledger:
    """Who has reserved and what runs; each question is answered by the caps alone."""

    def __init__(self, caps: Caps, connected: Callable[[ID], bool]) -> None:
        """A reservation ends with the connection over which it was made, too."""
        self._caps = caps
        self._connected = connected
        self._reserved: dict[ID, tuple[float, str]] = {}
        self._circuits: Counter[ID] = Counter()

    def reserve(self, peer: ID, ip: str, now_s: float) -> Status.ValueType:
        """OK if the peer holds a reservation from now on; to ask again renews it."""
        self._forget(now_s)
        others = [(held, at) for held, (_, at) in self._reserved.items() if held != peer]
        if len(others) >= self._caps.reservations:
            return Status.RESERVATION_REFUSED
        if sum(at == ip for _, at in others) >= self._caps.reservations_per_ip:
            return Status.RESERVATION_REFUSED
        self._reserved[peer] = now_s + self._caps.reservation_s, ip
        return Status.OK

    def open(self, source: ID, target: ID, now_s: float) -> Status.ValueType:
        """OK if a circuit runs from now on, until `close`."""
        self._forget(now_s)
        if target not in self._reserved:
            return Status.NO_RESERVATION
        if self._circuits.total() // 2 >= self._caps.circuits:
            return Status.RESOURCE_LIMIT_EXCEEDED
        if max(self._circuits[source], self._circuits[target]) >= self._caps.circuits_per_peer:
            return Status.RESOURCE_LIMIT_EXCEEDED
        self._circuits.update((source, target))
        return Status.OK

    def close(self, source: ID, target: ID) -> None:
        """The circuit has ended."""
        self._circuits.subtract((source, target))
        self._circuits += Counter()  # drops what is 0

    def expires_s(self, peer: ID) -> float:
        """When the peer's reservation ends."""
        return self._reserved[peer][0]

    @property
    def reserved(self) -> Collection[ID]:
        """Those that hold a reservation."""
        return self._reserved.keys()

    @property
    def carrying(self) -> tuple[int, int]:
        """Reservations held, and circuits that run."""
        return len(self._reserved), self._circuits.total() // 2

    def _forget(self, now_s: float) -> None:
        self._reserved = {
            peer: (expires_s, ip)
            for peer, (expires_s, ip) in self._reserved.items()
            if expires_s > now_s and self._connected(peer)
        }


class Relay:
    """The relay's end of every circuit. It serves from its making until its host ends."""

    def __init__(self, host: BasicHost, tasks: Tasks, caps: Caps, connected: Callable[[ID], bool]) -> None:
        self._host = host
        self._tasks = tasks
        self._caps = caps
        self.ledger = Ledger(caps, connected)
        host.set_stream_handler(HOP_ID, self._serve)

    async def _serve(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        with trio.fail_after(ANSWER_S):
            question = await hear_untrusted(stream, HopMessage)
        if self._is_relayed(stream):  # [REJECT] a relay behind a relay: nobody would know who pays for what
            await self._answer(stream, Status.PERMISSION_DENIED)
        elif question.type == HopMessage.RESERVE:
            await self._reserve(stream, peer)
        elif question.type == HopMessage.CONNECT:
            return await self._connect(stream, peer, ID(question.peer.id))
        else:
            await self._answer(stream, Status.UNEXPECTED_MESSAGE)

    def _is_relayed(self, stream: INetStream) -> bool:
        connections = swarm_of(self._host).get_connections(stream.muxed_conn.peer_id)
        return any(each.muxed_conn is stream.muxed_conn and relayed(each) for each in connections)

    async def _reserve(self, stream: INetStream, peer: ID) -> None:
        ip, _ = stream.get_remote_address() or ("", 0)
        status = self.ledger.reserve(peer, ip, time.time())
        if status != Status.OK:
            return await self._answer(stream, status)
        own = f"/p2p/{self._host.get_id()}"
        ways = (split_address(str(each))[0] for each in self._host.get_addrs())
        addresses = [Multiaddr(way + own).to_bytes() for way in ways]
        reservation = Reservation(expire=int(self.ledger.expires_s(peer)), addrs=addresses)
        await self._answer(stream, status, reservation)

    async def _connect(self, source: INetStream, peer: ID, target: ID) -> None:
        status = self.ledger.open(peer, target, time.time())
        if status != Status.OK:
            return await self._answer(source, status)
        try:
            far = await self._stop(peer, target)
            if far is None:
                return await self._answer(source, Status.CONNECTION_FAILED)
            await tell(source, self._message(Status.OK))
            await self._carry(source, far)
        finally:
            self.ledger.close(peer, target)

    async def _stop(self, peer: ID, target: ID) -> INetStream | None:
        """A stream to the target, which has agreed to be connected with the peer. None if it did not."""
        question = StopMessage(type=StopMessage.CONNECT, peer=PeerId(id=peer.to_bytes()), limit=self._limit())
        stream = None
        try:
            with translated(Code.PEER_UNREACHABLE, "the target"), trio.fail_after(ANSWER_S):
                stream = await self._host.new_stream(target, [STOP_ID])
                await tell(stream, question)
                if (await hear_untrusted(stream, StopMessage)).status == Status.OK:
                    return stream
        except NetworkError:
            pass  # it has gone, or will not: the source is told
        if stream is not None:
            self._tasks.spawn(stream.reset)
        return None

    async def _carry(self, one: INetStream, other: INetStream) -> None:
        """Until both ends have ended it, or the caps do; then both streams are closed."""
        left = self._caps.circuit_bytes

        async def move(source: INetStream, target: INetStream) -> None:
            nonlocal left
            pace = _Pace(self._caps.circuit_bytes_per_s)
            with suppress(NetworkError), translated(Code.STREAM_CLOSED, "an end has gone"):
                while True:
                    try:
                        moved = await source.read(READ_BYTES)
                    except StreamEOF:
                        moved = b""
                    if not moved:
                        await cast(NetStream, target).close_write()
                        scope.deadline = min(scope.deadline, trio.current_time() + LINGER_S)
                        return
                    left -= len(moved)
                    if left < 0:
                        break
                    await pace.take(len(moved))
                    await target.write(moved)
            scope.cancel()

        with trio.move_on_after(self._caps.circuit_s) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(move, one, other)
                nursery.start_soon(move, other, one)
        with trio.CancelScope(shield=True), trio.move_on_after(LINGER_S):
            await one.reset()
            await other.reset()

    def _limit(self) -> Limit:
        return Limit(duration=self._caps.circuit_s, data=self._caps.circuit_bytes)

    async def _answer(
        self, stream: INetStream, status: Status.ValueType, reservation: Reservation | None = None
    ) -> None:
        """The last word on the stream."""
        await tell(stream, self._message(status, reservation))
        await stream.close()

    def _message(self, status: Status.ValueType, reservation: Reservation | None = None) -> HopMessage:
        return HopMessage(type=HopMessage.STATUS, status=status, reservation=reservation, limit=self._limit())


class _Pace:
    """At most so many bytes a second, after a second's worth at once."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = -1.0

    async def take(self, length_bytes: int) -> None:
        begins_at = max(self._free_at, trio.current_time() - 1)
        self._free_at = begins_at + length_bytes / self._bytes_per_s
        await trio.sleep_until(begins_at)
