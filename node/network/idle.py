"""Connections that nobody uses any more end: each costs its two ends a few tasks, and a ping now and then."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Final

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID

from .boundary import Tasks
from .host import swarm_of
from .muxer import Muxer

IDLE_S: Final = 75.0
"""In that time an unused connection costs as many bytes as a new one. A client that works asks its nodes every ten seconds;
whoever is not there is back in 50 ms."""

PASSING_S: Final = 2.0
"""The same of one that was begun for the table alone: a node's keys are kept by others each, and asked again after ten minutes.
In so long the next question of the same search comes; and neither end has yet asked the other who it is
(`introductions.STAYS_S`), or whether it is there (`silence.ASK_S`)."""

LOOK_S: Final = 1.0
"""How often is looked."""


class Trimmer:
    """The unused connections of one host. `spared` are peers to whom a connection is kept though nothing is said on it."""

    def __init__(self, host: BasicHost, tasks: Tasks, spared: Callable[[], Collection[ID]]) -> None:
        self._host = host
        self._tasks = tasks
        self._spared = spared

    async def run(self) -> None:
        """Unused connections end, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            self.trim(trio.current_time())

    def trim(self, now: float) -> None:
        """Those that are unused by then are on their way out."""
        for muxed in self.unused(now):
            self._tasks.spawn(partial(_close, muxed))

    def unused(self, now: float) -> list[Muxer]:
        """Connections without anything under way, for longer than they are kept."""
        spared = self._spared()
        found = []
        for peer, connections in swarm_of(self._host).get_connections_map().items():
            for connection in connections:
                muxed = connection.muxed_conn
                if not isinstance(muxed, Muxer) or muxed.streams.busy or peer in spared:
                    continue
                if now - muxed.streams.used_at > (muxed.keep_s or IDLE_S):
                    found.append(muxed)
        return found


async def _close(muxed: Muxer) -> None:
    if not muxed.streams.busy:  # still: something may have begun since
        await muxed.close()
