"""Who those are that came: libp2p's identify, asked of those who stay.

Upstream asks every peer at once, from both ends, and again before every stream until it has an answer (host/basic_host.py:1383,
:716): 5 of the 12 ms of processor time that a connection and its first question take. Whoever dialled knows where the peer is,
and learns what it offers by asking for it; so here the dialled end alone asks, once, and clients that pass by are not asked.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakSet

import trio
from libp2p.host.basic_host import BasicHost

from .host import swarm_of
from .muxer import Muxer

STAYS_S: Final = 5.0
"""Who is still here at the second look has stayed for so long."""


class Introductions:
    """Of one host."""

    def __init__(self, host: BasicHost) -> None:
        self._host = host
        self._seen: WeakSet[Muxer] = WeakSet()
        self._asked: WeakSet[Muxer] = WeakSet()

    async def run(self) -> None:
        """Those who came and stay are asked where they are, until cancelled."""
        while True:
            await trio.sleep(STAYS_S)
            self.look()

    def look(self) -> None:
        """Who was here at the last look too, and was not asked, is being asked."""
        for peer, connections in swarm_of(self._host).get_connections_map().items():
            for muxed in [each.muxed_conn for each in connections]:
                if not isinstance(muxed, Muxer) or muxed.is_initiator or muxed in self._asked:
                    continue
                if muxed in self._seen:
                    self._asked.add(muxed)
                    BasicHost._schedule_identify(self._host, peer, reason="stays")
                self._seen.add(muxed)
