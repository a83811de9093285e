"""What the grid may ask of a machine: orders to shed load, rosters of one feeder, and leases between its members.

One rule serves all three: whatever stands in them holds in **true time**, from its first millisecond to its last one
excluded, and nobody knows the true time better than to `SKEW_MS`. So at `now_ms` a machine keeps to the strictest of all
that holds at any true time within `SKEW_MS` of its clock. Then at each true time everybody keeps to what holds at that
time, however the clocks differ; and of two orders or leases that follow one another, neither gap nor overlap is seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from .envelope import Signed
from .errors import Code, RemoteProtocolError
from .limits import (
    LEASE_MS_MAX,
    ROSTER_MEMBERS_MAX,
    ROSTER_MS_MAX,
    SHED_AHEAD_MS_MAX,
    SHED_MS_MAX,
    SKEW_MS,
    WATTS_MAX,
)
from .schema import Between, Hash, Key, Nonce, Size, Text, Uint, Word

Watts = Annotated[int, Between(0, WATTS_MAX)]
"""Power drawn from the grid, in whole watts."""


@dataclass(frozen=True, slots=True)
class ShedOrder:
    """The grid says: what the owner has named `zone` draws at most `cap_w` in this time."""

    RECORD: ClassVar[str] = "shed-order"

    zone: Word
    """The owner's own name for a part of the site; never derived from its position."""
    event: Word
    """The grid's own name for the cause. Orders with other names stand beside this one."""
    sequence: Uint
    """A higher one replaces the lower ones of the same grid key, zone and event as soon as it is known."""
    cancelled: bool
    """Nothing is asked any more: the rest of this order only says what it was."""
    priority: Uint
    """0 is the most urgent. The lowest number in force decides alone; among equals the lowest cap does."""
    cap_w: Watts
    """0: nothing may be drawn."""
    start_ms: Uint
    """First millisecond since 1970 in which the cap holds."""
    end_ms: Uint
    """First millisecond in which it holds no more."""
    issued_ms: Uint
    """When it was signed; not before any that it replaces."""
    reason: Text
    """Shown to the owner."""

    def __post_init__(self) -> None:
        if not 0 < self.end_ms - self.start_ms <= SHED_MS_MAX:
            raise ValueError("a shed order lasts at most a day")
        if self.start_ms - self.issued_ms > SHED_AHEAD_MS_MAX:
            raise ValueError("a shed order starts at most seven days after it is issued")


@dataclass(frozen=True, slots=True)
class FeederMember:
    """One connection on the feeder and the share of it that is always its own."""

    key: Key
    """Signs the member's leases: its node's key, or that of the site that divides the share among its machines."""
    guaranteed_w: Watts
    """What it may always draw, unless it has lent of it."""


@dataclass(frozen=True, slots=True)
class FeederRoster:
    """The grid says: in this time, these members share the feeder, and together they draw at most `cap_w`.

    The rosters that a grid key signs for a feeder never overlap in time: one begins, at the earliest, as the last one ends.
    """

    RECORD: ClassVar[str] = "feeder-roster"

    feeder: Word
    """The grid's own name for the cable or transformer."""
    epoch: Uint
    """Higher in each later roster of the feeder."""
    cap_w: Watts
    """What the feeder carries for all members together."""
    members: Annotated[tuple[FeederMember, ...], Size(1, ROSTER_MEMBERS_MAX)]
    """In ascending order of their keys. Their guaranteed shares are at most `cap_w` together."""
    not_before_ms: Uint
    """First millisecond since 1970 in which it holds."""
    expires_ms: Uint
    """First millisecond in which it holds no more."""

    def __post_init__(self) -> None:
        keys = [member.key for member in self.members]
        if any(key >= following for key, following in pairwise(keys)):
            raise ValueError("members must be in ascending order of their keys, each named once")
        if sum(member.guaranteed_w for member in self.members) > self.cap_w:
            raise ValueError("the guaranteed shares exceed the feeder's cap")
        if not 0 < self.expires_ms - self.not_before_ms <= ROSTER_MS_MAX:
            raise ValueError("a roster lasts at most seven days")


