"""The node: one nursery in which the network, the engine, the owner's commands and the jobs live and end together."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from nacl.signing import SigningKey

from ..protocol.envelope import Signed, sign
from ..protocol.errors import Code, ConfigError, FallowError, NetworkError
from ..protocol.evidence import Evidence
from ..protocol.evidence import Fault as EvidenceFault
from ..protocol.identity import peer_id, short
from ..protocol.messages import (
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
from ..protocol.names import relay_key
from ..protocol.payment import Voucher
from . import control
from .accounts import Accounts
from .availability import Availability
from .blobs import Blobs
from .book import BOOK, Book
from .commands import Commands
from .config import Config
from .connection import Survey
from .diary import Diary
from .disputes import Disputes
from .engine.bundles import Bundle
from .engine.engine import Engine, open_engine
from .engine.sandbox import Policy, bubblewrap
from .gossip import FAULTS, Gossip
from .grid.follower import Follower
from .grid.openadr_reports import Figures
from .grid.parts import start_grid
from .keys import load_or_create
from .lending import Lending
from .library import Library
from .link import Link
from .log import EventLog, wall_ms
from .machine import chance
from .mandates import Authority
from .metrics import Metrics
from .network.mesh import open_network
from .network.reach import Reach
from .network.seam import Handler, Network, Stream
from .network.table_rules import profile_rules
from .notifying import notify, watchdog
from .owner import Keeper
from .page.server import OwnersPage, listen, load_key
from .page.view import View
from .paying import Paying
from .power.account import Account
from .power.keeping import Power
from .power.meters import found_meters
from .power.usage import UsageBook
from .presence import Presence, regions
from .profiles import Offer, earns_ucr, make_offer
from .rails.opening import open_rails
from .rails.rail import Rail
from .recording import Recorder
from .rules.policy import Rules
from .rules.signals import Signal
from .sensors.feed import Feed
from .sensors.nvml import opened
from .sensors.reading import read
from .serving import Executor
from .settling import Settling
from .store import Journal
from .tally import Tally
from .trust import is_foreign
from .whatif import kept_rules

LINK = "link"
LINK_GOOD_MS = 7 * 86_400_000
"""NetworkManager says what changes, and who asks it says that it has gone: its word holds until then."""
WORKER_LOG = "worker.log"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node that takes orders says of itself."""

    peer_id: str
    addresses: tuple[str, ...]
    state: str
    pid: int


