"""Shed orders, rosters and leases (page 06)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..grid import Watts
from ..limits import LEASES_MAX, ROSTERS_MAX, SHED_ORDERS_MAX, SHED_SENT_MAX
from ..schema import Hash, Key, Size
from .fields import Envelope


@dataclass(frozen=True, slots=True)
class ShedExchange:
    """Either: these shed orders of one grid key do I keep, and these may be news to you."""

    KIND: ClassVar[str] = "shed-exchange"
    grid: Key
    """The grid key that signed them."""
    known: Annotated[tuple[Hash, ...], Size(0, SHED_ORDERS_MAX)]
    """Ids of all that the sender keeps; none if its owner does not trust the key."""
    orders: Annotated[tuple[Envelope, ...], Size(0, SHED_SENT_MAX)]
    """Each a `shed-order`."""


@dataclass(frozen=True, slots=True)
class FeederRequest:
    """Member: which rosters do you know that I do not, and what do you lend me?"""

    KIND: ClassVar[str] = "feeder-request"
    known: Annotated[tuple[Hash, ...], Size(0, ROSTERS_MAX)]
    """Ids of the rosters that the asker has."""
    roster: Hash
    """Under which it would borrow: the one that holds, or the next."""
    wanted_w: Watts
    """How much in all it would have of the asked member's share; 0: nothing is asked for."""


@dataclass(frozen=True, slots=True)
class FeederReply:
    """Member: these."""

    KIND: ClassVar[str] = "feeder"
    rosters: Annotated[tuple[Envelope, ...], Size(0, ROSTERS_MAX)]
    """Each a `feeder-roster`."""
    leases: Annotated[tuple[Envelope, ...], Size(0, LEASES_MAX)]
    """Each a `feeder-lease` to the asker, all that are not over: an answer may have been lost."""
