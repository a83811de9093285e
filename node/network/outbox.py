"""What waits to be sent on one control stream: short frames first, of the long answers a part of each in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import trio

from .streams import FrameStream


class _Long:
    def __init__(self, frames: Iterator[bytes]) -> None:
        self.frames = frames
        self.sent = trio.Event()


class Outbox:
    """One task writes, so that whoever has something to say may be cancelled at any moment, and the stream goes on."""

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream
        self._short: deque[bytes] = deque()
        self._long: deque[_Long] = deque()
        self._wake = trio.Event()
        self._fewer = trio.Event()

    def say(self, frame: bytes) -> None:
        """The frame is on its way, after those said before. How many may wait is the caller's to see to."""
        if self._short or not self._stream.offer(frame):
            self._short.append(frame)
            self._wake.set()

    async def carry(self, frames: Iterator[bytes]) -> None:
        """All of the frames were sent. Cancelled, the rest of them is not."""
        mine = _Long(frames)
        self._long.append(mine)
        self._wake.set()
        try:
            await mine.sent.wait()
        finally:
            if mine in self._long:
                self._long.remove(mine)

    async def at_most(self, frames: int) -> None:
        """No more than so many short frames wait."""
        while len(self._short) > frames:
            self._fewer = trio.Event()
            await self._fewer.wait()

    async def run(self) -> None:
        """Everything is sent in its turn. Raises `NetworkError(stream_closed)` at the end of the stream."""
        while True:
            if self._short:
                await self._stream.send(self._short.popleft())
                self._fewer.set()
            elif self._long:
                await self._send_part(self._long.popleft())
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _send_part(self, turn: _Long) -> None:
        frame = next(turn.frames, None)
        if frame is None:
            turn.sent.set()
        else:
            self._long.append(turn)
            await self._stream.send(frame)
