"""Faults that prove themselves: signed records that no honest signer can have signed both of.

Nobody's word is needed, nor a majority: whoever holds the records can show them to anybody. So this, and a committee's
verdict, are the only grounds on which held pay is forfeited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from .checks import Attestation
from .disputes import Plea
from .envelope import Signed
from .feeders import over_lent, roster_contradiction
from .grid import FeederLease, FeederRoster, ShedOrder
from .identity import Issuer, Mandate, check_issued
from .limits import CONTRADICTION_BYTES_MAX, CONTRADICTION_RECORDS_MAX
from .orders import Accept
from .payment import Channel, Voucher, channel_contradiction_of, contradiction_of
from .profiles import CapabilityProfile, ConnectivityProfile
from .receipts import Receipt
from .schema import Key, Size, Text, Word


class Fault(StrEnum):
    """What the records prove."""

    EQUIVOCATION = "equivocation"
    """Two different records where the signer may sign one: two receipts for one window, two mandates of one epoch."""
    TWO_OWNERS = "two-owners"
    """A node names the mandates of two owners in one epoch."""
    RETRACTION = "retraction"
    """Two vouchers, or two rosters, of which each takes back what the other one gave."""
    OVER_LENT = "over-lent"
    """Leases that exceed the lender's share of the roster beside them."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Whoever signs this has found records that prove a fault. It is the records that count, not the word of the finder."""

    RECORD: ClassVar[str] = "evidence"

    fault: Word
    """`equivocation`, `two-owners`, `retraction` or `over-lent`."""
    accused: Key
    """Key that signed what contradicts itself: of a node, owner, issuer, payer, checker or grid."""
    records: Annotated[
        tuple[Annotated[bytes, Size(1, CONTRADICTION_BYTES_MAX)], ...], Size(2, CONTRADICTION_RECORDS_MAX)
    ]
    """Envelopes of the records that prove it."""
    note: Text
    """For a person; proves nothing."""


_SLOTS: Final[Mapping[type[Any], Callable[[Any], tuple[object, ...]]]] = {
    Accept: lambda accept: (accept.order,),
    Receipt: lambda receipt: (receipt.order, receipt.sequence),
    Attestation: lambda attestation: (attestation.order,),
    Mandate: lambda mandate: (mandate.node, mandate.epoch),
    Issuer: lambda issuer: (issuer.epoch,),
    CapabilityProfile: lambda profile: (profile.sequence,),
    ConnectivityProfile: lambda profile: (profile.sequence,),
    Plea: lambda plea: (plea.dispute,),
    ShedOrder: lambda order: (order.zone, order.event, order.sequence),
}
"""Of what one signer may sign but one: two that differ, in the same slot, are equivocation."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What a set of records proves, and of whom."""

    fault: Fault
    accused: bytes


def prove(records: Sequence[Signed[Any]]) -> Proven | None:
    """The fault that these records prove, all of them together; None if they prove none. Their signatures were checked.

    Raises `RemoteProtocolError` for a mandate that was not issued by the owner whom it names: it accuses nobody.
    """
    for signed in records:
        if isinstance(signed.record, Mandate):
            check_issued(signed, signed.record.not_before_ms)
    return _equivocation(records) or _retraction(records) or _two_owners(records) or _over_lent(records)


def _equivocation(records: Sequence[Signed[Any]]) -> Proven | None:
    if len(records) != 2:
        return None
    one, other = records
    kind = type(one.record)
    if kind is not type(other.record) or one.record == other.record or one.signer != other.signer:
        return None
    if kind is Channel:
        differ = channel_contradiction_of(one, other) is not None
    else:
        slot = _SLOTS.get(kind)
        differ = slot is not None and slot(one.record) == slot(other.record)
    return Proven(Fault.EQUIVOCATION, one.signer) if differ else None


def _retraction(records: Sequence[Signed[Any]]) -> Proven | None:
    match [(type(signed.record), signed) for signed in records]:
        case [(kind, one), (other_kind, other)] if kind is other_kind is Voucher:
            return Proven(Fault.RETRACTION, one.signer) if contradiction_of(one, other) else None
        case [(kind, one), (other_kind, other)] if kind is other_kind is FeederRoster:
            return Proven(Fault.RETRACTION, one.signer) if roster_contradiction(one, other) else None
        case _:
            return None


def _two_owners(records: Sequence[Signed[Any]]) -> Proven | None:
    profiles = [signed for signed in records if isinstance(signed.record, CapabilityProfile)]
    mandates = {signed.id: signed for signed in records if isinstance(signed.record, Mandate)}
    if (len(records), len(profiles), len(mandates)) != (4, 2, 2) or {
        p.record.mandate for p in profiles
    } != mandates.keys():
        return None
    one, other = mandates.values()
    nodes = {signed.signer for signed in profiles} | {one.record.node, other.record.node}
    if len(nodes) == 1 and one.record.epoch == other.record.epoch and one.record.owner != other.record.owner:
        return Proven(Fault.TWO_OWNERS, nodes.pop())
    return None


def _over_lent(records: Sequence[Signed[Any]]) -> Proven | None:
    rosters = [signed for signed in records if isinstance(signed.record, FeederRoster)]
    leases = [signed for signed in records if isinstance(signed.record, FeederLease)]
    lenders = {lease.signer for lease in leases}
    if len(rosters) != 1 or len(lenders) != 1 or len(rosters) + len(leases) != len(records):
        return None
    lender = lenders.pop()
    return Proven(Fault.OVER_LENT, lender) if over_lent(leases, rosters[0], lender) else None
