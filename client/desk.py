"""What all that one client does at nodes shares: its key, its money, its network, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacl.signing import SigningKey

from ..node.book import Book
from ..node.engine.sealing import seal_input
from ..node.network.seam import Network
from ..node.rails.ledger import Ledger
from ..protocol.envelope import Signed
from .settling import Settler
from .wallet import Wallet


def _told_nobody(_records: Sequence[Signed[Any]]) -> None:
    """Whoever is at no mesh has nobody to tell."""


@dataclass(frozen=True)
class Desk:
    """What every execution of this client shares."""

    network: Network
    wallet: Wallet
    settler: Settler
    key: SigningKey
    now_ms: Callable[[], int]
    """Wall clock, for what is signed; durations are counted on trio's own."""
    book: Book = field(default_factory=Book)
    judges: frozenset[bytes] = frozenset()
    """Owners whom this client trusts and can ask what there is to answer: those whom a node accepts, too, are candidates for a
    committee. Before any other it would lose by silence."""
    seal: Callable[[bytes, bytes, bytes], bytes] = seal_input
    """An input to the worker with a key, for an order."""
    trusted: frozenset[bytes] = frozenset()
    """Owners to rely on by name, judges or not."""
    ledger: Ledger | None = None
    """Of what this client and others owe each other beside vouchers: fees of disputes."""
    under_way: set[bytes] = field(default_factory=set)
    """Ids of orders that have not ended: what opens them is not on disk yet."""
    accuse: Callable[[Sequence[Signed[Any]]], None] = _told_nobody
    """Called with records that together prove a fault (`protocol.evidence`)."""
