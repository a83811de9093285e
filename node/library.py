"""The bundles of a node: those that it runs, those that it has for others, and those that it still has to fetch."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, suppress
from typing import Final

import trio

from ..protocol.errors import Code, ConfigError, FallowError, NetworkError, StoreError
from ..protocol.identity import cid_hash_untrusted, peer_id
from ..protocol.names import holder_key
from .config import Config
from .engine.bundles import Bundle, BundleStore
from .engine.partial import Partial
from .engine.upkeep import hold, pinned, tidy
from .fetching import Fetched, Progress, fetch, find_in_table
from .log import EventLog
from .machine import beside, wall_ms
from .network.seam import Network
from .pace import Gate, Pace, Traffic
from .swarm import BUSY_S, PATIENCE_S
from .trust import TrustEntry, TrustList

TRAFFIC = "traffic.json"
MB: Final = 10**6
RETRY_S: Final = 60.0
RETRY_S_MAX: Final = 3600.0
"""A bundle that could not be fetched is tried again after a minute, then after twice as long each time, up to an hour."""


class Library:
    """What is on this node's shelf, under its owner's limits. `close` lets go of what it holds."""

    def __init__(self, config: Config, log: EventLog) -> None:
        self.store = BundleStore(config.store)
        self.traffic = Traffic(
            config.state / TRAFFIC,
            config.daily_xfer_limit_mb * MB,
            config.daily_xfer_period_days,
            lambda: wall_ms() / 1000,
        )
        self.missing: dict[str, str] = {}
        """Names of bundles that are to be fetched, and how that is going, for a person."""
        self.lent: Callable[[], bool] = lambda: True
        """Whether the machine is lent: nothing is fetched while its owner needs it."""
        self.on_fetched: Callable[[int, float], None] = lambda length_bytes, took_s: None
        """Told of each bundle that has come, and how long its content took."""
        self._config = config
        self._trust = TrustList.load(config.home)
        self._log = log
        self._down = (Gate(lambda: self.lent()), self.traffic, Pace(config.max_bytes_sec_down))
        self._wrong: Counter[bytes] = Counter()
        self._held = ExitStack()
        self._shared: tuple[Bundle, ...] = ()
        self._parts: dict[str, Partial] = {}
        self._seen: tuple[int, ...] | None = None

    def close(self) -> None:
        """Whatever is here may be removed again by others."""
        self._held.close()

    def open(self) -> tuple[Bundle, ...]:
        """The bundles to run that are here, each trusted and sound. What is not here is `missing`, if it may be fetched.

        Raises `ConfigError` or `StoreError` for the first that is neither.
        """
        if not self._config.bundles:
            raise ConfigError(Code.BAD_CONFIG, "Setting `bundles`: name at least one bundle to serve.")
        here = []
        for name in dict.fromkeys((*self._config.bundles, *self._config.fetch_bundles)):
            entry = self._trust.resolve(name)
            try:
                bundle = self._take(entry)
            except StoreError as error:
                if error.code not in (Code.BUNDLE_NOT_BUILT, Code.CORRUPT_CHUNK) or not self._may_fetch():
                    raise
                self.missing[name] = "to be fetched"
                continue
            if name in self._config.bundles:
                here.append(bundle)
        self._tidy()  # not before what is to be run is held
        return tuple(here)

    async def arrivals(self, network: Network) -> AsyncGenerator[Bundle, None]:
        """Each bundle that was missing, as it comes, those that are not to be run too (`runs`).

        What cannot be fetched now is tried again later; none waits in the lines of busy sources before each was
        tried. Ends when nothing is missing.
        """
        wait_s = RETRY_S
        first = True
        while self.missing:
            for name in list(self.missing):
                if (bundle := await self._try_to_fetch(name, network, first and len(self.missing) > 1)) is not None:
                    del self.missing[name]
                    wait_s = RETRY_S
                    yield bundle
            if self.missing:
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_S_MAX)
                first = False

    def runs(self, bundle: Bundle) -> bool:
        """Whether the bundle is one of those that this node is to run."""
        return any(self._trust.resolve(name).cid == bundle.cid for name in self._config.bundles)

    def shared(self) -> tuple[Bundle, ...]:
        """What this node gives to whoever asks: every sound bundle here that its owner trusts or has pinned."""
        seen = tuple(_changed_ns(self.store, folder) for folder in ("bundles", "pins"))
        if seen != self._seen:
            bundles = self.store.list()
            self._shared = tuple(each for each in bundles if self._trusts(each) or pinned(self.store, each.cid))
            self._seen = seen
        return self._shared

    def given(self) -> tuple[Bundle | Partial, ...]:
        """The same, and what has come so far of what is being fetched."""
        return (*self.shared(), *self._parts.values())

    def held(self) -> list[bytes]:
        """Hashes of what is given."""
        return [*(bundle.hash for bundle in self.shared()), *map(cid_hash_untrusted, self._parts)]

    def _trusts(self, bundle: Bundle) -> bool:
        return self._trust.trusts(bundle.signed, bundle.cid)

    def _may_fetch(self) -> bool:
        return self._config.fetch != "never" and bool(self._config.bootstrap or self._config.lan)

    def _take(self, entry: TrustEntry) -> Bundle:
        """The bundle, trusted, held and sound."""
        bundle = self.store.open(entry.cid)
        entry.check(bundle.signed)
        self._held.enter_context(hold(bundle))
        bundle.verify()
        return bundle

    def _tidy(self) -> None:
        """The store takes no more than its owner lets it, as far as what is pinned or in use lets it be."""
        for bundle in tidy(self.store, self._config.store_bytes_max or None):
            self._log.write("bundle_removed", bundle=bundle.manifest.name, cid=bundle.cid, why="the store is full")

    async def _try_to_fetch(self, name: str, network: Network, briefly: bool) -> Bundle | None:
        entry = self._trust.resolve(name)
        self._log.write("fetching", bundle=name, cid=entry.cid)
        before, began = Counter(self._wrong), trio.current_time()
        try:
            done = await self._fetched(name, entry, network, PATIENCE_S if briefly else BUSY_S)
            bundle = await beside(lambda: self._take(entry))
            await beside(self._tidy)  # others may have filled the store meanwhile
        except (NetworkError, StoreError, ConfigError) as error:
            self._failed(name, error)
            return None
        finally:
            for peer, chunks in (self._wrong - before).items():
                self._log.write("wrong_chunks", bundle=name, peer=peer_id(peer), chunks=chunks)
        self.on_fetched(done.bytes_fetched, trio.current_time() - began)
        self._log.write("fetched", bundle=name, bytes=done.bytes_fetched, sources=len(done.sources))
        return bundle

    async def _fetched(self, name: str, entry: TrustEntry, network: Network, busy_s: float) -> Fetched:
        """The bundle has come. Meanwhile the table names this node for what it has of it: whoever fetches, gives."""
        begun = trio.Event()

        def note(progress: Progress) -> None:
            self._note(name, progress)
            if progress.bytes_done:
                begun.set()

        async def say() -> None:
            await begun.wait()
            with suppress(NetworkError):
                await network.provide(holder_key(cid_hash_untrusted(entry.cid)))

        failure: FallowError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say)
            try:
                return await fetch(
                    network,
                    self.store,
                    entry.cid,
                    find_in_table(network, entry.cid),
                    accept=entry.check,
                    bytes_max=self._config.store_bytes_max or None,
                    budgets=self._down,
                    busy_s=busy_s,
                    wrong=self._wrong,
                    on_progress=note,
                    on_partial=lambda partial: self._parts.update({entry.cid: partial}),
                )
            except FallowError as error:
                failure = error  # raised below, so that the nursery does not wrap it
            finally:
                self._parts.pop(entry.cid, None)
                nursery.cancel_scope.cancel()
        assert failure is not None, "it was fetched, or it failed"
        raise failure

    def _note(self, name: str, progress: Progress) -> None:
        share = f" {100 * progress.bytes_done // progress.bytes_total} %" if progress.bytes_total else ""
        self.missing[name] = progress.stage + share + progress.waits

    def _failed(self, name: str, error: FallowError) -> None:
        self.missing[name] = error.message
        self._log.write("fetch_failed", bundle=name, code=error.code, why=error.message)


def _changed_ns(store: BundleStore, folder: str) -> int:
    try:
        return (store.root / folder).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
