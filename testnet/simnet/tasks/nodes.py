"""One simulated node of the real parts, over all its lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

import trio
from nacl.signing import SigningKey

from ....node.accounts import Accounts
from ....node.availability import Availability
from ....node.blobs import Blobs
from ....node.book import BOOK, Book
from ....node.config import Config
from ....node.connection import Survey
from ....node.disputes import Disputes
from ....node.engine.bundles import BundleStore
from ....node.engine.messages import Rates
from ....node.gossip import TWO_VOUCHERS
from ....node.journal import Journal
from ....node.library import Library
from ....node.log import EventLog
from ....node.machine import HERE, wall_ms
from ....node.mandates import Authority
from ....node.network.seam import Handler, Network, Stream
from ....node.network.table_rules import profile_rules
from ....node.owner import Keeper
from ....node.paying import Paying
from ....node.presence import Presence
from ....node.profiles import Offer, make_offer
from ....node.rules.policy import OWNER
from ....node.settling import Settling
from ....protocol.bundle import Manifest
from ....protocol.errors import FallowError, NetworkError
from ....protocol.identity import CHECKER, EXECUTOR, RELAY
from ....protocol.profiles import State
from ....protocol.streams import (
    BLOB_PROTOCOL,
    DISPUTE_PROTOCOL,
    GROUND_PROTOCOL,
    JOB_PROTOCOL,
    PROBE_PROTOCOL,
    PROFILE_PROTOCOL,
    VOUCHER_PROTOCOL,
)
from ..days import KINDS
from ..regions import REGIONS
from .bundles import SimBundle
from .chance import chance_for
from .characters import Character
from .cheats import executor_with
from .engine import SimEngine
from .gossiping import take_part
from .medium import Place
from .plaintiffs import Plaintiff
from .table import TableNetwork
from .world import MachineLog, World

Joins = Callable[[Network, trio.Nursery, Path, EventLog], Callable[[], None]]
"""Begins what a node does beside its work, and gives back what ends it."""
RESTART_S: Final = 5.0
"""A node that finds nobody to join by tries again: as a daemon that gives up is started again (`node/systemd`). By which others
are to join starts alone."""
RELAYS_S: Final = 20.0
"""A node that cannot be dialled waits so long for a relay before it goes on without."""


@dataclass(frozen=True, slots=True)
class Coming:
    """A bundle that a node is to have."""

    from_s: float
    bundle: SimBundle
    published: bool = False
    """By this very node: it has all of it by then."""


@dataclass
class NodeSpec:
    """One node, over all its lives."""

    place: Place
    key: SigningKey
    owner: SigningKey
    bundles: Sequence[SimBundle]
    speed: float
    jobs_max: int
    index: bool
    character: Character
    lies: float = 1.0
    lies_after_jobs: int = 0
    skew_ms: float = 0.0
    hostile: bool = False
    newcomer: bool = False
    """No client has met it."""
    comes: Sequence[Coming] = ()
    """Bundles that it does not serve from the start, in their order."""
    wants_since_s: float | None = None
    """Since when its owner wants the machine; None if it may be lent."""
    lives: int = 0
    worked: list[float] = field(default_factory=list)
    """When its accelerator worked though the owner wanted it, in seconds after the owner's word."""
    busy_s: dict[str, float] = field(default_factory=dict)
    joins: Joins | None = None
    """How it is a member of a feeder, if it is one."""
    unanswered_ucr: int = 0
    """What it lets a payer leave without vouchers, by the offer that stood last."""
    plaintiff: Plaintiff = field(default_factory=Plaintiff)
    """Its owner, before judges."""
    life: NodeLife | None = None

    @property
    def up(self) -> bool:
        """Whether it would take work now."""
        if self.life is None or self.place.silent:
            return False
        return self.life.availability.state in (State.READY, State.BUSY)


