"""A connection shared by many streams: yamux, with every bound kept by us.

libp2p's own (py-libp2p 0.8.1, stream_muxer/yamux/yamux.py) is not used. It only logs a peer that overruns its window
(:1433), lets a peer begin any number of streams, polls for credit every 10 ms and breaks the writer after 5 s (:280),
leaves half a frame on the connection when a writer is cancelled (:758), puts what is small behind all that is large,
and does not notice a peer that has fallen silent.

Here whoever sends can be cancelled at any moment, since one task writes all frames and finishes what it began. What is
small goes before what is large. A peer that breaks the rules is cut off, and one that says nothing is too (`silence`);
streams that are `watched` end long before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from ...protocol.errors import Code, NetworkError, RemoteProtocolError
from .boundary import translated
from .flight import Flight
from .identity import Multiaddr
from .limits import BUFFERED_CONNECTION_MAX, STREAMS_IN_BURST, STREAMS_IN_MAX, STREAMS_IN_SEC, STREAMS_OUT_MAX
from .memory import Memory
from .muxed import MuxedStream
from .silence import ASK_OTHER_S, ASK_S, Silence
from .standing import Fault
from .yamux import BODY_BYTES_MAX, HEAD_BYTES, WINDOW_BYTES, Flag, Frame, Frames, Kind, encode

WRITE_BYTES_MAX: Final = BODY_BYTES_MAX + 2 * HEAD_BYTES
"""Frames written at once: the plaintext of one noise message."""

SMALL_BYTES_MAX: Final = 4096
"""A frame of data up to this goes before larger ones: a question, a token, a heartbeat."""

LARGE_QUEUED_MAX: Final = 16
"""Large frames waiting for the socket; further senders wait for their turn."""

FINE_BYTES: Final = 16 * 1024 - 2 * HEAD_BYTES
FINE_S: Final = 0.5
"""Data in one large frame, and little more on its way than the path holds (`flight`), for so long after something small was
sent: a job has its heartbeats. On one machine bulk then has a third of its rate, which is more than what most links have."""

HUSH_S: Final = 0.001
"""For so long after something small has passed, bulk waits for what that brings about, the answer or our own: a turn of the
event loop would else take two or three times as long, and a question with its answer takes a dozen. One large frame goes behind
each small one that is sent, and one at the latest so long after the last: it never stands still."""

OFFERED_MAX: Final = 256
"""Small frames waiting for the socket beyond which no further one is taken without waiting for it."""

SMALL_QUEUED_MAX: Final = 4096
"""Small frames waiting for the socket. They are not waited for, else two full sockets could wait for each other; a peer
that lets so many pile up has not read for a long time, and the connection is given up."""

HALF_CLOSED_S: Final = 60.0
"""A stream that we closed and the other side did not is reset after so long."""

FAREWELL_S: Final = 1.0
"""To send the word that we go."""

GOING, BROKE_RULES = 0, 1
"""What a go-away frame says."""


class _Queued(NamedTuple):
    """A frame that waits for the socket."""

    frame: bytes
    written: trio.Event | None = None
    stream: MuxedStream | None = None
    """Whose data it is, if it is large: what comes later on it stays behind it."""


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
        self.used_at = trio.current_time()
        """When a stream last began or ended."""
        self.keep_s = 0.0
        """For so long it is kept after its last use: by the most patient of those who said. 0 if nobody did."""
        self.event_started, self.event_closed = trio.Event(), trio.Event()
        self._initiator = secured_conn.is_initiator if is_initiator is None else is_initiator
        self._next_id = 1 if self._initiator else 2
        self._streams: dict[int, MuxedStream] = {}
        self._inbound = self._watched = 0
        self._may_begin, self._may_begin_at = STREAMS_IN_BURST, trio.current_time()
        self._accepting, self._accepted = trio.open_memory_channel[MuxedStream](STREAMS_IN_MAX)
        self._small: deque[_Queued] = deque()
        self._large: deque[_Queued] = deque()
        self._writing: list[_Queued] = []
        self._room = trio.Semaphore(LARGE_QUEUED_MAX)
        self._wake = trio.Event()
        self._flight = Flight()
        self._small_at = -FINE_S
        """When something small was last sent."""
        self._hush_until = self._bulk_at = -HUSH_S
        """Until when bulk waits, and when some was last sent."""
        self._behind = False
        """Whether one large frame may go all the same: something small went before it."""
        self._marks = 0
        self._silence = Silence(ASK_S if self._initiator else ASK_OTHER_S, trio.current_time())
        self._nap = trio.CancelScope()
        self._ended = False
        self._life = trio.CancelScope()

    # What libp2p asks of a connection.

    @property
    def is_initiator(self) -> bool:
        return self._initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self._ended

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
        try:
            with suppress(NetworkError), translated(Code.STREAM_CLOSED, "the connection broke"), self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_frames)
                    nursery.start_soon(self._watch)
                    self.event_started.set()
                    await self._read_frames()
                    nursery.cancel_scope.cancel()
        finally:
            await self._end()

    async def close(self) -> None:
        """The connection has ended, and the peer was told so if that went quickly."""
        if self.is_established:
            said = trio.Event()
            self._small.append(_Queued(encode(Kind.GO_AWAY, 0, 0, GOING), said))
            self._wake.set()
            with trio.move_on_after(FAREWELL_S, shield=True):
                await said.wait()
        await self._end()

    async def open_stream(self) -> MuxedStream:
        """A stream that the peer has been told of. Raises `MuxedStreamError`."""
        await trio.lowlevel.checkpoint()
        if self._ended:
            raise MuxedStreamError("the connection is closed")
        if len(self._streams) - self._inbound >= STREAMS_OUT_MAX:
            raise MuxedStreamError(f"{STREAMS_OUT_MAX} streams are open to this peer")
        stream = self._add(self._next_id, inbound=False)
        self._next_id += 2
        self.watch(stream)  # until its protocol is agreed: `host` says when
        self.say(encode(Kind.WINDOW, Flag.SYN, stream.stream_id, 0))
        return stream

    async def accept_stream(self) -> MuxedStream:
        """The next stream that the peer began. Raises `MuxedConnUnavailable` at the end."""
        try:
            return await self._accepted.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable("the connection is closed") from None

    # What streams, and those who keep the connections, ask of it.

    @property
    def streams(self) -> int:
        """Streams open now, either side's."""
        return len(self._streams)

    @property
    def buffered_bytes(self) -> int:
        """What the peer sent and nobody has read, here and above."""
        return self.held_bytes + sum(len(stream.unread) for stream in self._streams.values())

    @property
    def round_trip_s(self) -> float:
        """The least of late, in seconds; 0 before one was measured."""
        return self._flight.round_trip_s

    @property
    def frame_bytes_max(self) -> int:
        """Of data in one frame, as of now."""
        return FINE_BYTES if self._is_fine() else BODY_BYTES_MAX

    def about_to_send(self, length: int) -> None:
        """So many bytes will be sent on a stream: if they are few, bulk makes way for a while."""
        if length <= SMALL_BYTES_MAX:
            self._small_at = trio.current_time()
            self._hush(sent=True)

    def _hush(self, *, sent: bool) -> None:
        """Something small goes, or has come."""
        self._hush_until = trio.current_time() + HUSH_S
        self._behind = self._behind or sent

    @property
    def _bulk_due(self) -> float:
        """When something large may be sent, the other side permitting."""
        return -math.inf if self._behind else min(self._hush_until, self._bulk_at + HUSH_S)

    @property
    def silent_s(self) -> float:
        """For so long nothing has come, although it was asked for; 0 if it was not."""
        return self._silence.silent_s

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return any(not stream.resting for stream in self._streams.values())

    def watch(self, stream: MuxedStream, watched: bool = True) -> None:
        """The stream ends when the peer falls silent, long before the connection does; or not any more."""
        if stream.watched is not watched and stream.stream_id in self._streams:
            stream.watched = watched
            self._watched += 1 if watched else -1
            self._watching()

    def set_working(self, stream: MuxedStream, working: bool) -> None:
        """Whether anything is under way on the stream; while not, it keeps nobody from ending the connection."""
        stream.resting = not working
        self.used_at = trio.current_time()

    def forget(self, stream: MuxedStream) -> None:
        """The stream has ended for both sides."""
        if self._streams.pop(stream.stream_id, None) is not None:
            self._inbound -= stream.inbound
            if stream.watched:
                self._watched -= 1
                self._watching()
            self.used_at = trio.current_time()

    def say(self, frame: bytes) -> None:
        """The frame, which carries no data, is on its way."""
        if len(self._small) >= SMALL_QUEUED_MAX:
            self._life.cancel()
        if not self._ended:
            self._small.append(_Queued(frame))
            self._wake.set()

    async def carry(self, stream: MuxedStream, frame: bytes) -> None:
        """The frame of data was written. Cancelled, it is written all the same. Raises `ConnectionClosedError`."""
        if len(frame) <= HEAD_BYTES + SMALL_BYTES_MAX and not stream.queued:
            self._check()
            queued = _Queued(frame, trio.Event())
            self._small.append(queued)
        else:
            await self._room.acquire()
            if self._ended:
                self._room.release()  # for the next one that waits
            self._check()
            queued = _Queued(frame, trio.Event(), stream)
            self._large.append(queued)
            stream.queued += 1
        self._wake.set()
        assert queued.written is not None
        await queued.written.wait()
        self._check()

    def offer(self, stream: MuxedStream, frame: bytes) -> bool:
        """The frame of data is on its way. False, and it is not, if it would have to wait."""
        if self._ended or stream.queued or len(self._small) >= OFFERED_MAX or len(frame) > HEAD_BYTES + SMALL_BYTES_MAX:
            return False
        self._small.append(_Queued(frame))
        self._wake.set()
        return True

    async def cut(self, fault: Fault | None = None) -> None:
        """The peer is cut off, for the fault if there is one."""
        if fault is not None:
            self.blame(fault)
        await self._end()

    def _check(self) -> None:
        if self._ended:
            raise ConnectionClosedError("the connection is closed", transport="tcp")

    def _add(self, stream_id: int, *, inbound: bool) -> MuxedStream:
        stream = self._streams[stream_id] = MuxedStream(stream_id, self, inbound=inbound)
        self._inbound += inbound
        self.used_at = trio.current_time()
        return stream

    # Reading.

    async def _read_frames(self) -> None:
        frames = Frames(self._credit)
        try:
            while True:
                received = await self.secured_conn.read()
                self._silence.heard(trio.current_time())
                for frame in frames.feed_untrusted(received):
                    if frame.kind == Kind.GO_AWAY:
                        return
                    self._take(frame)
        except RemoteProtocolError:
            self.say(encode(Kind.GO_AWAY, 0, 0, BROKE_RULES))
            self.blame(Fault.OVERRUN)

    def _credit(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        return stream.recv_window if stream else WINDOW_BYTES  # it may have been sent before our reset got there

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.PING:
            if frame.flags & Flag.SYN:
                self.say(encode(Kind.PING, Flag.ACK, 0, frame.length))
            else:
                self._flight.returned(frame.length, trio.current_time())
                self._wake.set()
            return
        if frame.flags & Flag.SYN and not self._begin(frame.stream):
            return
        if (stream := self._streams.get(frame.stream)) is not None:
            if frame.kind == Kind.DATA:
                if (
                    0 < frame.length <= SMALL_BYTES_MAX and not stream.came_large
                ):  # else it may be something large's rest
                    self._hush(sent=False)
                stream.came_large = frame.length > SMALL_BYTES_MAX
            stream.take(frame)

    def _begin(self, stream_id: int) -> bool:
        """Whether the stream that the peer begins may be."""
        if not stream_id or stream_id % 2 == self._next_id % 2 or stream_id in self._streams:
            raise RemoteProtocolError(Code.BAD_ENCODING, "The peer began a stream under a number that is not free.")
        now = trio.current_time()
        since_s, self._may_begin_at = now - self._may_begin_at, now
        self._may_begin = min(STREAMS_IN_BURST, self._may_begin + since_s * STREAMS_IN_SEC)
        if self._inbound >= STREAMS_IN_MAX or self._may_begin < 1:
            self.say(encode(Kind.WINDOW, Flag.RST, stream_id, 0))
            self.blame(Fault.REFUSED_STREAM)
            return False
        self._may_begin -= 1
        self.say(encode(Kind.WINDOW, Flag.ACK, stream_id, 0))
        with suppress(trio.BrokenResourceError):  # nobody accepts any more: the connection is being closed
            self._accepting.send_nowait(self._add(stream_id, inbound=True))
        return True

    # Writing.

    async def _write_frames(self) -> None:
        with translated(Code.STREAM_CLOSED, "the connection broke"):
            while True:
                if batch := self._next_small():
                    await self._write(batch)
                now, due = trio.current_time(), self._bulk_due
                if self._large and due <= now and self._flight.has_room(fine=self._is_fine()):
                    self._behind, self._bulk_at = False, now
                    queued = self._large.popleft()
                    self._room.release()
                    self._flight.marked(self._marks + 1, len(queued.frame), trio.current_time())
                    await self._write([queued, _Queued(self._mark())])
                elif not batch:
                    with trio.CancelScope(deadline=due if self._large and due > now else math.inf):
                        await self._wake.wait()
                    self._wake = trio.Event()

    def _is_fine(self) -> bool:
        return trio.current_time() - self._small_at < FINE_S

    async def _write(self, batch: list[_Queued]) -> None:
        self._writing = batch
        await self.secured_conn.write(b"".join(queued.frame for queued in batch))
        for queued in batch:
            if queued.written is not None:
                queued.written.set()
            if queued.stream is not None:
                queued.stream.queued -= 1

    def _next_small(self) -> list[_Queued]:
        batch: list[_Queued] = []
        size = 0
        while self._small and size + len(self._small[0].frame) <= WRITE_BYTES_MAX:
            batch.append(self._small.popleft())
            size += len(batch[-1].frame)
        return batch

    def _mark(self) -> bytes:
        self._marks += 1
        return encode(Kind.PING, Flag.SYN, 0, self._marks)

    # Keeping watch.

    def _watching(self) -> None:
        """One more stream is watched than before, or one fewer."""
        if not self._watched:
            self._silence.unwatch()
        elif not self._silence.watched:
            self._silence.watch(trio.current_time())
            self._nap.deadline = min(self._nap.deadline, self._silence.due)  # without waking whoever naps

    async def _watch(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._silence.due) as self._nap:
                await trio.sleep_forever()
            found = self._silence.look(trio.current_time())
            if found.peer_gone:
                self._life.cancel()
            if found.streams_gone:
                for stream in [each for each in self._streams.values() if each.watched]:
                    stream.abandon()
            if found.ask:
                self._flight.marked(self._marks + 1, 0, trio.current_time())
                self.say(self._mark())
            for stream in [each for each in self._streams.values() if each.closed_s() > HALF_CLOSED_S]:
                stream.abandon()

    async def _end(self) -> None:
        if self._ended:
            await trio.lowlevel.checkpoint()
            return
        self._ended = True
        for stream in list(self._streams.values()):
            stream.lose()
        self._accepting.close()
        for queued in [*self._writing, *self._small, *self._large]:
            if queued.written is not None:
                queued.written.set()
        for _ in self._large:
            self._room.release()
        self._small.clear()
        self._large.clear()
        gone = translated(Code.STREAM_CLOSED, "the connection was broken already")
        with trio.move_on_after(FAREWELL_S, shield=True), suppress(NetworkError), gone:
            await self.secured_conn.close()
        self.event_closed.set()
        self._life.cancel()
        if self.on_close is not None:
            await self.on_close()


# stream_muxer/muxer_multistream.py:143 makes a plain Yamux whatever class it was given under that protocol's name.
vars(muxer_multistream)["Yamux"] = Muxer
