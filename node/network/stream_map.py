"""The streams of one connection by their numbers: who may begin one, how many, and how often.

As quic-go's `streams_map`. Whoever has dialled begins those of odd numbers, the other side those of even ones
(https://github.com/hashicorp/yamux/blob/master/spec.md#streamid-field).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from ...protocol.errors import Code, RemoteProtocolError
from .limits import STREAMS_IN_BURST, STREAMS_IN_MAX, STREAMS_IN_SEC, STREAMS_OUT_MAX
from .muxed import MuxedStream
from .yamux import WINDOW_BYTES

HALF_CLOSED_S: Final = 60.0
"""A stream that we closed and the other side did not is reset after so long."""


class StreamMap:
    """Those open now, either side's."""

    def __init__(self, make: Callable[[int, bool], MuxedStream], *, is_initiator: bool) -> None:
        """`make` is given a number, and whether the peer begins the stream."""
        self.by_id: dict[int, MuxedStream] = {}
        self.used_at = trio.current_time()
        """When one last began or ended, or had something under way."""
        self._make = make
        self._next_id = 1 if is_initiator else 2
        self._inbound = 0
        self._may_begin, self._may_begin_at = STREAMS_IN_BURST, trio.current_time()
        self._accepting, self._accepted = trio.open_memory_channel[MuxedStream](STREAMS_IN_MAX)

    def __len__(self) -> int:
        return len(self.by_id)

    def __contains__(self, stream: MuxedStream) -> bool:
        return self.by_id.get(stream.stream_id) is stream  # the peer may use a number again

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return any(not stream.resting for stream in self.by_id.values())

    @property
    def unread_bytes(self) -> int:
        """What has come on all of them and nobody has read."""
        return sum(len(stream.unread) for stream in self.by_id.values())

    def credit(self, stream_id: int) -> int:
        """Bytes that the peer may send now under this number."""
        stream = self.by_id.get(stream_id)
        return stream.recv_window if stream else WINDOW_BYTES  # it may have been sent before our reset got there

    def open(self) -> MuxedStream:
        """A stream of ours. Raises `MuxedStreamError`."""
        if len(self.by_id) - self._inbound >= STREAMS_OUT_MAX:
            raise MuxedStreamError(f"{STREAMS_OUT_MAX} streams are open to this peer")
        stream = self._add(self._next_id, inbound=False)
        self._next_id += 2
        return stream

    def begun(self, stream_id: int) -> bool:
        """The peer has begun a stream, which waits to be accepted. False, and it has not, if that is one too many.

        Raises `RemoteProtocolError(bad_encoding)` if the number is not free.
        """
        if not stream_id or stream_id % 2 == self._next_id % 2 or stream_id in self.by_id:
            raise RemoteProtocolError(Code.BAD_ENCODING, "The peer began a stream under a number that is not free.")
        now = trio.current_time()
        since_s, self._may_begin_at = now - self._may_begin_at, now
        self._may_begin = min(STREAMS_IN_BURST, self._may_begin + since_s * STREAMS_IN_SEC)
        waiting = self._accepting.statistics().current_buffer_used  # some of them may have ended
        if max(self._inbound, waiting) >= STREAMS_IN_MAX or self._may_begin < 1:
            return False
        self._may_begin -= 1
        with suppress(trio.BrokenResourceError):  # nobody accepts any more: the connection is being closed
            self._accepting.send_nowait(self._add(stream_id, inbound=True))
        return True

    async def accept(self) -> MuxedStream:
        """The next stream that the peer began. Raises `MuxedConnUnavailable` at the end."""
        try:
            return await self._accepted.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable("the connection is closed") from None

    def set_working(self, stream: MuxedStream, working: bool) -> None:
        """Whether anything is under way on the stream; while not, it keeps nobody from ending the connection."""
        stream.resting = not working
        self.used_at = trio.current_time()

    def remove(self, stream: MuxedStream) -> None:
        """The stream has ended for both sides."""
        if stream in self:
            del self.by_id[stream.stream_id]
            self._inbound -= stream.inbound
            self.used_at = trio.current_time()

    def abandon_half_closed(self) -> None:
        """Those are reset whose end the other side has long owed us."""
        for stream in [each for each in self.by_id.values() if each.closed_s() > HALF_CLOSED_S]:
            stream.abandon()

    def end(self) -> None:
        """All have ended, and nobody waits for another."""
        for stream in list(self.by_id.values()):
            stream.lose()
        self._accepting.close()

    def _add(self, stream_id: int, *, inbound: bool) -> MuxedStream:
        stream = self.by_id[stream_id] = self._make(stream_id, inbound)
        self._inbound += inbound
        self.used_at = trio.current_time()
        return stream
