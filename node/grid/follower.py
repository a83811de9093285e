"""Everybody whom the owner lets ask for less, heard and kept to: what the daemon runs of the grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from ...protocol.streams import SHED_PROTOCOL
from ..lending import Lending
from ..log import EventLog
from ..network.seam import Network
from .config import GridConfig
from .gossip import Gossip
from .openadr import Ven
from .openadr_reports import Figures
from .shed import Orders


class Follower:
    """From its making on, what was asked before this start counts; while it runs, what is asked anew does."""

    def __init__(self, config: GridConfig, lending: Lending, state: Path, log: EventLog) -> None:
        self._lending = lending
        self._log = log
        self._ven = Ven(config.openadr, state, log, lending.look) if config.openadr else None
        self.orders: Final = Orders(config.keys, config.zones, state, log) if config.keys else None
        for each in (self._ven, self.orders):
            if each is not None:
                lending.grid.append(each.asked)
                lending.heard.append(each.heard)
        lending.look()

    def report_of(self, figures: Callable[[], Figures]) -> None:
        """This is what there is to report, from now on."""
        if self._ven:
            self._ven.figures = figures

    async def run(self, network: Network) -> None:
        """Whoever is heeded is heard, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._ven:
                nursery.start_soon(self._ven.run)
            if self.orders:
                gossip = Gossip(network, self.orders, self._lending.look, self._log)
                network.serve(SHED_PROTOCOL, gossip.answer)
                nursery.start_soon(gossip.run)
