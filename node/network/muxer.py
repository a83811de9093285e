"""A connection shared by many streams: yamux, with every bound kept by us.

libp2p's own (py-libp2p 0.8.1, stream_muxer/yamux/yamux.py) is not used. It only logs a peer that overruns its window
(:1433), lets a peer begin any number of streams, polls for credit every 10 ms and breaks the writer after 5 s (:280),
leaves half a frame on the connection when a writer is cancelled (:758), puts what is small behind all that is large,
and does not notice a peer that has fallen silent.

Here one task takes all frames (`reading`) and another one writes them (`writing`), so that whoever sends can be cancelled at
any moment, and what is small goes before what is large (`pacing`). A peer that breaks the rules is cut off, and one that says
nothing is too (`keepalive`); streams that are watched end long before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.exceptions import MuxedStreamError

from ...protocol.errors import Code, NetworkError
from .boundary import translated
from .identity import Multiaddr
from .keepalive import Keepalive
from .limits import BUFFERED_CONNECTION_MAX
from .memory import Memory
from .muxed import MuxedStream
from .reading import Reader
from .silence import ASK_OTHER_S, ASK_S, Silence
from .standing import Fault
from .stream_map import StreamMap
from .writing import Writer
from .yamux import GOING, Flag, Kind, encode

FAREWELL_S: Final = 1.0
"""To send the word that we go."""


class Muxer(IMuxedConn):
    """One connection. Made by libp2p, which runs `start`."""

    def __init__(
        self,
        secured_conn: ISecureConn,
        peer_id: ID,
        is_initiator: bool | None = None,
        on_close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.secured_conn = secured_conn
        self.peer_id = peer_id
        self.on_close = on_close
        self.blame: Callable[[Fault], None] = lambda fault: None
        """Told of what the peer does against the rules."""
        self.memory = Memory(BUFFERED_CONNECTION_MAX, trio.current_time)
        """Of all connections of the host, once it has been let in."""
        self.held_bytes = 0
        """What has come and waits above for whoever reads it."""
        self.keep_s = 0.0
        """For so long it is kept after its last use: by the most patient of those who said. 0 if nobody did."""
        self.event_started, self.event_closed = trio.Event(), trio.Event()
        self._initiator = secured_conn.is_initiator if is_initiator is None else is_initiator
        self._life = trio.CancelScope()
        self._silence = Silence(ASK_S if self._initiator else ASK_OTHER_S, trio.current_time())
        self.writer = Writer(secured_conn, self._life)
        self.streams = StreamMap(
            lambda number, inbound: MuxedStream(number, self, inbound=inbound), is_initiator=self._initiator
        )
        self.keepalive = Keepalive(self._silence, self.streams, self.writer, self._life)

    # What libp2p asks of a connection.

    @property
    def is_initiator(self) -> bool:
        return self._initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.writer.ended

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    async def start(self) -> None:
        """The connection has ended. Nothing is raised: libp2p would end the whole host."""
        reader = Reader(self.secured_conn, self.streams, self.writer, self._silence, lambda fault: self.blame(fault))
        try:
            with suppress(NetworkError), translated(Code.STREAM_CLOSED, "the connection broke"), self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.writer.run)
                    nursery.start_soon(self.keepalive.run)
                    self.event_started.set()
                    await reader.run()
                    nursery.cancel_scope.cancel()
        finally:
            await self._end()

    async def close(self) -> None:
        """The connection has ended, and the peer was told so if that went quickly."""
        if self.is_established:
            said = self.writer.say_last(encode(Kind.GO_AWAY, 0, 0, GOING))
            with trio.move_on_after(FAREWELL_S, shield=True):
                await said.wait()
        await self._end()

    async def open_stream(self) -> MuxedStream:
        """A stream that the peer has been told of. Raises `MuxedStreamError`."""
        await trio.lowlevel.checkpoint()
        if self.writer.ended:
            raise MuxedStreamError("the connection is closed")
        stream = self.streams.open()
        self.keepalive.watch(stream)  # until its protocol is agreed: `host` says when
        self.writer.say(encode(Kind.WINDOW, Flag.SYN, stream.stream_id, 0))
        return stream

    async def accept_stream(self) -> MuxedStream:
        """The next stream that the peer began. Raises `MuxedConnUnavailable` at the end."""
        return await self.streams.accept()

    # What streams, and those who keep the connections, ask of it.

    @property
    def buffered_bytes(self) -> int:
        """What the peer sent and nobody has read, here and above."""
        return self.held_bytes + self.streams.unread_bytes

    @property
    def silent_s(self) -> float:
        """For so long nothing has come, although it was asked for; 0 if it was not."""
        return self._silence.silent_s

    def forget(self, stream: MuxedStream) -> None:
        """The stream has ended for both sides."""
        self.streams.remove(stream)
        self.keepalive.watch(stream, watched=False)

    async def _end(self) -> None:
        if self.writer.ended:
            await trio.lowlevel.checkpoint()
            return
        self.writer.end()
        self.streams.end()
        gone = translated(Code.STREAM_CLOSED, "the connection was broken already")
        with trio.move_on_after(FAREWELL_S, shield=True), suppress(NetworkError), gone:
            await self.secured_conn.close()
        self.event_closed.set()
        self._life.cancel()
        if self.on_close is not None:
            await self.on_close()


# stream_muxer/muxer_multistream.py:143 makes a plain Yamux whatever class it was given under that protocol's name.
vars(muxer_multistream)["Yamux"] = Muxer