async def run(
    config: Config, settings: Path | None = None, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED
) -> None:
    """The node ran until SIGTERM or SIGINT, and handed back its jobs. Started once it takes orders, unless told to end
    before that. `settings`: the file that they are from, to be named to the owner.

    Raises `FallowError` (perhaps in an exception group) if it cannot start: a bad bundle, a busy port, no bootstrap
    peer, a state directory that cannot be used or is another node's.
    """
    with _lock(config.state), ExitStack() as closing:
        key = load_or_create(config.state / "node.key")
        authority = Authority.load(config, wall_ms())
        tally = Tally()
        log = EventLog(config.state, tally.hear)
        journal = Journal(config.state)
        closing.callback(journal.close)
        book = Book(config.state / BOOK)
        closing.callback(book.close)
        library = Library(config, log)
        closing.callback(library.close)
        rails = open_rails(config.rails, config.state / "rails", key, closing)
        nvml = closing.enter_context(opened(config.power.nvml if config.power.measure else ""))
        availability = Availability(jobs_max=config.jobs_max)
        lending = Lending(_rules(config), availability, config.state, log)
        grid = Follower(config.grid, lending, config.state, log)
        usage = UsageBook(config.state, lending.kwh_ucr)
        closing.callback(usage.write)
        availability.start()
        library.lent = lambda: availability.lends
        recorder = Recorder(lending, partial(Diary, config.state, kept_rules(lending.rules)), log)
        closing.callback(recorder.close)
        listening = listen(config.page) if config.page else None
        if listening:
            closing.callback(listening.close)
        bundles = list(await trio.to_thread.run_sync(library.open))
        await trio.to_thread.run_sync(_sandbox_policy, config, bundles)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as whole:
                running: list[Keeper] = []

                async def end_when_told() -> None:
                    await anext(signals)
                    notify(STOPPING="1", STATUS="jobs are being handed back")
                    for keeper in running:
                        await keeper.stop()
                    whole.cancel_scope.cancel()

                whole.start_soon(end_when_told)
                if config.exit_with_stdin:
                    whole.start_soon(_end_with_stdin)
                rules, known = profile_rules(wall_ms), book.ways_in()
                async with open_network(
                    bytes(key),
                    config.listen,
                    config.bootstrap,
                    rules,
                    reach=_reach(config),
                    known=known,
                    lan=config.lan,
                ) as network:
                    whole.start_soon(book.keep, network)
                    commands = Commands(config, network, library, bundles, availability, lending, recorder)

                    def failed(why: str) -> None:
                        log.write("answer_failed", why=why)

                    metrics = Metrics(
                        tally,
                        availability,
                        lending,
                        lambda: len(network.peers()),
                        lambda: recorder.account,
                        lambda: config.diary and not recorder.problem,
                    )
                    await whole.start(control.serve, config.state, commands.answer, metrics.text, failed)
                    if listening:
                        view = View(config.state, settings, lending, availability, tally, recorder, metrics.text)
                        page = OwnersPage(listening, load_key(config.state), view, commands.answer, failed)
                        commands.page = page.address
                        await whole.start(page.run)
                    for sensor in config.sensors:
                        whole.start_soon(read, sensor, lending.feed(sensor.name, round(sensor.stale_s * 1000)))
                    closing.enter_context(start_grid(config, key, network, lending, whole))
                    whole.start_soon(lending.run)
                    whole.start_soon(grid.run, network)
                    if config.diary:
                        whole.start_soon(recorder.run)
                    whole.start_soon(usage.keep)
                    whole.start_soon(watchdog, lambda: _stands(availability))
                    arrivals = library.arrivals(network)
                    if not bundles:
                        bundles.append(await _first(arrivals, library))
                    cids = [bundle.cid for bundle in bundles]
                    async with (
                        open_engine(
                            library.store,
                            cids,
                            log_path=config.state / WORKER_LOG,
                            max_jobs=config.jobs_max,
                            command=config.worker_command or None,
                            policy=lambda: _sandbox_policy(config, bundles),
                            spare=config.spare_worker,
                            options=_worker_options(config),
                            start=False,
                        ) as engine,
                        trio.open_nursery() as nursery,
                    ):
                        meters = found_meters(config.power.sys_root, nvml) if config.power.measure else []
                        account = Account(meters, config.power.said, config.power.guess)
                        recorder.account = account
                        account.on_used = usage.note
                        grid.report_of(lambda: _figures(lending, account, availability))
                        power = Power(engine, account, config.power.helper, log)
                        power.on_calibrated = lending.calibrate
                        lending.on_power = power.obey
                        power.obey(lending.decision)
                        whole.start_soon(power.run)
                        await commands.start_worker(engine)
                        node = _Node(
                            config,
                            key,
                            authority,
                            journal,
                            library,
                            bundles,
                            network,
                            engine,
                            availability,
                            commands,
                            lending,
                            power,
                            rails,
                            log,
                        )
                        running.append(node.keeper)
                        await node.start(nursery)
                        task_status.started(node.ready())
                        notify(READY="1", STATUS=str(availability.state))
                        await node.grow(arrivals, cids)


