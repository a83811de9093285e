"""A libp2p stream as the seam promises it: whole frames, read eagerly into a bounded queue."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.stream.net_stream import NetStream

from ...protocol import framing
from ...protocol.errors import Code, NetworkError, RemoteProtocolError
from .boundary import Tasks, translated
from .identity import key_of
from .limits import BUFFERED_CONNECTION_MAX
from .muxed import MuxedStream
from .muxer import Muxer
from .pacing import SMALL_BYTES_MAX
from .seam import FRAME_BYTES_MAX, UNREAD_BYTES_MAX, UNREAD_FRAMES_MAX
from .standing import Fault

READ_BYTES: Final = 256 * 1024
"""The window of a stream at the start: more is rarely there at once."""

LINGER_S: Final = 5.0
"""How long a closed stream waits for the other side's end before it is reset; yamux would keep its entry for ever."""

ABORT_S: Final = 2.0
"""Ceiling of a reset: the frame is queued at once unless the connection has died."""


class FrameStream:
    """One libp2p stream. `pump` must run for as long as the stream is used."""

    def __init__(self, stream: INetStream, tasks: Tasks, *, watched: bool = False) -> None:
        self.peer: Final = key_of(stream.muxed_conn.peer_id)
        assert isinstance(stream.muxed_conn, Muxer)
        self._stream = stream
        self._conn = stream.muxed_conn
        self._tasks = tasks
        assert isinstance(stream, NetStream) and isinstance(stream.muxed_stream, MuxedStream)
        self._muxed = stream.muxed_stream
        self._muxed.on_shed = self._shed
        if watched:
            self._muxed.watch(True)
        self._sending = trio.Lock()
        self._arrived, self._unread = trio.open_memory_channel[bytes](UNREAD_FRAMES_MAX)
        self._unread_bytes = self._partial_bytes = self._kept_bytes = 0
        self._end = NetworkError(Code.STREAM_CLOSED, "the other side has closed the stream")
        self._ended = trio.Event()
        self._send_closed = self._receive_closed = False

    @property
    def sent_bytes(self) -> int:
        return self._muxed.sent_bytes

    async def send(self, frame: bytes) -> None:
        if len(frame) > FRAME_BYTES_MAX:
            raise NetworkError(Code.TOO_LARGE, f"a frame has at most {FRAME_BYTES_MAX} bytes, not {len(frame)}")
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.offer(frame):  # without the turns of the loop that two locks and a wait for the socket take
            return await trio.lowlevel.cancel_shielded_checkpoint()
        async with self._sending:
            if self._send_closed:
                raise NetworkError(Code.STREAM_CLOSED, "the stream was closed on this side")
            whole = False
            try:
                with translated(Code.STREAM_CLOSED, "the other side has gone"):
                    await self._write(frame)
                whole = True
            finally:
                if not whole:  # anything after a half-written frame would be read as its rest
                    self._send_closed = True
                    self._tasks.spawn(self._abort)

    def offer(self, frame: bytes) -> bool:
        """The frame is on its way. False, and it is not, if it would have to wait."""
        if len(frame) > SMALL_BYTES_MAX - framing.HEAD_BYTES or self._send_closed or self._sending.locked():
            return False
        return self._muxed.offer(framing.frame(frame))

    async def _write(self, frame: bytes) -> None:
        await self._stream.write(framing.frame(frame))

    async def receive(self) -> bytes:
        try:
            frame = await self._unread.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise NetworkError(self._end.code, self._end.message) from None
        self._hold(-len(frame))
        self._muxed.read_at = trio.current_time()
        return frame

    async def close(self) -> None:
        if not self._receive_closed:
            self.cease()
            self._tasks.spawn(self._linger)
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.cease()
        await self._abort()

    @property
    def connection(self) -> Muxer:
        """The one below."""
        return self._conn

    @property
    def connected(self) -> bool:
        """Whether the connection below stands."""
        return self._conn.is_established

    def set_working(self, working: bool, *, watched: bool = False) -> None:
        """Whether anything is under way here, as `StreamMap.set_working` has it; and whether that is watched, as in `open`."""
        self._conn.streams.set_working(self._muxed, working)
        self._muxed.watch(watched)

    def keep(self, length: int) -> None:
        """Whoever received them holds so many bytes more, or fewer, of what is no whole yet. Raises `too_large`."""
        length = max(length, -self._kept_bytes)  # what was shed is not given back twice
        self._kept_bytes += length
        self._account(length)
        if length > 0 and self._conn.held_bytes > BUFFERED_CONNECTION_MAX:
            raise self._overfull(f"{BUFFERED_CONNECTION_MAX} bytes on all its streams")

    def blame(self, fault: Fault) -> None:
        """The fault counts against the peer."""
        self._conn.blame(fault)

    def cease(self) -> None:
        """Nothing is sent or received here any more; the other side learns of it by `reset`."""
        self._send_closed = self._receive_closed = True
        self._end = NetworkError(Code.STREAM_CLOSED, "the stream was closed on this side")
        self._unread.close()
        self._hold(-self._unread_bytes)

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER_S):
            async with self._sending:
                with suppress(NetworkError), translated(Code.STREAM_CLOSED, "the other side went first"):
                    await self._stream.close()
            await self._ended.wait()
        if not self._ended.is_set():
            await self._abort()

    async def _abort(self) -> None:
        with trio.move_on_after(ABORT_S):
            await self._stream.reset()

    async def pump(self) -> None:
        """Everything that arrived has been queued, until the end; a broken bound resets the stream."""
        try:
            with translated(Code.STREAM_CLOSED, "the other side has gone"):
                await self._read_frames()
        except NetworkError as error:
            if not self._receive_closed:
                self._end = error
            if error.code is Code.TOO_LARGE:
                self._send_closed = True
                self._tasks.spawn(self._abort)
        finally:
            self._hold_partial(0)
            self._arrived.close()
            self._ended.set()

    async def _read_frames(self) -> None:
        frames = framing.Frames()
        while True:
            try:
                received = await self._stream.read(READ_BYTES)
            except StreamEOF:
                return
            if self._receive_closed:
                frames = framing.Frames()  # nobody will have what it held
                continue
            try:
                for frame in frames.feed_untrusted(received):
                    self._queue(frame)
            except RemoteProtocolError as error:
                self._conn.blame(Fault.BAD_FRAME)
                raise NetworkError(error.code, f"the peer broke the framing: {error.message}") from None
            self._hold_partial(frames.held_bytes)
            if self._conn.held_bytes > BUFFERED_CONNECTION_MAX:
                raise self._overfull(f"{BUFFERED_CONNECTION_MAX} bytes on all its streams")

    def _queue(self, frame: bytes) -> None:
        if self._unread_bytes + len(frame) > UNREAD_BYTES_MAX:
            raise self._overfull(f"{UNREAD_BYTES_MAX} bytes")
        if self._conn.held_bytes + len(frame) > BUFFERED_CONNECTION_MAX:
            raise self._overfull(f"{BUFFERED_CONNECTION_MAX} bytes on all its streams")
        try:
            self._arrived.send_nowait(frame)
        except trio.WouldBlock:
            raise self._overfull(f"{UNREAD_FRAMES_MAX} frames") from None
        except trio.BrokenResourceError:
            return  # closed on this side meanwhile
        self._hold(len(frame))

    def _overfull(self, what: str) -> NetworkError:
        self._conn.blame(Fault.UNREAD)
        return NetworkError(Code.TOO_LARGE, f"the peer sent {what} that nobody had read")

    def _shed(self) -> None:
        self.cease()
        self._hold_partial(0)  # the stream is reset next: neither its reader nor whoever kept parts goes on
        self.keep(-self._kept_bytes)
        self._end = NetworkError(
            Code.TOO_LARGE, "the peers sent more than this node holds unread, this one not the least"
        )

    def _hold(self, length: int) -> None:
        self._unread_bytes += length
        self._account(length)

    def _hold_partial(self, length: int) -> None:
        """Of a frame that is not complete, so many bytes have come."""
        more, self._partial_bytes = length - self._partial_bytes, length
        self._account(more)

    def _account(self, length: int) -> None:
        self._conn.held_bytes += length
        self._muxed.hold(length)
