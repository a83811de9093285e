"""One stream of a shared connection."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from .standing import Fault
from .yamux import WINDOW_BYTES, Flag, Frame, Kind, encode

if TYPE_CHECKING:
    from .muxer import Muxer

WINDOW_BYTES_MAX: Final = 4 * 1024 * 1024
"""A stream that is read fast gets this much credit in the end: 100 Mbit/s at 300 ms."""

SEND_WINDOW_MAX: Final = 2**32 - 1
"""Credit is a number of 32 bits; nobody needs more."""

FAST_ROUND_TRIPS: Final = 4
"""Credit used up within so many round trips was the bound, and is doubled (as go-yamux does)."""


class MuxedStream(IMuxedStream):
    """Bytes in order, each way under the credit that the other side gave."""

    def __init__(self, stream_id: int, conn: Muxer, *, inbound: bool) -> None:
        self.stream_id = stream_id
        self.muxed_conn = conn
        self.inbound = inbound
        self.resting = False
        """Whether nothing is under way on it."""
        self.came_large = False
        """Whether the last data that came was."""
        self.unread = bytearray()
        self.recv_window = WINDOW_BYTES
        """Bytes that the other side may send still."""
        self.held_bytes = 0
        """What has come and was not read, here or by whoever puts it together above."""
        self.read_at = trio.current_time()
        """When somebody has last taken something whole."""
        self.on_shed: Callable[[], None] | None = None
        """Drops what is held above; whoever sets it tells `hold` and `read_at`."""
        self.sent_bytes = 0
        """Data handed to the connection so far."""
        self.queued = 0
        """Large frames handed to the connection and not written yet."""
        self._conn = conn
        self._writer = conn.writer
        self._send_window = WINDOW_BYTES
        self._window = WINDOW_BYTES
        self._taken = 0
        self._granted_at = trio.current_time()
        self._send_closed = self._recv_closed = self._reset = False
        self._closed_at: float | None = None
        self._news = trio.Event()

    def closed_s(self) -> float:
        """How long it has been closed on this side alone, in seconds."""
        return 0.0 if self._closed_at is None else trio.current_time() - self._closed_at

    async def write(self, data: bytes) -> None:
        """All of it was written. Raises `MuxedStreamReset` or `MuxedStreamError`."""
        view, sent = memoryview(data), 0
        self._writer.about_to_send(len(data))
        while sent < len(data):
            self._check_sending()
            if not self._send_window:
                await self._hear()
                continue
            length = min(len(data) - sent, self._send_window, self._writer.frame_bytes_max)
            self._send_window -= length
            frame = encode(Kind.DATA, 0, self.stream_id, length, bytes(view[sent : sent + length]))
            sent += length
            self.sent_bytes += length
            await self._writer.carry(self, frame)

    def offer(self, data: bytes) -> bool:
        """All of it is on its way. False, and nothing of it is, if any would have to wait."""
        if self._reset or self._send_closed or len(data) > self._send_window:
            return False
        self._writer.about_to_send(len(data))
        taken = self._writer.offer(self, encode(Kind.DATA, 0, self.stream_id, len(data), data))
        if taken:
            self._send_window -= len(data)
            self.sent_bytes += len(data)
        return taken

    async def read(self, n: int | None = None) -> bytes:
        """Some bytes, `n` at most. Raises `MuxedStreamEOF` at the end, `MuxedStreamReset` after a reset."""
        while not self.unread:
            if self._reset:
                raise MuxedStreamReset("the stream was reset")
            if self._recv_closed:
                raise MuxedStreamEOF("the stream has ended")
            await self._hear()
        if n is None or n < 0 or n >= len(self.unread):
            received = bytes(self.unread)
            self.unread.clear()
        else:
            received = bytes(memoryview(self.unread)[:n])
            del self.unread[:n]
        self.hold(-len(received))
        if self.on_shed is None:
            self.read_at = trio.current_time()
        self._grant(len(received))
        return received

    async def close(self) -> None:
        """The other side reads the end after what was written."""
        await trio.lowlevel.checkpoint()
        if self._send_closed:
            return
        self._send_closed = True
        fin = encode(Kind.WINDOW, Flag.FIN, self.stream_id, 0)
        if self.queued:  # a frame that carries nothing, to go behind those
            await self._writer.carry(self, encode(Kind.DATA, Flag.FIN, self.stream_id, 0))
        else:
            self._writer.say(fin)
        self._finish()

    async def reset(self) -> None:
        """Both sides have ended."""
        await trio.lowlevel.checkpoint()
        self.abandon()

    def abandon(self) -> None:
        """`reset`, at once."""
        if not self._reset and not (self._send_closed and self._recv_closed):
            self._writer.say(encode(Kind.WINDOW, Flag.RST, self.stream_id, 0))
        self.lose()

    def watch(self, watched: bool) -> None:
        """The stream ends when the peer falls silent, long before the connection does; or not any more."""
        self._conn.keepalive.watch(self, watched)

    def hold(self, length: int) -> None:
        """So many bytes more are held, or fewer; if all peers together have too much here, this stream may end by it."""
        self._conn.memory.hold(self, length)

    def shed(self) -> None:
        """What is held was dropped and the stream reset: it keeps too much from others, for too long."""
        self._conn.blame(Fault.UNREAD)
        if self.on_shed is not None:
            self.on_shed()
        self.abandon()

    def lose(self) -> None:
        """Nothing goes or comes any more; what came last is dropped."""
        self._reset = self._send_closed = self._recv_closed = True
        self.hold(-len(self.unread))
        self.unread.clear()
        self._tell()
        self._conn.forget(self)

    def take(self, frame: Frame) -> None:
        """What the frame says has happened. Its data was within the credit."""
        if frame.kind == Kind.DATA:
            self.recv_window -= frame.length
            if not self._recv_closed:
                self.unread += frame.body
                self.hold(frame.length)
        else:
            self._send_window = min(self._send_window + frame.length, SEND_WINDOW_MAX)
        if frame.flags & Flag.RST:
            self.lose()
        elif frame.flags & Flag.FIN:
            self._recv_closed = True
            self._finish()
        self._tell()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are the caller's")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._conn.get_remote_address()

    async def __aenter__(self) -> MuxedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_sending(self) -> None:
        if self._reset:
            raise MuxedStreamReset("the stream was reset")
        if self._send_closed:
            raise MuxedStreamError("the stream was closed on this side")

    def _grant(self, length: int) -> None:
        """Credit for what was read, in large pieces."""
        self._taken += length
        if self._recv_closed or self._taken * 2 < self._window:
            return
        now, credit = trio.current_time(), self._taken
        fast_s = FAST_ROUND_TRIPS * max(self._writer.round_trip_s, 0.001)
        if not self._conn.memory.tight and now - self._granted_at < fast_s:
            grown = min(self._window * 2, WINDOW_BYTES_MAX)
            credit += grown - self._window
            self._window = grown
        self._taken, self._granted_at = 0, now
        self.recv_window += credit
        self._writer.say(encode(Kind.WINDOW, 0, self.stream_id, credit))

    def _finish(self) -> None:
        if self._send_closed and self._recv_closed:
            self._conn.forget(self)
        elif self._send_closed:
            self._closed_at = trio.current_time()

    async def _hear(self) -> None:
        if self._news.is_set():  # a reader and a writer may both wait
            self._news = trio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
