"""What this node knows of its own connection: probes, rates and the kind of link, together; and when others should hear of it.

A change beyond noise is in the next answer to whoever asks. The table's copy waits for its own few minutes, so that nobody
who watches it sees a household drive off; for the same reason what moves, or lives with people, does not publish its kind
of link at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import trio
from nacl.signing import SigningKey

from . import link as links
from .config import Config
from .link import Link
from .log import EventLog, wall_ms
from .network.seam import Network
from .pace import Traffic
from .probing import Probing
from .rates import Rates
from .starlink import Dish, watch_dish
from .vantage import Measured, differs, has_changed
from .witnesses import Witnesses

HIDES_LINK: Final = ("vehicle", "robot")
"""Kinds of nodes whose link tells when they are at home; theirs is taken for metered where it is not known, too."""
SATELLITE: Final = "satellite"


@dataclass(frozen=True, slots=True)
class Connection:
    """As of now; what was not measured is None."""

    measured: Measured | None = None
    link: Link = field(default_factory=Link)
    up_kbit_per_s: int | None = None
    down_kbit_per_s: int | None = None


class Survey:
    """Keeps finding out how this node is connected."""

    def __init__(
        self,
        config: Config,
        key: SigningKey,
        owner: bytes,
        network: Network,
        mandate: Callable[[], bytes],
        may_move: Callable[[], bool],
        on_change: Callable[[], None],
        on_link: Callable[[Link], None],
        log: EventLog,
        traffic: Traffic | None = None,
    ) -> None:
        """`may_move` says whether the owner lets anything be moved now, the link aside. `on_change` is told when `now` is
        news, `on_link` of each reading of the link."""
        self._config = config
        self._on_change = on_change
        self._on_link = on_link
        self._log = log
        self._may_move = may_move
        self.link = links.UNKNOWN
        self.dish: Dish | None = None
        self._told = Connection()
        self.witnesses = Witnesses(bytes(key.verify_key), owner, wall_ms)
        self.probing = Probing(network, key, mandate, self.witnesses, self._look, lambda: self.link.metered is True)
        self.rates = Rates(
            network,
            lambda: [
                each for each in self.probing.peers if not network.relayed(each)
            ],  # not at a relay's cost, nor by its caps
            self._may_transfer,
            traffic,
            bytes_per_s_up=config.max_bytes_sec_up,
            bytes_per_s_down=config.max_bytes_sec_down,
            changed=self._look,
        )

    def now(self) -> Connection:
        """All that is known."""
        kinds = (*self.link.kinds, SATELLITE) if self.dish else self.link.kinds
        return Connection(
            self.probing.measured(),
            replace(self.link, kinds=kinds),
            self.rates.up_kbit_per_s,
            self.rates.down_kbit_per_s,
        )

    async def run(self) -> None:
        """Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.probing.run)
            nursery.start_soon(self.rates.run)
            nursery.start_soon(links.watch, self._read_link)
            if self._config.starlink:
                nursery.start_soon(watch_dish, self._see_dish)

    def _may_transfer(self) -> bool:
        """Never on a metered link; where that is not known, not if the owner asked for it to be, nor from what moves."""
        wary = self._config.unmetered_only or self._config.kind in HIDES_LINK
        metered = self.link.metered
        return self._may_move() and (metered is False or (metered is None and not wary))

    def _read_link(self, link: Link) -> None:
        before, self.link = self.link, link
        self._log.write("link", kinds=link.kinds, metered=str(link.metered).lower(), why=link.why)
        self._on_link(link)
        if before.kinds and before.kinds != link.kinds:
            self.rates.link_changed()
        self._look()

    def _see_dish(self, dish: Dish | None) -> None:
        self.dish = dish
        self._look()

    def _look(self) -> None:
        found, told = self.now(), self._told
        if (
            has_changed(told.measured, found.measured)
            or found.link != told.link
            or differs(told.up_kbit_per_s, found.up_kbit_per_s)
            or differs(told.down_kbit_per_s, found.down_kbit_per_s)
        ):
            self._told = found
            self._on_change()
