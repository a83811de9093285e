"""What a member of a feeder may draw, and lend: rules over one roster's leases.

Each member is bound by what it signed itself, and gains only by what it holds. A lender counts every lease that it ever
signed, so it stores a lease, and draws less, before it sends it; a borrower counts those that reached it. A lease that
is lost, a member that is silent and a mesh in parts therefore leave watts unused, and never overdrawn. A lender that
signs away more than its share can overload the feeder: what it signed proves it (`over_lent`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from blake3 import blake3

from .envelope import Signed
from .errors import Code, LocalProtocolError, RemoteProtocolError
from .grid import FeederLease, FeederRoster, possible_instants
from .limits import BORROWERS_MAX, LEASES_MAX, SKEW_MS


def check_roster(roster: Signed[FeederRoster], grid_key: bytes, feeder: str, now_ms: int) -> None:
    """Raises `RemoteProtocolError` unless the roster is the feeder's, signed by its grid key, and not over."""
    if roster.signer != grid_key:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The roster is not signed by the feeder's grid key.")
    if roster.record.feeder != feeder:
        raise RemoteProtocolError(Code.UNKNOWN_ROSTER, "The roster is that of another feeder.")
    if now_ms >= roster.record.expires_ms + SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, "The roster is over.")


def roster_contradiction(one: Signed[FeederRoster], other: Signed[FeederRoster]) -> str | None:
    """Why an honest grid key cannot have signed both rosters; None if it can have."""
    if one.signer != other.signer or one.record.feeder != other.record.feeder or one.record == other.record:
        return None
    earlier, later = sorted((one.record, other.record), key=lambda roster: (roster.not_before_ms, roster.epoch))
    if later.not_before_ms < earlier.expires_ms:
        return "two rosters of one feeder hold at the same time"
    if later.epoch <= earlier.epoch:
        return "the later roster of the feeder has no higher epoch"
    return None


def allowance_w(
    rosters: Iterable[Signed[FeederRoster]], leases: Iterable[Signed[FeederLease]], member: bytes, now_ms: int
) -> int:
    """The most that `member` may draw at `now_ms`, in watts: guaranteed - lent + borrowed; 0 without a roster.

    `rosters` are those of one feeder that the member knows, with the next one before the last one ends; `leases` all that
    it signed and all that it holds, in any order. What is no lease of these rosters counts nothing; nor does what was
    borrowed from one who, by these leases, lent more than its share.
    """
    known = {roster.id: roster for roster in rosters}
    given: dict[tuple[bytes, bytes], list[Signed[FeederLease]]] = defaultdict(list)
    for lease in leases:
        if _objection(lease, known.get(lease.record.roster)) is None:
            given[lease.record.roster, lease.signer].append(lease)
    standing: set[FeederLease] = set()
    for (roster_id, lender), lent in given.items():
        if lender == member or not over_lent(lent, known[roster_id], lender):
            standing.update(lease.record for lease in lent)
    edges = {edge for lease in standing for edge in (lease.not_before_ms, lease.expires_ms)}
    edges |= {edge for roster in known.values() for edge in (roster.record.not_before_ms, roster.record.expires_ms)}
    instants = possible_instants(edges, now_ms)
    return min(_allowance_at(known.values(), standing, member, at_ms) for at_ms in instants)


def check_lease(
    lease: Signed[FeederLease], roster: Signed[FeederRoster], known: Iterable[Signed[FeederLease]], now_ms: int
) -> None:
    """Raises `RemoteProtocolError` unless one member of the roster lends to another what, as far as is known, it has.

    `known`: other leases of this roster that the caller holds. On `over_lent` the lease is kept with them: it is proof, and
    from then on nothing that this lender lent counts.
    """
    if objection := _objection(lease, roster):
        raise RemoteProtocolError(*objection)
    if now_ms >= lease.record.expires_ms + SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, "The lease is over.")
    if over_lent([*known, lease], roster, lease.signer):
        raise RemoteProtocolError(Code.OVER_LENT, "The lender has lent more than its guaranteed share.")


def lend(
    lease: FeederLease, roster: Signed[FeederRoster], lent: Iterable[Signed[FeederLease]], now_ms: int
) -> FeederLease:
    """The lease, fit to be signed by its lender; `lent` is all that it ever signed for this roster.

    The lender draws no more than it leaves, and has stored the signed lease, before anybody else sees it. Raises
    `LocalProtocolError` if its guaranteed share, less what it has lent already, does not cover it: what it borrowed is not
    its own to lend. Raises too if it has `LEASES_MAX` that are not over.
    """
    if objection := _misfit(lease, roster):
        raise LocalProtocolError(*objection)
    if now_ms >= lease.expires_ms:
        raise LocalProtocolError(Code.EXPIRED, "The lease would be over before it is signed.")
    before = {signed.record for signed in lent if _objection(signed, roster) is None and signed.signer == lease.lender}
    unfinished = [record for record in before if now_ms < record.expires_ms + SKEW_MS]
    if len(unfinished) >= LEASES_MAX or _overdrawn(before | {lease}, _share_w(roster.record, lease.lender)):
        raise LocalProtocolError(Code.OVER_LENT, "The guaranteed share does not cover the lease.")
    return lease


