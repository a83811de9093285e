"""One member of a feeder: what it may draw now, whom it asks for more, and what it lends.

Pure: bytes, the time and a nonce go in. The rules are those of `protocol.feeders`; what is here is when to ask, and how much
to give.

    borrower, each round:   is more wanted in RENEW_MS than will be there?   -> a request to one lender after another
    lender, at a request:   no lease to it                      -> one that ends LEASE_MS from now
                            one that lends less than is wanted  -> one more, that ends with it
                            one that ends soon                  -> one that begins as it ends
                            else                                -> what it has already

A lease says that it began SKEW_MS ago, so that a borrower whose clock agrees draws at once: it has it after the lender has come
down. No further back: what was lent before that may be forgotten, and have been in force with it.

Nothing here has to reach anybody: a lease that is lost costs its watts until it ends, and is told again when its borrower asks
again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from nacl.signing import SigningKey

from ...protocol.envelope import Signed, sign, verify_untrusted
from ...protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from ...protocol.feeders import (
    allowance_w,
    check_lease,
    check_roster,
    exceeds_portion,
    lend,
    lenders,
    over_lent,
    portions_w,
    roster_contradiction,
)
from ...protocol.grid import FeederLease, FeederRoster
from ...protocol.limits import BORROWERS_MAX, LEASES_MAX, ROSTERS_MAX, SKEW_MS

LEASE_MS: Final = 10 * 60_000
"""So far ahead a lender binds itself, at most: on average for three quarters of that."""
RENEW_MS: Final = 5 * 60_000
"""So long before its end a lease is asked for again: until the clocks' tolerance has it end, that is nine rounds."""
LEAST_MS: Final = SKEW_MS + 60_000
"""From now on; a lease that ends sooner would be over for its borrower before it is any use."""
LEAST_W: Final = 50
"""Less is not worth a lease."""
FORGET_MS: Final = 3 * SKEW_MS
"""After its end a lease is forgotten: whoever then puts a clock right signs none that says it began before that."""
EACH_MAX: Final = LEASES_MAX // BORROWERS_MAX
"""Leases to one borrower that are not certainly over."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a member may draw at one moment, in watts, and why."""

    watts: int
    share_w: int
    """Guaranteed by the roster that holds."""
    lent_w: int
    borrowed_w: int
    why: str

    def __str__(self) -> str:
        return self.why


