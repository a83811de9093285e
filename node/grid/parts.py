"""A node's part in the grid, from its settings: its share of a feeder and its site's plan bound what its work draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import trio
from nacl.signing import SigningKey

from ...protocol.streams import FEEDER_PROTOCOL
from ..config import Config
from ..lending import Lending, local_now
from ..log import EventLog, wall_ms
from ..machine import boot_ms
from ..network.seam import Network
from ..rules.asked import Cap
from ..rules.readings import Bound
from .feeder_config import FeederConfig
from .ledger import LEDGER, Ledger
from .member import Allowance
from .sharing import GOOD_S, Sharing
from .site import GOOD_S as SITE_GOOD_S
from .site import Site
from .site_config import SiteConfig

FEEDER, SITE = "feeder", "site"
"""Codes of the reasons."""


@contextmanager
def start_grid(
    config: Config, key: SigningKey, network: Network, lending: Lending, nursery: trio.Nursery, log: EventLog
) -> Iterator[None]:
    """The node keeps to its share of its feeder and to its site's plan, where it has them. Until they have looked, it draws
    nothing. Raises `StoreError`, `SettingError`."""
    with ExitStack() as closing:
        if config.grid.feeder is not None:
            ledger = Ledger(config.state / LEDGER, wall_ms())
            closing.callback(ledger.close)
            sharing = _sharing(config, config.grid.feeder, key, network, lending, ledger, log)
            sharing.look()
            network.serve(FEEDER_PROTOCOL, sharing.answer)
            nursery.start_soon(sharing.run)
        if config.grid.site is not None:
            _start_site(config, config.grid.site, lending, nursery, log)
        yield


def _sharing(
    config: Config,
    feeder: FeederConfig,
    key: SigningKey,
    network: Network,
    lending: Lending,
    ledger: Ledger,
    log: EventLog,
) -> Sharing:
    def tell(found: Allowance) -> None:
        left_w = max(0, found.watts - feeder.reserve_w)
        lending.bind(FEEDER, Bound(left_w, found.why, boot_ms() + GOOD_S * 1000, whole=True))

    member = ledger.member(key, feeder.grid_key, feeder.name, wall_ms())
    return Sharing(network, member, ledger, lending.wants_w, tell, log, feeder.roster, feeder.reserve_w)


def _start_site(config: Config, site: SiteConfig, lending: Lending, nursery: trio.Nursery, log: EventLog) -> None:
    def tell(watts: float, why: str) -> None:
        lending.bind(SITE, Bound(watts, why, boot_ms() + SITE_GOOD_S * 1000))

    wants, earns = config.preferences, earns_per_kwh(lending)
    guarded = Site(site, lending.board, wants, local_now, earns, tell, log, partial(connection_caps, lending))
    tell(0.0, "the site's guard has not looked yet")
    nursery.start_soon(guarded.run)


def connection_caps(lending: Lending) -> tuple[Cap, ...]:
    """What bounds the whole connection: what the grid asks of it, and the share of a feeder that hangs on it."""
    share = lending.board.bounds.get(FEEDER)
    if share is None:
        return lending.asked.imports
    return *lending.asked.imports, (share.watts if boot_ms() < share.until_ms else 0.0, share.why)


def earns_per_kwh(lending: Lending) -> Callable[[], float | None]:
    """What work brings for a kilowatt-hour that it draws, in micro-credits; None while that is not known."""

    def earns() -> float | None:
        hour_ucr, full_w = lending.earns_ucr(), lending.draw.full_w
        return None if hour_ucr is None or full_w <= 0 else hour_ucr / (full_w / 1000)

    return earns
