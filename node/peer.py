"""The node as its peers know it: what it answers, what it says of itself, and the jobs that it takes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, cast

import trio

from ..protocol.envelope import Signed
from ..protocol.errors import ConfigError, FallowError, NetworkError
from ..protocol.identity import short
from ..protocol.payment import Voucher
from ..protocol.streams import (
    BLOB_PROTOCOL,
    DISPUTE_PROTOCOL,
    EVIDENCE_PROTOCOL,
    GROUND_PROTOCOL,
    JOB_PROTOCOL,
    MEANS_PROTOCOL,
    PROBE_PROTOCOL,
    PROFILE_PROTOCOL,
    RATE_PROTOCOL,
    VOUCHER_PROTOCOL,
)
from .accounts import Accounts
from .blobs import Blobs
from .causes import leaves
from .connection import Survey
from .deposits import Deposits, Purse
from .disputes import Disputes
from .engine.bundles import Bundle
from .engine.engine import Engine
from .gossip import FAULTS, TWO_VOUCHERS, Gossip
from .holdings import Holdings
from .link import Link
from .log import wall_ms
from .machine import chance
from .network.seam import Handler, Network, Stream
from .owner import Keeper
from .paying import Paying
from .power.keeping import Power
from .presence import Presence
from .profiles import Offer, earns_ucr, make_offer
from .rails.opening import CASHU
from .rules.signals import Signal
from .sensors.feed import Feed
from .serving import Executor
from .settling import Settling
from .workplace import sandbox_policy

LINK: Final = "link"
LINK_GOOD_MS: Final = 7 * 86_400_000
"""NetworkManager says what changes, and who asks it says that it has gone: its word holds until then."""


class Peer:
    """The parts of a node that others deal with, joined. Its worker is ready."""

    def __init__(self, held: Holdings, bundles: list[Bundle], network: Network, engine: Engine, power: Power) -> None:
        config, key, owner, lending = held.config, held.key, held.authority.owner, held.lending
        self._held = held
        self._network = network
        self._bundles = bundles
        self._log = held.log

        def offer() -> Offer:
            return make_offer(config, key, engine, {each.hash: each.manifest for each in bundles}, wall_ms())

        accounts = Accounts(held.journal, wall_ms, config.friends)
        self._settling = Settling(bytes(key.verify_key), owner, accounts)
        purse = held.rails.get(CASHU)
        deposits = Deposits(held.deposits, cast(Purse, purse), accounts, wall_ms) if purse else None
        self._paying = Paying(held.rails, accounts, deposits)
        self._disputes = Disputes(key, owner, accounts, self._paying.owe)
        self._gossip = Gossip(
            network, config.state / FAULTS, chance(), concerns=accounts.deals_with,
            metered=lambda: self.survey.link.metered is True,
        )  # fmt: skip
        accounts.at_fault = self._gossip.at_fault
        accounts.contradicted = self._accuse
        self.survey = Survey(
            config,
            key,
            owner,
            network,
            lambda: self._presence.mandate.envelope,
            lambda: held.availability.lends and not held.availability.jobs,
            lambda: self._presence.refresh(),
            self._heed_link,
            held.log,
            held.library.traffic,
        )
        held.library.on_fetched = self.survey.rates.fetched
        self._link: Feed | None = None
        self._presence = Presence(
            config, key, held.authority, network, held.availability, offer(), held.library.held, self.survey.now,
            self.survey.witnesses.shown, lambda: power.account.duty,
        )  # fmt: skip
        power.on_pace = self._presence.paced
        self._executor = Executor(
            key,
            owner,
            accounts,
            engine,
            held.availability,
            lambda: self._presence.mandate.id,
            held.log,
            network.go_direct,
            power.account,
            lending.stays_ms,
            lending.hour_ucr,
        )
        lending.earns_ucr = lambda: earns_ucr(self._executor.offer) if self._executor.offer else None
        self.keeper = Keeper(engine, held.availability, self._executor, self._presence, offer, held.log)

    async def start(self, nursery: trio.Nursery) -> None:
        """Orders are taken, and the mesh knows it."""
        if self._held.config.unmetered_only:
            self._demand_unmetered()
        self._serve_all()
        nursery.start_soon(self._gossip.run)
        nursery.start_soon(self._paying.run)
        await nursery.start(self.keeper.run)
        await self._presence.announce()
        nursery.start_soon(self._presence.keep, self._log)
        nursery.start_soon(self.survey.run)
        self._log.write("ready", pid=os.getpid())

    async def grow(self, arrivals: AsyncIterator[Bundle], cids: list[str]) -> None:
        """Each bundle that comes late is on offer, or held for others.

        To run it, a new worker takes over when the last job of this one has ended.
        """
        async for bundle in arrivals:
            if self._held.library.runs(bundle) and self._may_run(bundle):
                self._bundles.append(bundle)
                cids.append(bundle.cid)
                await self.keeper.replace_worker()
            with suppress(NetworkError):  # it is said again in a few minutes
                await self._presence.announce()

    def _serve_all(self) -> None:
        held = self._held
        blobs = Blobs(
            held.library.given,
            held.log,
            bytes_per_s=held.config.max_bytes_sec_up,
            traffic=held.library.traffic,
            lent=lambda: held.availability.lends,
            works=lambda: bool(held.availability.jobs),
        )
        handlers: dict[str, Handler] = {
            JOB_PROTOCOL: self._executor.serve,
            PROFILE_PROTOCOL: self._presence.answer,
            VOUCHER_PROTOCOL: self._settling.answer,
            GROUND_PROTOCOL: self._settling.answer_grounds,
            DISPUTE_PROTOCOL: self._disputes.answer,
            EVIDENCE_PROTOCOL: self._gossip.serve,
            MEANS_PROTOCOL: self._paying.answer,
            BLOB_PROTOCOL: blobs.answer,
            PROBE_PROTOCOL: self.survey.probing.answer,
            RATE_PROTOCOL: self.survey.rates.answer,
        }
        for protocol, handler in handlers.items():
            self._serve(protocol, handler)

    def _serve(self, protocol: str, handler: Handler) -> None:
        async def logged(stream: Stream) -> None:
            try:
                await handler(stream)
            except* FallowError as errors:
                why = tuple(str(error) for error in leaves(errors))
                self._log.write("stream_broken", protocol=protocol, peer=short(stream.peer), why=why)
                raise

        self._network.serve(protocol, logged, watched=protocol == JOB_PROTOCOL)

    def _accuse(self, one: Signed[Voucher], other: Signed[Voucher]) -> None:
        """Everybody hears that the payer of both has contradicted itself."""
        self._gossip.accuse((one, other), TWO_VOUCHERS, self._held.key)

    def _demand_unmetered(self) -> None:
        """The link is a signal like others from now on, and it counts."""
        self._link = self._held.lending.feed(LINK, LINK_GOOD_MS, [Signal.METERED])
        self._heed_link(self.survey.link)
        self._held.lending.demand_unmetered()

    def _heed_link(self, link: Link) -> None:
        if self._link and link.metered is None:
            self._link.miss(Signal.METERED, link.why or "NetworkManager does not say")
        elif self._link:
            self._link.take([(Signal.METERED, link.metered is True)])

    def _may_run(self, bundle: Bundle) -> bool:
        try:
            sandbox_policy(self._held.config, [bundle])
        except ConfigError as error:
            self._log.write("bundle_not_run", bundle=bundle.cid, code=error.code, why=error.message)
            return False
        return True