class Member:
    """One member of one feeder. Whoever uses it keeps `rosters`, `given` and `held` on disk."""

    def __init__(self, key: SigningKey, grid_key: bytes, feeder: str, forgot_until_ms: int = 0) -> None:
        """`forgot_until_ms`: until then it may have lent what it has no record of, and its own share counts for nothing."""
        self.key: Final = bytes(key.verify_key)
        self.feeder: Final = feeder
        self.rosters: dict[bytes, Signed[FeederRoster]] = {}
        self.given: list[Signed[FeederLease]] = []
        self.held: list[Signed[FeederLease]] = []
        self.forgot_until_ms = forgot_until_ms
        self._key = key
        self._grid_key = grid_key

    # What is taken in.

    def take_roster_untrusted(self, envelope: bytes, now_ms: int) -> Signed[FeederRoster] | None:
        """The roster counts from now on; None if it did already. Raises `RemoteProtocolError`: by another key, of another
        feeder, over, at odds with one that is known, or one too many."""
        roster = verify_untrusted(FeederRoster, envelope, signer=self._grid_key)
        if roster.id in self.rosters:
            return None
        check_roster(roster, self._grid_key, self.feeder, now_ms)
        for known in self.rosters.values():
            if why := roster_contradiction(known, roster):
                raise RemoteProtocolError(Code.CONTRADICTION, f"The feeder's grid key contradicts itself: {why}.")
        if len(self.rosters) >= ROSTERS_MAX:
            raise RemoteProtocolError(Code.TOO_LARGE, f"There are {ROSTERS_MAX} rosters of this feeder already.")
        self.rosters[roster.id] = roster
        return roster

    def take_lease_untrusted(self, lender: bytes, envelope: bytes, now_ms: int) -> Signed[FeederLease] | None:
        """The lease counts from now on; None if it did already.

        Raises `RemoteProtocolError` for one that is not by this lender, not to this member, over, or more than the lender may
        lend. One that proves that it lent more than it has is kept: then none of its leases counts any more.
        """
        lease = verify_untrusted(FeederLease, envelope, signer=lender)
        roster = self.rosters.get(lease.record.roster)
        if roster is None:
            raise RemoteProtocolError(Code.UNKNOWN_ROSTER, "The lease is of a roster that is not known here.")
        if lease.record.borrower != self.key:
            raise RemoteProtocolError(Code.BAD_RECORD, "The lease is to somebody else.")
        known = [each for each in self.held if each.signer == lender and each.record.roster == roster.id]
        if any(each.record == lease.record for each in known):
            return None
        try:
            check_lease(lease, roster, known, now_ms)
        except RemoteProtocolError as error:
            if error.code is Code.OVER_LENT and not over_lent(known, roster, lender):
                self.held.append(lease)
            raise
        if exceeds_portion(lease.record, roster, known, portions_w(roster, lender).get(self.key, 0)):
            raise RemoteProtocolError(Code.OVER_LENT, "The lender may not lend so much of its share to this member.")
        self.held.append(lease)
        return lease

    def forget(self, now_ms: int) -> None:
        """What no clock takes any more is gone."""
        self.given, self.held = (
            [each for each in leases if now_ms < each.record.expires_ms + FORGET_MS]
            for leases in (self.given, self.held)
        )
        self.rosters = {
            number: each for number, each in self.rosters.items() if now_ms < each.record.expires_ms + SKEW_MS
        }

    # What follows.

    def allowance(self, now_ms: int, doubted: Collection[bytes] = ()) -> Allowance:
        """The most that it may draw now. `doubted`: ids of leases of which it is not known when they hold. Then what it gave
        by them counts as lent, and what it holds by them as nothing."""
        roster = self.roster_at(now_ms)
        if roster is None:
            return Allowance(0, 0, 0, 0, f"no roster of {self.feeder} holds now")
        certain = [each for each in (*self.given, *self.held) if each.id not in doubted]
        doubted_w = sum(each.record.lent_w for each in self.given if each.id in doubted)
        watts = max(0, allowance_w(self.rosters.values(), certain, self.key, now_ms) - doubted_w)
        share_w = _share_w(roster, self.key)
        lent_w = sum(each.record.lent_w for each in self.given if each.id in doubted or _may_hold(each, now_ms))
        borrowed_w = max(0, watts - max(0, share_w - lent_w))
        why = f"its share of {self.feeder}, {share_w:,} W"
        if all(member.key != self.key for member in roster.record.members):
            why = f"it is no member of {self.feeder} by the roster that holds"
        if lent_w:
            why += f", {lent_w:,} W of it lent"
        if borrowed_w:
            why += f", and {borrowed_w:,} W borrowed"
        if doubted:
            why += (
                "; it has just started, so leases from before count against it, as if the clock had been set meanwhile"
            )
        if now_ms < self.forgot_until_ms:
            watts = min(watts, borrowed_w)
            minutes = -(-(self.forgot_until_ms - now_ms) // 60_000)
            why += f"; for {minutes} min more it may be lent, as the record of what it lent is new"
        return Allowance(watts, share_w, lent_w, borrowed_w, why)

    def changes_ms(self, now_ms: int) -> int | None:
        """When time alone changes the allowance next; None if it does not."""
        spans = [(each.record.not_before_ms, each.record.expires_ms) for each in (*self.given, *self.held)]
        spans += [(each.record.not_before_ms, each.record.expires_ms) for each in self.rosters.values()]
        edges = [edge + off for span in spans for edge in span for off in (-SKEW_MS, SKEW_MS)]
        edges.append(self.forgot_until_ms)
        return min((edge for edge in edges if edge > now_ms), default=None)

    def knows(self, peer: bytes) -> bool:
        """Whether the peer is a member by any roster here."""
        return any(member.key == peer for roster in self.rosters.values() for member in roster.record.members)

    def others(self) -> list[bytes]:
        """All other members, in the order of their keys."""
        found = {member.key for roster in self.rosters.values() for member in roster.record.members}
        return sorted(found - {self.key})

    def roster_at(self, at_ms: int) -> Signed[FeederRoster] | None:
        """The roster that holds at that time, by this machine's clock."""
        for roster in self.rosters.values():
            if roster.record.not_before_ms <= at_ms < roster.record.expires_ms:
                return roster
        return None

    # Borrowing.

    def lenders(self, now_ms: int) -> list[bytes]:
        """Who may lend to it soon."""
        roster = self.roster_at(now_ms + RENEW_MS)
        return [] if roster is None else lenders(roster, self.key)

    def wish(self, lender: bytes, wants_w: int, now_ms: int) -> tuple[bytes, int] | None:
        """The roster's id, and how much this lender is to be asked for in all, if `wants_w` are to be drawn; None: nothing."""
        soon_ms = now_ms + RENEW_MS
        roster = self.roster_at(soon_ms)
        if roster is None:
            return None
        there = [each for each in self.held if each.record.not_before_ms <= soon_ms < each.record.expires_ms]
        from_it = sum(each.record.lent_w for each in there if each.signer == lender)
        from_others = sum(each.record.lent_w for each in there if each.signer != lender)
        own_w = _share_w(roster, self.key) - sum(each.record.lent_w for each in self.given if not _over(each, now_ms))
        portion_w = portions_w(roster, lender).get(self.key, 0)
        wanted_w = min(portion_w, wants_w - max(0, own_w) - from_others)
        return (roster.id, wanted_w) if wanted_w - from_it >= LEAST_W else None

    # Lending.

    def grant(
        self, borrower: bytes, roster_id: bytes, wanted_w: int, keeps_w: int, now_ms: int, nonce: bytes
    ) -> Signed[FeederLease] | None:
        """A lease that this member is bound by from now on, and that nobody sees before it is stored; None: it lends no more.

        `keeps_w` of its own share it does not lend.
        """
        roster = self.rosters.get(roster_id)
        if roster is None or now_ms < self.forgot_until_ms:
            return None
        mine = [each.record for each in self.given if each.record.roster == roster_id and not _over(each, now_ms)]
        to_it = [each for each in mine if each.borrower == borrower]
        most_w = min(portions_w(roster, self.key).get(borrower, 0), wanted_w)
        free_w = _share_w(roster, self.key) - keeps_w
        for span in self._spans(roster, to_it, now_ms) if len(to_it) < EACH_MAX else ():
            watts = min(most_w - _peak_w(to_it, *span), free_w - _peak_w(mine, *span))
            if watts >= LEAST_W:
                return self._sign(FeederLease(roster_id, self.key, borrower, watts, *span, nonce), roster, now_ms)
        return None

    def _sign(self, lease: FeederLease, roster: Signed[FeederRoster], now_ms: int) -> Signed[FeederLease] | None:
        """The lease, which counts from now on; None if the protocol has no room for it."""
        try:
            lend(lease, roster, self.given, now_ms)
        except LocalProtocolError:
            return None
        signed = sign(lease, self._key)
        self.given.append(signed)
        return signed

    def given_to(self, borrower: bytes, now_ms: int) -> list[Signed[FeederLease]]:
        """What it lends to this borrower, as far as it is not over."""
        return [each for each in self.given if each.record.borrower == borrower and now_ms < each.record.expires_ms]

    def _spans(self, roster: Signed[FeederRoster], to_it: list[FeederLease], now_ms: int) -> Iterator[tuple[int, int]]:
        """From when to when one more lease may be, to a borrower who has these: beside what it has, or after it."""
        begins_ms = max(now_ms - SKEW_MS, roster.record.not_before_ms)
        last_ms = max((each.expires_ms for each in to_it), default=0)
        ends_ms = min(now_ms + LEASE_MS, roster.record.expires_ms)
        if last_ms - now_ms >= LEAST_MS:
            yield begins_ms, last_ms
        # The borrower's clock may be ahead: it asks when for it the end is RENEW_MS away.
        if last_ms - now_ms <= RENEW_MS + SKEW_MS and ends_ms - max(begins_ms, last_ms, now_ms) >= LEAST_MS:
            yield max(begins_ms, last_ms), ends_ms


def _peak_w(leases: Collection[FeederLease], begins_ms: int, ends_ms: int) -> int:
    """The most that they lend together at any moment of the span."""
    near = [each for each in leases if each.not_before_ms < ends_ms and begins_ms < each.expires_ms]
    edges = {begins_ms, *(each.not_before_ms for each in near if each.not_before_ms > begins_ms)}
    return max(sum(each.lent_w for each in near if each.not_before_ms <= edge < each.expires_ms) for edge in edges)


def _over(lease: Signed[FeederLease], now_ms: int) -> bool:
    """Whether it certainly is."""
    return now_ms >= lease.record.expires_ms + SKEW_MS


def _may_hold(lease: Signed[FeederLease], now_ms: int) -> bool:
    return lease.record.not_before_ms - SKEW_MS <= now_ms < lease.record.expires_ms + SKEW_MS


def _share_w(roster: Signed[FeederRoster], key: bytes) -> int:
    return next((member.guaranteed_w for member in roster.record.members if member.key == key), 0)
