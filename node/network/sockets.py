"""A socket's bytes, taken from it in large pieces, and given to it so while a connection begins.

libp2p's own (py-libp2p 0.8.1, io/trio.py) asks the socket for each length and each message apart, under a lock of its own, and
sends each line of a handshake by itself: a connection's beginning takes two dozen packets and turns of the event loop so.
Here what is said meanwhile goes once there is nothing more to say before the other side has answered.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

import trio
from libp2p.abc import IMuxedConn, IRawConnection, ISecureConn
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.transport.upgrader import TransportUpgrader

PIECE_BYTES: Final = 4096
"""At first: all of a handshake's message, and no more memory than that for who has proven nothing."""

PIECE_BYTES_MAX: Final = 128 * 1024
"""Each piece that was full makes the next twice as large, up to two whole messages of noise."""


class Socket(ReadWriteCloser):
    """One connection's. One task at a time reads, and one writes."""

    def __init__(self, stream: TrioTCPStream) -> None:
        self._stream = stream
        self._held = b""
        self._at = 0
        self._piece = PIECE_BYTES
        self._unsent: bytearray | None = bytearray()
        """What waits until something has to be read; None once the connection has begun."""
        self._expected = b""

    def unread(self, begun: bytes) -> None:
        """These bytes, which were read, are read again."""
        self._held, self._at = begun + self._held[self._at :], 0

    def expect(self, answer: bytes) -> None:
        """The other side has to say this first; it is not read."""
        self._expected += answer

    async def read(self, n: int | None = None) -> bytes:
        """Some bytes, `n` at most; none at the end. Raises `ConnectionClosedError`, for another answer than expected too."""
        while self._expected:
            answer = await self._read(len(self._expected))
            if not answer or not self._expected.startswith(answer):
                raise ConnectionClosedError("the other side answered something else", transport="tcp")
            self._expected = self._expected[len(answer) :]
        return await self._read(n)

    async def _read(self, n: int | None) -> bytes:
        if not self._held:
            await self._send_unsent()
            self._held, self._at = await self._receive(), 0
        end = len(self._held) if n is None else min(self._at + n, len(self._held))
        taken, self._at = self._held[self._at : end], end
        if end == len(self._held):
            self._held, self._at = b"", 0
        return taken

    async def _receive(self) -> bytes:
        try:
            received = bytes(await self._stream.stream.receive_some(self._piece))
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"the connection broke: {error}", transport="tcp") from error
        except trio.ClosedResourceError:
            return b""
        if len(received) == self._piece:
            self._piece = min(2 * self._piece, PIECE_BYTES_MAX)
        return received

    async def write(self, data: bytes) -> None:
        """All of it was given to the system, or will be. Raises `ConnectionClosedError`."""
        if self._unsent is None:
            await self._send(data)
        else:
            self._unsent += data

    async def begun(self) -> None:
        """From now on nothing that is written waits."""
        await self._send_unsent()
        self._unsent = None

    async def _send_unsent(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, bytearray()
            await self._send(bytes(unsent))

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"the connection broke: {error}", transport="tcp") from error

    async def close(self) -> None:
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._stream.get_remote_address()


def use_sockets(upgrader: TransportUpgrader) -> None:
    """Connections that begin from now on are read and written so, whoever dialled."""
    secure, share = upgrader.upgrade_security, upgrader.upgrade_connection
    sockets: WeakKeyDictionary[ISecureConn, Socket] = WeakKeyDictionary()

    async def upgrade_security(raw: IRawConnection, is_initiator: bool, peer_id: ID | None = None) -> ISecureConn:
        if isinstance(raw, RawConnection) and isinstance(raw.stream, TrioTCPStream):
            raw.stream = Socket(raw.stream)
        secured = await secure(raw, is_initiator, peer_id)
        if isinstance(raw, RawConnection) and isinstance(raw.stream, Socket):
            sockets[secured] = raw.stream
        return secured

    async def upgrade_connection(conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        muxed = await share(conn, peer_id)
        if (socket := sockets.pop(conn, None)) is not None:
            await socket.begun()
        return muxed

    vars(upgrader).update(upgrade_security=upgrade_security, upgrade_connection=upgrade_connection)
