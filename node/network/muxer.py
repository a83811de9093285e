"""Yamux with writes that may be cancelled.

py-libp2p 0.8.1 writes to the connection from the task that has something to send (stream_muxer/yamux/yamux.py:758). If
it is cancelled between the encryption, which counts up noise's nonce (security/noise/io.py:70), and the end of the
write, the other side can decrypt nothing any more: one job cancelled at the wrong moment takes down every other job of
the two peers. Here frames are handed to one writer task that finishes what it began; whoever waits for one can be
cancelled freely.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux

WRITE_BYTES_MAX: Final = 65_519
"""Frames written at once: the plaintext of one noise message."""

FRAMES_QUEUED_MAX: Final = 16
"""Data frames of up to 64 KiB waiting for the socket; further senders wait for their turn."""

CONTROL_QUEUED_MAX: Final = 4096
"""Frames of 12 bytes waiting for the socket. They are never waited for, else two full sockets could wait for each
other; a peer that lets so many pile up has not read for a long time, and the connection is given up."""


class PatientYamux(yamux.Yamux):
    """Yamux in which cancelling a sender, or an opener, harms nothing but its own stream."""

    def __init__(
        self,
        secured_conn: ISecureConn,
        peer_id: ID,
        is_initiator: bool | None = None,
        on_close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(secured_conn, peer_id, is_initiator, on_close)
        self._frames: deque[tuple[bytes, trio.Event | None]] = deque()
        self._room = trio.Semaphore(FRAMES_QUEUED_MAX)
        self._wake = trio.Event()
        self._broken = False

    async def start(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_frames)
            await super().start()
            nursery.cancel_scope.cancel()
        self._give_up()

    async def open_stream(self) -> yamux.YamuxStream:
        """As upstream (yamux.py:775), but a cancelled call does not keep its slot of 256 for ever."""
        await self.stream_backlog_semaphore.acquire()
        with trio.CancelScope(shield=True):  # short: the lock guards bookkeeping, and the frame is only queued
            async with self.streams_lock:
                if self.event_shutting_down.is_set() or self._broken:
                    self.stream_backlog_semaphore.release()
                    raise MuxedStreamError("the connection is closing")
                stream_id = self.next_stream_id
                self.next_stream_id += 2
                stream = yamux.YamuxStream(stream_id, self, True)
                stream._owns_backlog_slot = True
                self.streams[stream_id] = stream
                self.stream_buffers[stream_id] = bytearray()
                self.stream_events[stream_id] = trio.Event()
            header = (0, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream_id, 0)
            await self._write_frame(struct.pack(yamux.YAMUX_HEADER_FORMAT, *header))
        return stream

    async def _write_frame(self, data: bytes) -> None:
        """The frame is queued and, if it carries data, written. Raises `ConnectionClosedError`."""
        written = None
        if len(data) > yamux.HEADER_SIZE:
            written = trio.Event()
            await self._room.acquire()
        elif len(self._frames) >= CONTROL_QUEUED_MAX:
            self._give_up()
        if self._broken:
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        self._frames.append((data, written))
        self._wake.set()
        if written is not None:
            await written.wait()
            if self._broken:
                raise ConnectionClosedError("the connection was closed while writing", transport="tcp")

    async def _write_frames(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._frames:
                    batch = self._next_batch()
                    await self.secured_conn.write(b"".join(frame for frame, _ in batch))
                    for _, written in batch:
                        if written is not None:
                            written.set()
                            self._room.release()
        except (RawConnError, IOException, OSError):
            self._give_up()  # the reading side meets the same end and cleans up

    def _next_batch(self) -> list[tuple[bytes, trio.Event | None]]:
        batch = [self._frames.popleft()]
        size = len(batch[0][0])
        while self._frames and size + len(self._frames[0][0]) <= WRITE_BYTES_MAX:
            batch.append(self._frames.popleft())
            size += len(batch[-1][0])
        return batch

    def _give_up(self) -> None:
        """Nobody waits for a frame any more."""
        self._broken = True
        while self._frames:
            _, written = self._frames.popleft()
            if written is not None:
                written.set()
                self._room.release()


# stream_muxer/muxer_multistream.py:143 makes a plain Yamux whatever class it was given under that protocol's name.
vars(muxer_multistream)["Yamux"] = PatientYamux
