"""Asks a silent peer whether it is there, and ends what it keeps waiting: watched streams soon, the connection later."""

from __future__ import annotations

import trio

from .muxed import MuxedStream
from .silence import Silence
from .stream_map import StreamMap
from .writing import Writer


class Keepalive:
    """Of one connection, whose `life` is cancelled when the peer is gone. What is heard of the peer, `silence` is told."""

    def __init__(self, silence: Silence, streams: StreamMap, writer: Writer, life: trio.CancelScope) -> None:
        self.watched: dict[MuxedStream, None] = {}
        """Streams that end when the peer falls silent, long before the connection does."""
        self._silence = silence
        self._streams = streams
        self._writer = writer
        self._life = life
        self._nap = trio.CancelScope()

    def watch(self, stream: MuxedStream, watched: bool = True) -> None:
        """The stream is watched, if it is open; or not any more."""
        if watched and stream in self._streams:
            self.watched[stream] = None
        else:
            self.watched.pop(stream, None)
        if not self.watched:
            self._silence.unwatch()
        elif not self._silence.watched:
            self._silence.watch(trio.current_time())
            self._nap.deadline = min(self._nap.deadline, self._silence.due)  # without waking whoever naps

    async def run(self) -> None:
        """Whoever owes us a word is asked and given up in time, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._silence.due) as self._nap:
                await trio.sleep_forever()
            found = self._silence.look(trio.current_time())
            if found.peer_gone:
                self._life.cancel()
            if found.streams_gone:
                for stream in list(self.watched):
                    stream.abandon()
            if found.ask:
                self._writer.ask()
            self._streams.abandon_half_closed()
