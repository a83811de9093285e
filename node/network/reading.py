"""What the peer of one connection sends: each frame takes effect as it comes, and one against the rules is the last."""

from __future__ import annotations

from collections.abc import Callable

import trio
from libp2p.abc import ISecureConn

from ...protocol.errors import RemoteProtocolError
from .pacing import SMALL_BYTES_MAX
from .silence import Silence
from .standing import Fault
from .stream_map import StreamMap
from .writing import Writer
from .yamux import BROKE_RULES, Flag, Frame, Frames, Kind, encode


class Reader:
    """All frames that one connection receives. `blame` is told of what the peer does against the rules."""

    def __init__(
        self,
        conn: ISecureConn,
        streams: StreamMap,
        writer: Writer,
        silence: Silence,
        blame: Callable[[Fault], None],
    ) -> None:
        self._conn = conn
        self._streams = streams
        self._writer = writer
        self._pacing = writer.pacing
        self._silence = silence
        self._blame = blame

    async def run(self) -> None:
        """The peer has said that it goes, or broke the rules, and is blamed and on its way to be told so.

        Raises what the connection below raises when it breaks.
        """
        frames = Frames(self._streams.credit)
        try:
            while True:
                received = await self._conn.read()
                self._silence.heard(trio.current_time())
                for frame in frames.feed_untrusted(received):
                    if frame.kind == Kind.GO_AWAY:
                        return
                    self._take(frame)
        except RemoteProtocolError:
            self._writer.say(encode(Kind.GO_AWAY, 0, 0, BROKE_RULES))
            self._blame(Fault.OVERRUN)

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.PING:
            if frame.flags & Flag.SYN:
                self._writer.say(encode(Kind.PING, Flag.ACK, 0, frame.length))
            else:
                self._writer.returned(frame.length)
            return
        if frame.flags & Flag.SYN and not self._begin(frame.stream):
            return
        if (stream := self._streams.by_id.get(frame.stream)) is not None:
            if frame.kind == Kind.DATA:
                if 0 < frame.length <= SMALL_BYTES_MAX and not stream.came_large:  # else it may be the rest of that
                    self._pacing.small_came(trio.current_time())
                stream.came_large = frame.length > SMALL_BYTES_MAX
            stream.take(frame)

    def _begin(self, stream_id: int) -> bool:
        begun = self._streams.begun(stream_id)
        self._writer.say(encode(Kind.WINDOW, Flag.ACK if begun else Flag.RST, stream_id, 0))
        if not begun:
            self._blame(Fault.REFUSED_STREAM)
        return begun