@dataclass(frozen=True, slots=True)
class FeederLease:
    """The lender says: in this time I draw `lent_w` less than my guaranteed share, and the borrower may draw it.

    Signed by the lender, who alone is bound by it: nothing that gets lost on the way can raise what the feeder carries.
    """

    RECORD: ClassVar[str] = "feeder-lease"

    roster: Hash
    """The roster whose share is lent; the lease lies within its time."""
    lender: Key
    """The member's key that signs."""
    borrower: Key
    """Another member's key."""
    lent_w: Annotated[int, Between(1, WATTS_MAX)]
    """Counts against the lender from its signature on, whatever becomes of the lease."""
    not_before_ms: Uint
    """First millisecond since 1970 in which the borrower may draw it."""
    expires_ms: Uint
    """First millisecond in which it may no more."""
    nonce: Nonce
    """Two leases that are alike in all else are two leases."""

    def __post_init__(self) -> None:
        if self.lender == self.borrower:
            raise ValueError("nobody borrows from itself")
        if not 0 < self.expires_ms - self.not_before_ms <= LEASE_MS_MAX:
            raise ValueError("a lease lasts at most an hour")


def check_shed_order(order: Signed[ShedOrder], grid_keys: Collection[bytes], now_ms: int) -> None:
    """Raises `RemoteProtocolError` unless one of the keys that the owner trusts signed the order, and it may still matter.

    One whose own time is over still matters as long as an order that it replaced could ask for something.
    """
    if order.signer not in grid_keys:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The shed order is not by a grid key that the owner trusts.")
    if now_ms > kept_until_ms(order.record):
        raise RemoteProtocolError(Code.EXPIRED, "The shed order is over.")
    if order.record.issued_ms > now_ms + SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, "The shed order was issued in the future.")


def kept_until_ms(order: ShedOrder) -> int:
    """Until when a shed order must be kept: forgotten earlier, what it replaced could be brought again, and would count."""
    return order.issued_ms + SHED_AHEAD_MS_MAX + SHED_MS_MAX + SKEW_MS


def zone_cap_w(orders: Iterable[Signed[ShedOrder]], zone: str, now_ms: int) -> int | None:
    """The most that the zone may draw at `now_ms`, in watts; None if nothing is asked of it.

    `orders` have passed `check_shed_order`; in which order they arrived, and how often, makes no difference. Two of one
    sequence, which an honest grid key never signs, both stand.
    """
    standing = _standing([order for order in orders if order.record.zone == zone])
    instants = possible_instants((edge for order in standing for edge in (order.start_ms, order.end_ms)), now_ms)
    caps_w = [cap_w for at_ms in instants if (cap_w := _cap_at(standing, at_ms)) is not None]
    return min(caps_w, default=None)


def possible_instants(edges: Iterable[int], now_ms: int) -> list[int]:
    """True times that the clock allows at `now_ms`, in milliseconds: the first, and each at which something changes."""
    first_ms, last_ms = now_ms - SKEW_MS, now_ms + SKEW_MS
    return sorted({first_ms, *(edge for edge in edges if first_ms < edge <= last_ms)})


def _standing(orders: list[Signed[ShedOrder]]) -> list[ShedOrder]:
    """Those of the highest sequence of their grid key and event, less the cancelled."""
    latest: dict[tuple[bytes, str], int] = {}
    for order in orders:
        event = order.signer, order.record.event
        latest[event] = max(order.record.sequence, latest.get(event, 0))
    return [
        order.record
        for order in orders
        if order.record.sequence == latest[order.signer, order.record.event] and not order.record.cancelled
    ]


def _cap_at(orders: list[ShedOrder], at_ms: int) -> int | None:
    in_force = [(order.priority, order.cap_w) for order in orders if order.start_ms <= at_ms < order.end_ms]
    return min(in_force)[1] if in_force else None