def portions_w(roster: Signed[FeederRoster], lender: bytes) -> Mapping[bytes, int]:
    """To whom the member may lend, and how much to each at most, in watts; empty for a stranger.

    The members stand in a ring, in the order of BLAKE3 of the roster's id and their keys, and each may lend to the
    `BORROWERS_MAX` that follow it, an equal part of its share to each. Together that is no more than it has: so each
    borrower sees by itself all leases that could make its own part too much, and nobody can lend the same watts twice,
    whatever is lost and whoever lies.
    """
    ring = _ring(roster)
    if lender not in ring:
        return {}
    at, count = ring.index(lender), min(BORROWERS_MAX, len(ring) - 1)
    part_w = _share_w(roster.record, lender) // max(1, count)
    return {ring[(at + step) % len(ring)]: part_w for step in range(1, count + 1)}


def lenders(roster: Signed[FeederRoster], borrower: bytes) -> list[bytes]:
    """Who may lend to the member, nearest first in the ring; none to a stranger."""
    ring = _ring(roster)
    if borrower not in ring:
        return []
    at, count = ring.index(borrower), min(BORROWERS_MAX, len(ring) - 1)
    return [ring[at - step] for step in range(1, count + 1)]


def exceeds_portion(
    lease: FeederLease, roster: Signed[FeederRoster], others: Iterable[Signed[FeederLease]], portion_w: int
) -> bool:
    """Whether the lease, with the others that its lender gave to its borrower, lends more than `portion_w` at any time."""
    known = {
        other.record
        for other in others
        if _objection(other, roster) is None
        and (other.record.lender, other.record.borrower) == (lease.lender, lease.borrower)
    }
    return bool(_overdrawn(known | {lease}, portion_w))


def over_lent(
    leases: Iterable[Signed[FeederLease]], roster: Signed[FeederRoster], lender: bytes
) -> tuple[Signed[FeederLease], ...]:
    """Leases that prove, with the roster alone, that `lender` lent more than its guaranteed share; none if it did not.

    The fewest that do, at the first time at which any do: at most `LEASES_MAX` + 1, all in force at one time, larger ones
    first, then by their ids. More than `LEASES_MAX` at one time are too many whatever they lend.
    """
    valid = [lease for lease in leases if lease.signer == lender and _objection(lease, roster) is None]
    # A lease signed twice, with another signature, is one lease.
    distinct = {lease.record: lease for lease in sorted(valid, key=lambda lease: lease.id, reverse=True)}
    share_w = _share_w(roster.record, lender)
    proof: list[Signed[FeederLease]] = []
    overdrawn = [distinct[record] for record in _overdrawn(distinct, share_w)]
    for lease in sorted(overdrawn, key=lambda lease: (-lease.record.lent_w, lease.id)):
        proof.append(lease)
        if _too_much([lease.record for lease in proof], share_w):
            break
    return tuple(proof)


def _objection(lease: Signed[FeederLease], roster: Signed[FeederRoster] | None) -> tuple[Code, str] | None:
    """Why the lease binds nobody under the roster, whatever else was lent."""
    if lease.signer != lease.record.lender:
        return Code.BAD_SIGNATURE, "The lease is not signed by its lender."
    return _misfit(lease.record, roster)


def _misfit(lease: FeederLease, roster: Signed[FeederRoster] | None) -> tuple[Code, str] | None:
    if roster is None or lease.roster != roster.id:
        return Code.UNKNOWN_ROSTER, "The lease is of another roster."
    record = roster.record
    if not {lease.lender, lease.borrower} <= {member.key for member in record.members}:
        return Code.BAD_RECORD, "The lease is not between two members of the roster."
    if lease.not_before_ms < record.not_before_ms or lease.expires_ms > record.expires_ms:
        return Code.BAD_RECORD, "The lease does not lie within the time of its roster."
    return None


def _allowance_at(
    rosters: Iterable[Signed[FeederRoster]], leases: Iterable[FeederLease], member: bytes, at_ms: int
) -> int:
    """Were it `at_ms`, the true time. Should rosters overlap, the strictest of them."""
    in_force = [lease for lease in leases if lease.not_before_ms <= at_ms < lease.expires_ms]
    left_w = []
    for roster in rosters:
        if not roster.record.not_before_ms <= at_ms < roster.record.expires_ms:
            continue
        here = [lease for lease in in_force if lease.roster == roster.id]
        lent_w = sum(lease.lent_w for lease in here if lease.lender == member)
        borrowed_w = sum(lease.lent_w for lease in here if lease.borrower == member)
        left_w.append(max(0, _share_w(roster.record, member) - lent_w + borrowed_w))
    return min(left_w, default=0)


def _ring(roster: Signed[FeederRoster]) -> list[bytes]:
    return sorted((member.key for member in roster.record.members), key=lambda key: blake3(roster.id + key).digest())


def _share_w(roster: FeederRoster, key: bytes) -> int:
    return next((member.guaranteed_w for member in roster.members if member.key == key), 0)


def _overdrawn(leases: Collection[FeederLease], share_w: int) -> list[FeederLease]:
    """Of one lender's leases, those in force at the first time at which they are too much; none if they never are."""
    for at_ms in sorted({lease.not_before_ms for lease in leases}):
        in_force = [lease for lease in leases if lease.not_before_ms <= at_ms < lease.expires_ms]
        if _too_much(in_force, share_w):
            return in_force
    return []


def _too_much(in_force: list[FeederLease], share_w: int) -> bool:
    return len(in_force) > LEASES_MAX or sum(lease.lent_w for lease in in_force) > share_w
