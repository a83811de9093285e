"""A bundle for this machine, from the mesh: joined for as long as that takes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from ..node.book import BOOK, Book
from ..node.engine.bundles import BundleStore
from ..node.fetching import Fetched, Find, Progress, fetch, find_in_table
from ..node.network.seam import Network, Provider
from ..node.network.table_rules import profile_rules
from ..node.pace import Pace
from ..protocol.bundle import Manifest
from ..protocol.envelope import Signed
from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.identity import peer_key_untrusted
from .addresses import published_addresses

SOURCE_S = 10.0
"""For the DHT to say where a source is that somebody has named: there is no other to be had instead."""


async def fetch_bundle(
    cid: str,
    home: Path,
    bootstrap: Sequence[str],
    sources: Sequence[str] = (),
    *,
    accept: Callable[[Signed[Manifest]], None] = lambda manifest: None,
    bytes_max: int | None = None,
    bytes_per_s: int = 0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Fetched:
    """The bundle is in the store of `home`; trust in it is another matter. Raises as `node.fetching.fetch` does.

    `sources` are multiaddresses that end in a peer id, or peer ids alone; without any, whoever the DHT names is asked.
    `NetworkError(bootstrap_unreachable)` if the mesh cannot be joined by `bootstrap` or the addresses among `sources`.
    """
    from ..node.network.mesh import open_network

    given = [*bootstrap, *(source for source in sources if source.startswith("/"))]
    rules = profile_rules(_now_ms)
    with closing(Book(home / BOOK, _now_ms)) as book:
        known = book.ways_in()
    async with open_network(secrets.token_bytes(32), [], given, rules, mode="client", known=known) as network:
        return await fetch(
            network,
            BundleStore(home / "store"),
            cid,
            _find_these(network, sources) if sources else find_in_table(network, cid),
            accept=accept,
            bytes_max=bytes_max,
            budgets=(Pace(bytes_per_s),),
            on_progress=on_progress,
        )


def _find_these(network: Network, sources: Sequence[str]) -> Find:
    async def find() -> list[Provider]:
        return [await _provider(network, source) for source in sources]

    return find


async def _provider(network: Network, source: str) -> Provider:
    where, _, name = source.rpartition("/p2p/")
    peer = peer_key_untrusted(name or source)
    return Provider(peer, (source,) if where else await published_addresses(network, peer, _now_ms(), SOURCE_S))


def checked_source(source: str) -> str:
    """The source as it was given. Raises `NetworkError(peer_unreachable)` if it names no peer."""
    try:
        peer_key_untrusted(source.rpartition("/p2p/")[2])
    except RemoteProtocolError:
        raise NetworkError(
            Code.PEER_UNREACHABLE, f"{source[:80]!r} is neither a peer id nor an address that ends in /p2p/ and one."
        ) from None
    return source


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
