"""A bundle fetched from whoever has it: from several at once, each chunk checked before it is kept.

Who sent a wrong chunk is asked no more; who is slow is overtaken at the end; who leaves is replaced. What is there
stays there, whatever happens (`engine.partial`), and the next fetch goes on from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from ..protocol.bundle import Manifest
from ..protocol.envelope import Signed
from ..protocol.errors import Code, NetworkError, StoreError
from ..protocol.identity import cid_hash_untrusted, content_hash
from ..protocol.names import holder_key, provider_key
from .engine.bundles import Bundle, BundleStore, length_bytes
from .engine.partial import Partial, claim
from .engine.upkeep import check_fits, make_room
from .machine import beside, chance, in_loop
from .network.seam import Network, Provider
from .pace import Budget
from .swarm import BUSY_S, PATIENCE_S, Swarm

FIND_S: Final = 5.0
"""For the DHT's answer, dead index nodes included."""
MANIFEST_BYTES: Final = 64 * 1024
"""What a manifest counts for before its length is known: one of 500 MB of weights has 30 KB."""
LOCK_POLL_S: Final = 0.5
"""How often a fetch looks whether another process has finished, or given up, the same bundle."""

Find = Callable[[], Awaitable[Sequence[Provider]]]
"""Who may have the bundle: hints, as of now."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A fetch under way."""

    stage: str
    """What is being done, for a person."""
    bytes_done: int
    bytes_total: int
    """0 until the manifest is there."""
    sources: int
    """Peers that are being asked now."""
    wrong_chunks: int
    busy: int = 0
    """Peers that give to others now, and will be asked again."""

    @property
    def waits(self) -> str:
        """Why it may take long, for a person; empty if nobody is busy."""
        return f", waiting for a turn (busy sources: {self.busy})" if self.busy else ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A bundle that is whole and in the store now, and how it came there."""

    bundle: Bundle
    bytes_fetched: int
    """Of content that was kept; what was there before, or came twice, is not counted."""
    sources: Mapping[bytes, int]
    """Bytes by the peer that gave them."""
    wrong: Mapping[bytes, int]
    """Wrong chunks by the peer that sent them: reason to rely less on it in other things, too."""


async def fetch(
    network: Network,
    store: BundleStore,
    cid: str,
    find: Find,
    *,
    accept: Callable[[Signed[Manifest]], None] = lambda manifest: None,
    bytes_max: int | None = None,
    budgets: Sequence[Budget] = (),
    patience_s: float = PATIENCE_S,
    busy_s: float = BUSY_S,
    wrong: Counter[bytes] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_partial: Callable[[Partial], None] = lambda partial: None,
) -> Fetched:
    """The bundle is in the store, every byte of it checked.

    `accept` raises if the manifest will not do, before anything else is asked for. `bytes_max` bounds the store; what was
    used longest ago goes for it. Raises `StoreError`: `store_full` before any chunk is asked for, `corrupt_chunk` for a
    manifest that no bundle can have; `NetworkError` when nobody gave anything, `peer_unreachable` after `patience_s`, `busy`
    after `busy_s` if a source says that it is. What came by then is kept. `wrong` counts wrong chunks by their sender,
    also of fetches before this one: whoever is in it is not asked. `on_partial` is told what others may be given of it
    meanwhile. Of two fetches of one bundle into one store, the second waits.
    """
    swarm = Swarm(network, find, budgets, patience_s, wrong, busy_s)
    while (partial := claim(store, cid)) is None:
        on_progress(Progress("another process fetches it", 0, 0, 0, 0))
        await trio.sleep(LOCK_POLL_S)
    with partial:
        if (there := await beside(lambda: _installed(store, cid))) is not None:
            partial.discard()
            return Fetched(there, 0, {}, {})
        on_partial(partial)
        await _Fetch(partial, swarm, store, accept, bytes_max, on_progress).run()
        on_progress(Progress("checking", 1, 1, 0, 0))
        bundle = await beside(partial.finish)
    return Fetched(bundle, sum(swarm.gave.values()), dict(swarm.gave), dict(swarm.wrong))


def find_in_table(network: Network, cid: str) -> Find:
    """Whom the DHT names for the bundle: nodes that run it, and nodes that only keep it."""
    bundle = cid_hash_untrusted(cid)

    async def find() -> list[Provider]:
        found: dict[bytes, Provider] = {}

        def take(provider: Provider) -> None:
            found[provider.peer] = provider

        async def ask(key: str) -> None:
            with trio.move_on_after(FIND_S), suppress(NetworkError):
                await network.find(key, take)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, provider_key(bundle))
            nursery.start_soon(ask, holder_key(bundle))
        return list(found.values())

    return find


class _Fetch:
    """One fetch: the manifest, then all that it names."""

    def __init__(
        self,
        partial: Partial,
        swarm: Swarm,
        store: BundleStore,
        accept: Callable[[Signed[Manifest]], None],
        bytes_max: int | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._accept = accept
        self._partial = partial
        self._swarm = swarm
        self._store = store
        self._bytes_max = bytes_max
        self._on_progress = on_progress
        self._total = self._done = 0
        self._stage = ""

    async def run(self) -> None:
        """Nothing is missing."""
        if not await beside(lambda: self._partial.resume(self._admit)):
            self._say("asking for the manifest")
            wanted = cid_hash_untrusted(self._partial.cid)
            await self._swarm.gather(
                {wanted: MANIFEST_BYTES}, self._keep_manifest, lambda length: self._say(self._stage)
            )
        assert self._partial.signed is not None
        self._total = length_bytes(self._partial.signed.record)
        self._say("looking what is here")
        await beside(self._survey)
        # Each in an order of its own: whoever fetches beside us has what we lack, and lacks what we have.
        missing = dict(chance().sample(list(self._partial.missing.items()), len(self._partial.missing)))
        needed = sum(missing.values())
        await beside(lambda: make_room(self._store, needed, self._bytes_max))
        self._say("fetching")
        await self._swarm.gather(missing, self._partial.write, self._advance)

    def _survey(self) -> None:
        def on_chunk(length: int) -> None:
            # Cancelled, it ends with the chunk that it is at.
            in_loop(lambda: self._advance(length))

        self._partial.survey(on_chunk)
        self._done = self._total - sum(self._partial.missing.values())

    def _keep_manifest(self, wanted: bytes, content: bytes) -> bool:
        if content_hash(content) != wanted:
            return False
        self._partial.begin(content, self._admit)
        return True

    def _admit(self, signed: Signed[Manifest]) -> None:
        self._accept(signed)
        check_fits(self._store, length_bytes(signed.record), self._bytes_max)

    def _advance(self, length: int) -> None:
        self._done += length
        self._say(self._stage)

    def _say(self, stage: str) -> None:
        self._stage = stage
        wrong = sum(self._swarm.wrong.values())
        self._on_progress(Progress(stage, self._done, self._total, self._swarm.sources, wrong, self._swarm.busy))


def _installed(store: BundleStore, cid: str) -> Bundle | None:
    """The bundle, if it is here and whole."""
    try:
        bundle = store.open(cid)
        bundle.verify()
    except StoreError as error:
        if error.code in (Code.BUNDLE_NOT_BUILT, Code.CORRUPT_CHUNK):
            return None
        raise
    return bundle