class _Node:
    """The parts of a running node, joined."""

    def __init__(
        self, config: Config, key: SigningKey, authority: Authority, journal: Journal, library: Library,
        bundles: list[Bundle], network: Network, engine: Engine, availability: Availability, commands: Commands,
        lending: Lending, power: Power, rails: Mapping[str, Rail], log: EventLog,
    ) -> None:  # fmt: skip
        self._config = config
        self._library = library
        self._network = network
        self._engine = engine
        self._bundles = bundles
        self._log = log
        self._availability = availability

        def offer() -> Offer:
            return make_offer(config, key, engine, {each.hash: each.manifest for each in bundles}, wall_ms())

        def held() -> list[bytes]:
            return library.held()

        accounts = Accounts(journal, wall_ms, config.friends)
        self._settling = Settling(bytes(key.verify_key), authority.owner, accounts)
        self._paying = Paying(rails, accounts)
        self._disputes = Disputes(key, authority.owner, accounts, self._paying.owe)
        self._gossip = Gossip(network, config.state / FAULTS, chance(), concerns=accounts.deals_with)
        accounts.at_fault = self._gossip.at_fault
        accounts.contradicted = partial(self._accuse, key)
        self._survey = Survey(
            config,
            key,
            authority.owner,
            network,
            lambda: self._presence.mandate.envelope,
            lambda: availability.lends and not availability.jobs,
            lambda: self._presence.refresh(),
            self._heed_link,
            self._log,
            library.traffic,
        )
        library.on_fetched = self._survey.rates.fetched
        self._link: Feed | None = None
        self._presence = Presence(
            config, key, authority, network, self._availability, offer(), held, self._survey.now,
            self._survey.witnesses.shown, lambda: power.account.duty,
        )  # fmt: skip
        power.on_pace = self._presence.paced
        self._executor = Executor(
            key,
            authority.owner,
            accounts,
            engine,
            self._availability,
            lambda: self._presence.mandate.id,
            self._log,
            self._network.go_direct,
            power.account,
            lending.stays_ms,
            lending.hour_ucr,
        )
        lending.earns_ucr = lambda: earns_ucr(self._executor.offer) if self._executor.offer else None
        self.keeper = Keeper(engine, self._availability, self._executor, self._presence, offer, self._log)
        commands.hand_over(self.keeper, self._survey)
        if config.unmetered_only:
            self._link = lending.feed(LINK, LINK_GOOD_MS, [Signal.METERED])
            self._heed_link(self._survey.link)
            lending.demand_unmetered()

    async def start(self, nursery: trio.Nursery) -> None:
        """Orders are taken, and the mesh knows it."""
        self._serve(JOB_PROTOCOL, self._executor.serve)
        self._serve(PROFILE_PROTOCOL, self._presence.answer)
        self._serve(VOUCHER_PROTOCOL, self._settling.answer)
        self._serve(GROUND_PROTOCOL, self._settling.answer_grounds)
        self._serve(DISPUTE_PROTOCOL, self._disputes.answer)
        self._serve(EVIDENCE_PROTOCOL, self._gossip.serve)
        self._serve(MEANS_PROTOCOL, self._paying.answer)
        nursery.start_soon(self._gossip.run)
        blobs = Blobs(
            self._library.given,
            self._log,
            bytes_per_s=self._config.max_bytes_sec_up,
            traffic=self._library.traffic,
            lent=lambda: self._availability.lends,
            works=lambda: bool(self._availability.jobs),
        )
        self._serve(BLOB_PROTOCOL, blobs.answer)
        self._serve(PROBE_PROTOCOL, self._survey.probing.answer)
        self._serve(RATE_PROTOCOL, self._survey.rates.answer)
        await nursery.start(self.keeper.run)
        await self._presence.announce()
        nursery.start_soon(self._presence.keep, self._log)
        nursery.start_soon(self._survey.run)
        self._log.write("ready", pid=os.getpid())

    async def grow(self, arrivals: AsyncIterator[Bundle], cids: list[str]) -> None:
        """Each bundle that comes late is on offer, or held for others.

        To run it, a new worker takes over when the last job of this one has ended.
        """
        async for bundle in arrivals:
            if self._library.runs(bundle) and self._may_run(bundle):
                self._bundles.append(bundle)
                cids.append(bundle.cid)
                await self.keeper.replace_worker()
            with suppress(NetworkError):  # it is said again in a few minutes
                await self._presence.announce()

    def _accuse(self, key: SigningKey, one: Signed[Voucher], other: Signed[Voucher]) -> None:
        """Everybody hears that the payer of both has contradicted itself."""
        note = "two vouchers of one channel, and neither follows the other"
        evidence = Evidence(str(EvidenceFault.RETRACTION), one.signer, (one.envelope, other.envelope), note)
        self._gossip.publish(sign(evidence, key))

    def _heed_link(self, link: Link) -> None:
        """The link is a signal like others, if it counts."""
        if self._link and link.metered is None:
            self._link.miss(Signal.METERED, link.why or "NetworkManager does not say")
        elif self._link:
            self._link.take([(Signal.METERED, link.metered is True)])

    def _may_run(self, bundle: Bundle) -> bool:
        try:
            _sandbox_policy(self._config, [bundle])
        except ConfigError as error:
            self._log.write("bundle_not_run", bundle=bundle.cid, code=error.code, why=error.message)
            return False
        return True

    def ready(self) -> Ready:
        """What is said when `start` has returned."""
        state = self._availability.state
        return Ready(peer_id(self._network.key), self._network.addresses(), state, os.getpid())

    def _serve(self, protocol: str, handler: Handler) -> None:
        async def logged(stream: Stream) -> None:
            try:
                await handler(stream)
            except* FallowError as errors:
                why = tuple(str(error) for error in leaves(errors))
                self._log.write("stream_broken", protocol=protocol, peer=short(stream.peer), why=why)
                raise

        self._network.serve(protocol, logged, watched=protocol == JOB_PROTOCOL)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions themselves, out of the groups that nurseries wrap them in."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


