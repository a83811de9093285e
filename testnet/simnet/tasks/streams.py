"""A stream as the seam promises it, between two machines of one process."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, RaiseCancelT

from ....node.network.seam import FRAME_BYTES_MAX, UNREAD_BYTES_MAX, UNREAD_FRAMES_MAX
from ....protocol.errors import Code, NetworkError
from .medium import BULK_BYTES

if TYPE_CHECKING:
    from .connections import Connection
    from .network import SimNetwork

SMALL_BYTES = 16
"""Of a frame that opens, ends or resets a stream."""


class SimStream:
    """One end of a stream."""

    __slots__ = (
        "_arrived", "_broken", "_connection", "_ended", "_over", "_reader", "_send_closed", "_unread_bytes", "here",
        "other", "peer", "sent_bytes", "watched",
    )  # fmt: skip

    def __init__(self, connection: Connection, here: SimNetwork, peer: bytes, *, watched: bool) -> None:
        self.peer = peer
        self.watched = watched
        self.here = here
        self.other: SimStream | None = None
        self.sent_bytes = 0
        self._connection = connection
        self._arrived: deque[bytes] = deque()
        self._unread_bytes = 0
        self._reader: trio.lowlevel.Task | None = None
        self._ended = False
        """Nothing more comes."""
        self._over = False
        """It holds the connection no longer."""
        self._broken = NetworkError(Code.STREAM_CLOSED, "the other side has closed the stream")
        self._send_closed = False

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if len(frame) > FRAME_BYTES_MAX:
            raise NetworkError(Code.TOO_LARGE, f"a frame has at most {FRAME_BYTES_MAX} bytes, not {len(frame)}")
        if len(frame) > BULK_BYTES:  # the window is full until what is before it has gone out
            medium = self._connection.medium
            await medium.wait(medium.backlog_s(self.here.place))
        if self._send_closed:
            raise NetworkError(self._broken.code, self._broken.message)
        other = self.other
        assert other is not None, "a stream that is used has two ends"
        self._connection.carry(self.here, len(frame), lambda: other.arrive(frame))
        self.sent_bytes += len(frame)

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._arrived and not self._ended:
            self._reader = trio.lowlevel.current_task()

            def abort(_: RaiseCancelT) -> Abort:
                self._reader = None
                return Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if not self._arrived:
            raise NetworkError(self._broken.code, self._broken.message)
        frame = self._arrived.popleft()
        self._unread_bytes -= len(frame)
        return frame

    async def close(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._leave("the stream was closed on this side", hard=False)

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._leave("the stream was closed on this side", hard=True)

    def arrive(self, frame: bytes) -> None:
        """The frame is there to be read."""
        if self._ended:
            return
        self._connection.medium.log.frame(self.here.place.number, self._connection.number, frame)
        self._unread_bytes += len(frame)
        if self._unread_bytes > UNREAD_BYTES_MAX or len(self._arrived) >= UNREAD_FRAMES_MAX:
            self._broken = NetworkError(Code.TOO_LARGE, "the peer sent more than is held unread")
            self._leave(self._broken.message, hard=True, code=Code.TOO_LARGE)
            return
        self._arrived.append(frame)
        self._wake()

    def end(self, why: str, *, hard: bool) -> None:
        """Nothing more comes; after a `hard` end nothing goes either, and what came before is still read."""
        if not self._ended:
            self._broken = NetworkError(Code.STREAM_CLOSED, why)
            self._ended = True
        if hard:
            self._send_closed = True
        if hard or self._send_closed:
            self._let_go()
        self._wake()

    def _leave(self, why: str, *, hard: bool, code: Code = Code.STREAM_CLOSED) -> None:
        other = self.other
        if not (self._ended and self._send_closed) and other is not None:
            said = "the other side has reset the stream" if hard else "the other side has closed the stream"
            self._connection.carry(self.here, SMALL_BYTES, lambda: other.end(said, hard=hard))
        self._broken = NetworkError(code, why)
        self._ended = self._send_closed = True
        self._arrived.clear()
        self._unread_bytes = 0
        self._let_go()
        self._wake()

    def _let_go(self) -> None:
        if not self._over:
            self._over = True
            self._connection.leave(self)

    def _wake(self) -> None:
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None