class NodeLife:
    """One run of a node's process."""

    def __init__(self, world: World, spec: NodeSpec) -> None:
        self._world = world
        self._spec = spec
        self._context: Context | None = None
        self.keeper: Keeper | None = None
        self.network: TableNetwork | None = None
        self.availability = Availability(jobs_max=spec.jobs_max)
        self.availability.start()
        self.scope = trio.CancelScope()
        self._manifests: dict[bytes, Manifest] = {}
        self._rates: dict[bytes, tuple[str, Rates]] = {}

    async def run(self) -> None:
        """The node ran until `scope` was cancelled."""
        world, spec = self._world, self._spec
        spec.lives += 1
        chance = chance_for(world.seed, "node", spec.place.number, spec.lives)
        HERE.set(world.machine(chance, lambda: spec.skew_ms))
        self._context = copy_context()
        state = world.folder / f"node-{spec.place.number}"
        state.mkdir(exist_ok=True)
        with self.scope, ExitStack() as held:
            journal = held.enter_context(closing(Journal(state)))
            book = held.enter_context(closing(Book(state / BOOK)))
            async with trio.open_nursery() as nursery:
                network = TableNetwork(world.medium, spec.place, self._context, nursery)
                held.callback(network.close)
                try:
                    await self._live(nursery, network, state, journal, book, chance, held)
                    await trio.sleep_forever()
                finally:
                    network.close()

    async def _live(
        self, nursery: trio.Nursery, network: TableNetwork, state: Path, journal: Journal, book: Book, chance: Random,
        held: ExitStack,
    ) -> None:  # fmt: skip
        world, spec = self._world, self._spec
        self.network = network
        kad = network.begin(profile_rules(wall_ms), chance, serves=spec.index)
        if spec.hostile:
            kad.friends = world.hostile
        if not spec.place.dialable:
            nursery.start_soon(network.keep_relays)
            with trio.move_on_after(RELAYS_S):
                await network.moved(())
        first = not set(network.addresses()).isdisjoint(world.contacts)
        while not (await network.join([*world.contacts, *book.ways_in()]) or first):  # noqa: ASYNC110 - nobody says when
            await trio.sleep(RESTART_S)
        nursery.start_soon(network.table.maintain)
        nursery.start_soon(book.keep, network)
        config, key, log = self._config(state), spec.key, MachineLog(world.log, spec.place.number)
        library = self._library(config, log)
        if library is not None:
            held.callback(library.close)
        self._serves_also(spec.bundles)
        manifests, rates = self._manifests, self._rates
        engine = SimEngine(
            rates, spec.jobs_max, chance, spec.place.number, spec.character, nursery, self._works,
            lies=spec.lies, lies_after_jobs=spec.lies_after_jobs,
        )  # fmt: skip
        engine.busy_s = spec.busy_s or engine.busy_s
        spec.busy_s = engine.busy_s
        authority = Authority(bytes(spec.owner.verify_key), spec.owner)
        await engine.restart()

        def offer() -> Offer:
            made = make_offer(config, key, engine, manifests, wall_ms())
            spec.unanswered_ucr = made.unanswered_ucr
            return made

        survey = Survey(
            config, key, authority.owner, network, lambda: presence.mandate.envelope, lambda: False,
            lambda: presence.refresh(), lambda link: None, log,
        )  # fmt: skip
        presence = Presence(
            config, key, authority, network, self.availability, offer(),
            library.held if library else tuple, survey.now, survey.witnesses.shown,
        )  # fmt: skip
        accounts = Accounts(journal, wall_ms)
        if world.gossip:
            gossip = take_part(world, network, spec.place, state, nursery, concerns=accounts.deals_with)
            accounts.at_fault = gossip.at_fault
            accounts.contradicted = lambda one, other: gossip.accuse((one, other), TWO_VOUCHERS, key)
        executor = executor_with(spec.character.session)(
            key, authority.owner, accounts, engine, self.availability, lambda: presence.mandate.id, log,
            network.go_direct,
        )  # fmt: skip
        self.keeper = Keeper(engine, self.availability, executor, presence, offer, log)
        self._serve(network, JOB_PROTOCOL, executor.serve, log, watched=True)
        self._serve(network, PROFILE_PROTOCOL, presence.answer, log)
        settling = Settling(network.key, authority.owner, accounts)
        self._serve(network, VOUCHER_PROTOCOL, settling.answer, log)
        self._serve(network, GROUND_PROTOCOL, settling.answer_grounds, log)
        disputes = Disputes(key, authority.owner, accounts, Paying({}, accounts).owe)
        self._serve(network, DISPUTE_PROTOCOL, disputes.answer, log)
        if world.courts:
            nursery.start_soon(spec.plaintiff.watch, world, network, state, key, disputes)
        self._serve(network, PROBE_PROTOCOL, survey.probing.answer, log)
        if library is not None:
            blobs = Blobs(
                library.given, log, lent=lambda: self.availability.lends, works=lambda: bool(self.availability.jobs)
            )
            self._serve(network, BLOB_PROTOCOL, blobs.answer, log)
        await nursery.start(self.keeper.run)
        if spec.wants_since_s is not None:
            await self._give_back()
        try:
            await presence.announce()
        except NetworkError as error:
            log.write("announce_failed", code=error.code)
        if spec.joins is not None:
            held.callback(spec.joins(network, nursery, state, log))
        nursery.start_soon(presence.keep, log)
        nursery.start_soon(survey.probing.run)
        if library is not None:
            nursery.start_soon(self._grow, library, network, presence)
        log.write("ready", serves=int(kad.serves))

    def _serves_also(self, bundles: Iterable[SimBundle]) -> None:
        """From its next worker on."""
        for each in bundles:
            self._manifests[each.signed.id] = each.signed.record
            self._rates[each.signed.id] = each.given.name, each.rates(self._spec.speed)

    def _library(self, config: Config, log: EventLog) -> Library | None:
        """What is on its shelf, if anything ever comes there. What an earlier life has fetched is served from the start."""
        spec, shelf = self._spec, self._world.shelf
        if not spec.comes or shelf is None:
            return None
        now = trio.current_time()
        for each in spec.comes:
            if each.published and each.from_s <= now:
                shelf.install(each.bundle, BundleStore(config.store))
        names = tuple(each.bundle.given.name for each in spec.comes)
        library = Library(replace(config, bundles=names), log)
        library.lent = lambda: self.availability.lends
        here = {bundle.hash for bundle in library.open()}
        self._serves_also(each.bundle for each in spec.comes if each.bundle.signed.id in here)
        library.missing.clear()
        return library

    async def _grow(self, library: Library, network: TableNetwork, presence: Presence) -> None:
        """Each bundle that it is to have has come, and is on offer: as `node.daemon` does it."""
        assert self.keeper is not None and self._world.shelf is not None
        for each in self._spec.comes:
            if each.bundle.signed.id in self._rates:
                continue
            await trio.sleep_until(each.from_s)
            if each.published:
                self._world.shelf.install(each.bundle, library.store)
            library.missing[each.bundle.given.name] = "to be fetched"
            async for _ in library.arrivals(network):
                self._serves_also([each.bundle])
                await self.keeper.replace_worker()
                with suppress(NetworkError):
                    await presence.announce()

    def drive(self) -> None:
        """The owner takes the machine."""
        if self.keeper is not None and self.network is not None:
            self.network.spawn(self._give_back)

    def park(self) -> None:
        """The owner leaves it."""
        if self.keeper is not None and self._context is not None:
            self.availability.obey(())
            self._context.run(self.keeper.lend)

    async def _give_back(self) -> None:
        """As `lending.Lending` does when the owner's rules say so, whose clock is the machine's own."""
        assert self.keeper is not None
        if self.availability.obey((OWNER,)):
            self.keeper.take_back()
        await self.keeper.handed_back()

    def _works(self) -> None:
        since = self._spec.wants_since_s
        if since is not None:
            self._spec.worked.append(trio.current_time() - since)

    def _config(self, state: Path) -> Config:
        place = self._spec.place
        roles = (EXECUTOR, CHECKER, RELAY) if place.relay else (EXECUTOR, CHECKER)
        return Config(
            state=state, bundles=tuple(each.given.name for each in self._spec.bundles),
            home=self._world.shelf.home if self._world.shelf else state, store=state / "store",
            bootstrap=tuple(self._world.contacts),
            owner_key=state / "owner.key", kind=KINDS[place.model], region=REGIONS[place.region].geohash, roles=roles,
            jobs_max=self._spec.jobs_max, arbiters=tuple(sorted(self._world.judges)),
        )  # fmt: skip

    def _serve(
        self, network: TableNetwork, protocol: str, handler: Handler, log: EventLog, *, watched: bool = False
    ) -> None:
        """As the daemon does: what broke a stream is in the log."""

        async def logged(stream: Stream) -> None:
            try:
                await handler(stream)
            except* FallowError:
                log.write("stream_broken", protocol=protocol)
                raise

        network.serve(protocol, logged, watched=watched)
