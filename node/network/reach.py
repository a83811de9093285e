"""How a node is to be reached: what its owner says, and what others find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .relays import WANTED as WANTED

DIRECT: Final = "direct"
RELAYED: Final = "relayed"
AUTO: Final = "auto"
WAYS: Final = (DIRECT, RELAYED, AUTO)


@dataclass(frozen=True, slots=True)
class Caps:
    """What an owner lends as a relay. Whoever asks for more is refused; running circuits are not touched by it."""

    reservations: int = 128
    """Each is one open connection and some 60 KB; a fifth of what a host of 2 cores can hold open."""
    reservations_per_ip: int = 8
    """One home has a few machines; one attacker with many keys gets no further. go-libp2p's number."""
    reservation_s: int = 30 * 60
    """As long as a profile lives: what a profile promises is kept."""
    circuits: int = 64
    """All at once: at their full rate, 16 MB/s, which a 2-core machine just carries."""
    circuits_per_peer: int = 16
    """Of one peer, at either end: as many clients as a worker has slots for."""
    circuit_s: int = 30 * 60
    """Twice the longest job; who needs more dials again."""
    circuit_bytes: int = 64 * 1024 * 1024
    """Both directions together: some thousand long answers, but no weights of a model."""
    circuit_bytes_per_s: int = 256 * 1024
    """Each direction: a thousand times what a text needs, and a bundle's tokenizer is there within seconds."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A node's way to be reached, as its owner has set it."""

    way: str = DIRECT
    """`direct`: at its own addresses. `relayed`: through relays alone; it tells nobody an address of its own. `auto`: as
    `direct` if another peer can dial it, else as `relayed`."""
    announce: tuple[str, ...] = ()
    """Where others dial it, if that is not where it listens: a router forwards there."""
    relay_keys: tuple[str, ...] = ()
    """Where the table names relays."""
    relays_wanted: int = WANTED
    relay: Caps | None = None
    """What it lends as a relay to others; None: it is none."""
    punches: bool = True
    """Whether it tries for a direct way to those that it works with, who learn its address by that."""


ITSELF: Final = Reach()
"""At its own addresses."""
