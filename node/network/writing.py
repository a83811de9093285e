"""What one connection sends: what is small before what is large, by one task, which finishes every frame it began.

So whoever sends can be cancelled at any moment and leaves no half a frame behind.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple, Protocol

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError

from ...protocol.errors import Code
from .boundary import translated
from .pacing import FINE_BYTES, SMALL_BYTES_MAX, Pacing
from .yamux import BODY_BYTES_MAX, HEAD_BYTES

WRITE_BYTES_MAX: Final = BODY_BYTES_MAX + 2 * HEAD_BYTES
"""Frames written at once: the plaintext of one noise message."""

LARGE_QUEUED_MAX: Final = 16
"""Large frames waiting for the socket; further senders wait for their turn."""

OFFERED_MAX: Final = 256
"""Small frames waiting for the socket beyond which no further one is taken without waiting for it."""

SMALL_QUEUED_MAX: Final = 4096
"""Small frames waiting for the socket. They are not waited for, else two full sockets could wait for each other; a peer
that lets so many pile up has not read for a long time, and the connection is given up."""


class Source(Protocol):
    """A stream whose data is sent."""

    queued: int
    """Large frames handed over and not written yet. What comes later stays behind them."""


class _Queued(NamedTuple):
    """A frame that waits for the socket."""

    frame: bytes
    written: trio.Event | None = None
    source: Source | None = None
    """Whose data it is, if it is large."""


class Writer:
    """All frames that one connection sends. `run` must run for as long; the connection's `life` is cancelled to give it up."""

    def __init__(self, conn: ISecureConn, life: trio.CancelScope) -> None:
        self.pacing = Pacing()
        self.ended = False
        """Whether nothing is sent any more."""
        self._conn = conn
        self._life = life
        self._small: deque[_Queued] = deque()
        self._large: deque[_Queued] = deque()
        self._writing: list[_Queued] = []
        self._room = trio.Semaphore(LARGE_QUEUED_MAX)
        self._wake = trio.Event()

    @property
    def round_trip_s(self) -> float:
        """The least of late, in seconds; 0 before one was measured."""
        return self.pacing.flight.round_trip_s

    @property
    def frame_bytes_max(self) -> int:
        """Of data in one frame, as of now."""
        return FINE_BYTES if self.pacing.is_fine(trio.current_time()) else BODY_BYTES_MAX

    def about_to_send(self, length: int) -> None:
        """So many bytes will be sent on a stream: if they are few, bulk makes way for a while."""
        if length <= SMALL_BYTES_MAX:
            self.pacing.small_goes(trio.current_time())

    def say(self, frame: bytes) -> None:
        """The frame, which carries no data, is on its way."""
        if len(self._small) >= SMALL_QUEUED_MAX:
            self._life.cancel()
        if not self.ended:
            self._small.append(_Queued(frame))
            self._wake.set()

    def say_last(self, frame: bytes) -> trio.Event:
        """The frame is on its way. The event is set once it was written, or nothing is any more."""
        queued = _Queued(frame, written := trio.Event())
        self._small.append(queued)
        self._wake.set()
        return written

    def ask(self) -> None:
        """The peer is asked whether it is there: `returned` says that it is."""
        self.say(self.pacing.mark(0, trio.current_time()))

    def returned(self, mark: int) -> None:
        """A mark came back from the peer, which has all that was sent before."""
        self.pacing.flight.returned(mark, trio.current_time())
        self._wake.set()

    async def carry(self, source: Source, frame: bytes) -> None:
        """The frame of data was written. Cancelled, it is written all the same. Raises `ConnectionClosedError`."""
        if len(frame) <= HEAD_BYTES + SMALL_BYTES_MAX and not source.queued:
            self._check()
            queued = _Queued(frame, written := trio.Event())
            self._small.append(queued)
        else:
            await self._room.acquire()
            if self.ended:
                self._room.release()  # for the next one that waits
            self._check()
            queued = _Queued(frame, written := trio.Event(), source)
            self._large.append(queued)
            source.queued += 1
        self._wake.set()
        await written.wait()
        self._check()

    def offer(self, source: Source, frame: bytes) -> bool:
        """The frame of data is on its way. False, and it is not, if it would have to wait."""
        if self.ended or source.queued or len(self._small) >= OFFERED_MAX or len(frame) > HEAD_BYTES + SMALL_BYTES_MAX:
            return False
        self._small.append(_Queued(frame))
        self._wake.set()
        return True

    async def run(self) -> None:
        """Everything is written in its turn. Raises `NetworkError(stream_closed)` when the connection has broken."""
        pacing = self.pacing
        with translated(Code.STREAM_CLOSED, "the connection broke"):
            while True:
                if batch := self._next_small():
                    await self._write(batch)
                now, due = trio.current_time(), pacing.bulk_due
                if self._large and due <= now and pacing.has_room(now):
                    queued = self._large.popleft()
                    self._room.release()
                    await self._write([queued, _Queued(pacing.bulk_goes(len(queued.frame), now))])
                elif not batch:
                    with trio.CancelScope(deadline=due if self._large and due > now else math.inf):
                        await self._wake.wait()
                    self._wake = trio.Event()

    def end(self) -> None:
        """Nothing is sent any more, and nobody waits for it."""
        self.ended = True
        for queued in [*self._writing, *self._small, *self._large]:
            if queued.written is not None:
                queued.written.set()
        for _ in self._large:
            self._room.release()
        self._small.clear()
        self._large.clear()

    def _check(self) -> None:
        if self.ended:
            raise ConnectionClosedError("the connection is closed", transport="tcp")

    def _next_small(self) -> list[_Queued]:
        batch: list[_Queued] = []
        size = 0
        while self._small and size + len(self._small[0].frame) <= WRITE_BYTES_MAX:
            batch.append(self._small.popleft())
            size += len(batch[-1].frame)
        return batch

    async def _write(self, batch: list[_Queued]) -> None:
        self._writing = batch
        await self._conn.write(b"".join(queued.frame for queued in batch))
        for queued in batch:
            if queued.written is not None:
                queued.written.set()
            if queued.source is not None:
                queued.source.queued -= 1