async def _first(arrivals: AsyncIterator[Bundle], library: Library) -> Bundle:
    """The first bundle that came from the mesh: without one there is nothing to run."""
    print(f"nothing to run yet: fetching {', '.join(library.missing)} from the mesh", file=sys.stderr, flush=True)
    while not library.runs(bundle := await anext(arrivals)):
        pass
    return bundle


def _reach(config: Config) -> Reach:
    return Reach(
        config.reach,
        config.announce,
        relay_keys=tuple(relay_key(region) for region in regions(config)),
        relays_wanted=config.relays,
        relay=config.relay if config.is_relay else None,
        punches=config.hole_punching,
    )


def _stands(availability: Availability) -> str:
    """In one line, for `systemctl status`."""
    why = "; ".join(availability.reasons)
    return f"{availability.state}: {why}" if why else str(availability.state)


def _rules(config: Config) -> Rules:
    return Rules(
        config.kind,
        config.preferences,
        config.settle_s * 1000,
        config.power.guess,
        sensed=bool(config.sensors),
    )


def _figures(lending: Lending, account: Account, availability: Availability) -> Figures:
    """What a utility may be told of this machine, if its owner lets it."""
    return Figures(
        account.total_j, lending.decision.lends, lending.asked.less, account.watts if availability.jobs else 0.0
    )


def _worker_options(config: Config) -> list[str]:
    options = ["--batch-unproven"] if config.batch_unproven else []
    if share := config.preferences.ram_max_used_frac:
        machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        options += ["--memory-mib", str(max(1, int(share * machine_bytes / 2**20)))]
    numbers = config.accelerators if config.accelerator is None else (config.accelerator,)
    return [*options, "--accelerators", ",".join(map(str, numbers))] if numbers else options


def _sandbox_policy(config: Config, bundles: Sequence[Bundle]) -> Policy:
    """How the worker is started for these bundles. Raises `ConfigError(sandbox_missing)` if that cannot be done here."""
    foreign = [bundle for bundle in bundles if is_foreign(config.home, bundle.signed)]
    if not foreign and config.sandbox is Policy.REQUIRED:
        return Policy.PREFERRED
    if config.sandbox is Policy.REQUIRED and not (found := bubblewrap()):
        what = f"Bundle {foreign[0].manifest.name} is a stranger's and runs in a sandbox only, unless you set `sandbox`"
        raise ConfigError(Code.SANDBOX_MISSING, f"{what}. Here, {found.why_not}")
    return config.sandbox


async def _end_with_stdin() -> None:
    """Whoever holds the other end of standard input, and writes nothing there, has closed it or is gone: time to end."""
    await trio.lowlevel.wait_readable(0)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _lock(state: Path) -> Iterator[None]:
    """The state directory is there, and no other node runs on it. Raises `ConfigError`: `already_running`, `bad_config`."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = (state / LOCK).open("a")
    except OSError as error:
        raise ConfigError(Code.BAD_CONFIG, f"Setting `state`: {state} cannot be used: {error.strerror}.") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(Code.ALREADY_RUNNING, f"A node is running on {state} already.") from None
        yield
