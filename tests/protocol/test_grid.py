"""The grid's records: a cap holds at every true time, however clocks differ and whatever is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.codec import INTEGER_MAX
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, LocalProtocolError, ProtocolError, RemoteProtocolError
from fallow.protocol.feeders import allowance_w, check_lease, check_roster, lend, over_lent, roster_contradiction
from fallow.protocol.grid import (
    FeederLease,
    FeederMember,
    FeederRoster,
    ShedOrder,
    check_shed_order,
    kept_until_ms,
    zone_cap_w,
)
from fallow.protocol.limits import (
    CONTRADICTION_BYTES_MAX,
    CONTRADICTION_RECORDS_MAX,
    LEASE_MS_MAX,
    LEASES_MAX,
    ROSTER_MEMBERS_MAX,
    ROSTER_MS_MAX,
    SHED_AHEAD_MS_MAX,
    SHED_MS_MAX,
    SKEW_MS,
    WATTS_MAX,
)
from fallow.protocol.schema import from_map_untrusted, to_map

GRID, OTHER_GRID = SigningKey(b"\x11" * 32), SigningKey(b"\x12" * 32)
KEYS = {bytes(key.verify_key): key for key in (SigningKey(bytes([n]) * 32) for n in range(1, 6))}
A, B, C, D, STRANGER = sorted(KEYS)
T = 1_790_000_000_000
HOUR = LEASE_MS_MAX


def order(key: SigningKey = GRID, **changes: Any) -> Signed[ShedOrder]:
    return sign(replace(ShedOrder("depot", "heat", 1, False, 2, 5_000, T, T + HOUR, T - HOUR, "heat"), **changes), key)


def roster(*shares_w: int, **changes: Any) -> Signed[FeederRoster]:
    members = tuple(FeederMember(key, share_w) for key, share_w in zip((A, B, C, D), shares_w, strict=False))
    return sign(replace(FeederRoster("t-17", 1, sum(shares_w), members, T, T + 24 * HOUR), **changes), GRID)


ROSTER = roster(4_000, 5_000, 0)
_numbers = count()


def lease(lender: bytes, borrower: bytes, lent_w: int, **changes: Any) -> Signed[FeederLease]:
    nonce = next(_numbers).to_bytes(16, "big")
    record = FeederLease(ROSTER.id, lender, borrower, lent_w, T + HOUR, T + 2 * HOUR, nonce)
    return sign(replace(record, **changes), KEYS[lender])


def refusal(error: type[ProtocolError], act: Callable[..., object], *arguments: object) -> Code:
    with pytest.raises(error) as caught:
        act(*arguments)
    return caught.value.code


# --- Shed orders


@pytest.mark.spec("G-9")
def test_a_shed_order_caps_its_zone_a_skew_before_its_start_and_after_its_end() -> None:
    caps = [zone_cap_w([order()], "depot", at) for at in (T - SKEW_MS - 1, T - SKEW_MS, T, T + HOUR + SKEW_MS - 1)]
    assert caps == [None, 5_000, 5_000, 5_000]
    assert zone_cap_w([order()], "depot", T + HOUR + SKEW_MS) is None
    assert zone_cap_w([order()], "home", T) is None
    assert zone_cap_w([order(cap_w=0)], "depot", T) == 0


@pytest.mark.spec("G-9")
def test_an_order_of_a_moment_counts_wherever_that_moment_may_be_now() -> None:
    moment = order(end_ms=T + 1)
    times = (T - SKEW_MS - 1, T - SKEW_MS, T - 1, T, T + SKEW_MS, T + SKEW_MS + 1)
    assert [zone_cap_w([moment], "depot", at) for at in times] == [None, 5_000, 5_000, 5_000, 5_000, None]


@pytest.mark.spec("G-9")
def test_the_most_urgent_order_decides_and_the_strictest_of_equals() -> None:
    mild, urgent, equal = order(), order(OTHER_GRID, priority=1, cap_w=9_000), order(event="storm", cap_w=4_000)
    assert zone_cap_w([mild, equal], "depot", T + HOUR // 2) == 4_000
    assert zone_cap_w([mild, equal, urgent], "depot", T + HOUR // 2) == 9_000


@pytest.mark.spec("G-9")
def test_an_urgent_order_that_may_be_over_does_not_lift_a_stricter_one() -> None:
    """Within the skew of its end, either of the two may be the one in force: the strictest holds."""
    urgent, mild = order(priority=0, cap_w=9_000), order(event="storm", cap_w=4_000, end_ms=T + 3 * HOUR)
    caps = [zone_cap_w([urgent, mild], "depot", T + HOUR + off) for off in (-SKEW_MS - 1, -SKEW_MS, SKEW_MS)]
    assert caps == [9_000, 4_000, 4_000]


@pytest.mark.spec("G-9")
def test_a_higher_sequence_replaces_and_cancels_its_own_event_only() -> None:
    first, other = order(), order(event="storm", cap_w=6_000)
    stricter, cancelled = order(sequence=2, cap_w=1_000), order(sequence=3, cancelled=True)
    assert zone_cap_w([first, stricter, other], "depot", T) == 1_000
    assert zone_cap_w([first, stricter, cancelled], "depot", T) is None
    assert zone_cap_w([first, stricter, cancelled, other], "depot", T) == 6_000
    elsewhere = order(OTHER_GRID, sequence=9, cancelled=True), order(sequence=9, cancelled=True, zone="home")
    assert zone_cap_w([first, *elsewhere], "depot", T) == 5_000


@pytest.mark.spec("G-9")
def test_of_two_orders_of_one_sequence_neither_lifts_the_other() -> None:
    assert zone_cap_w([order(), order(cancelled=True), order(cap_w=3_000)], "depot", T) == 3_000


shed_orders = st.builds(
    order,
    st.sampled_from([GRID, OTHER_GRID]),
    zone=st.sampled_from(["depot", "home"]),
    event=st.sampled_from(["heat", "storm"]),
    sequence=st.integers(0, 3),
    cancelled=st.booleans(),
    priority=st.integers(0, 2),
    cap_w=st.integers(0, 9_000),
    start_ms=st.integers(0, 5).map(lambda n: T + n * SKEW_MS),
    end_ms=st.integers(6, 9).map(lambda n: T + n * SKEW_MS),
)


@pytest.mark.spec("G-9")
@given(orders=st.lists(shed_orders, max_size=8), shuffle=st.randoms(use_true_random=False), step=st.integers(-3, 24))
@settings(deadline=None)
def test_the_order_of_arrival_makes_no_difference(
    orders: list[Signed[ShedOrder]], shuffle: random.Random, step: int
) -> None:
    now_ms = T + step * SKEW_MS // 2
    arrivals = orders * 2
    shuffle.shuffle(arrivals)
    assert zone_cap_w(arrivals, "depot", now_ms) == zone_cap_w(orders, "depot", now_ms)


@pytest.mark.spec("G-9")
@given(orders=st.lists(shed_orders, max_size=8), time=st.integers(-2, 12), off=st.integers(-SKEW_MS, SKEW_MS))
@settings(deadline=None)
def test_a_zone_keeps_to_what_holds_in_true_time_however_wrong_its_clock(
    orders: list[Signed[ShedOrder]], time: int, off: int
) -> None:
    true_ms = T + time * SKEW_MS
    held = {(o.signer, o.record.event): 0 for o in orders}
    for signed in orders:
        key = signed.signer, signed.record.event
        if signed.record.zone == "depot":
            held[key] = max(held[key], signed.record.sequence)
    asked = [
        (o.record.priority, o.record.cap_w)
        for o in orders
        if o.record.zone == "depot" and not o.record.cancelled and o.record.sequence == held[o.signer, o.record.event]
        and o.record.start_ms <= true_ms < o.record.end_ms
    ]  # fmt: skip
    cap_w = zone_cap_w(orders, "depot", true_ms + off)
    if asked:
        assert cap_w is not None and cap_w <= min(asked)[1]


@pytest.mark.spec("G-7", "G-8")
def test_a_shed_order_is_by_a_trusted_key_and_may_still_matter() -> None:
    trusted = {bytes(GRID.verify_key)}
    last_ms = kept_until_ms(order().record)
    assert last_ms >= order().record.end_ms + SKEW_MS
    check_shed_order(order(), trusted, T - HOUR - SKEW_MS)
    check_shed_order(order(), trusted, last_ms)
    for bad, now_ms, code in (
        (order(OTHER_GRID), T, Code.BAD_SIGNATURE),
        (order(), last_ms + 1, Code.EXPIRED),
        (order(), T - HOUR - SKEW_MS - 1, Code.EXPIRED),
    ):
        assert refusal(RemoteProtocolError, check_shed_order, bad, trusted, now_ms) is code


@pytest.mark.spec("G-8")
def test_what_an_order_replaced_is_over_by_the_time_that_the_order_may_be_forgotten() -> None:
    longest = order(issued_ms=T, start_ms=T + SHED_AHEAD_MS_MAX, end_ms=T + SHED_AHEAD_MS_MAX + SHED_MS_MAX)
    successor = order(issued_ms=T, sequence=2)
    assert zone_cap_w([longest], "depot", kept_until_ms(successor.record)) is None
    assert zone_cap_w([longest], "depot", kept_until_ms(successor.record) - 1) == 5_000


# --- Rosters


@pytest.mark.spec("G-12")
def test_a_roster_is_the_feeders_own_and_current() -> None:
    grid_key, end_ms = bytes(GRID.verify_key), ROSTER.record.expires_ms
    check_roster(ROSTER, grid_key, "t-17", end_ms + SKEW_MS - 1)
    check_roster(ROSTER, grid_key, "t-17", T - ROSTER_MS_MAX)  # known ahead, not yet in force
    for key, feeder, now_ms, code in (
        (A, "t-17", T, Code.BAD_SIGNATURE),
        (grid_key, "t-18", T, Code.UNKNOWN_ROSTER),
        (grid_key, "t-17", end_ms + SKEW_MS, Code.EXPIRED),
    ):
        assert refusal(RemoteProtocolError, check_roster, ROSTER, key, feeder, now_ms) is code


@pytest.mark.spec("G-18")
def test_a_share_holds_only_where_the_true_time_is_certainly_within_the_roster() -> None:
    end_ms = ROSTER.record.expires_ms
    times = (T + SKEW_MS - 1, T + SKEW_MS, end_ms - SKEW_MS - 1, end_ms - SKEW_MS)
    assert [allowance_w([ROSTER], [], A, at) for at in times] == [0, 4_000, 4_000, 0]
    assert allowance_w([ROSTER], [], STRANGER, T + HOUR) == allowance_w([], [], A, T + HOUR) == 0


@pytest.mark.spec("G-18")
def test_from_one_roster_to_the_next_a_member_keeps_the_lesser_share() -> None:
    end_ms = ROSTER.record.expires_ms
    later = roster(1_000, 8_000, epoch=2, not_before_ms=end_ms, expires_ms=end_ms + HOUR)
    times = (end_ms - SKEW_MS - 1, end_ms - SKEW_MS, end_ms + SKEW_MS - 1, end_ms + SKEW_MS)
    assert [allowance_w([ROSTER, later], [], A, at) for at in times] == [4_000, 1_000, 1_000, 1_000]
    assert [allowance_w([later, ROSTER], [], B, at) for at in times] == [5_000, 5_000, 5_000, 8_000]


@pytest.mark.spec("G-10", "G-18")
def test_two_rosters_at_one_time_contradict_each_other_and_the_strictest_holds() -> None:
    end_ms = ROSTER.record.expires_ms
    overlap = roster(9_000, 0, epoch=2, not_before_ms=T + HOUR, expires_ms=T + 3 * HOUR)
    assert allowance_w([ROSTER, overlap], [], A, T + 2 * HOUR) == 4_000
    assert allowance_w([ROSTER, overlap], [], B, T + 2 * HOUR) == 0
    lent = lease(A, B, 1_000, not_before_ms=T + 2 * HOUR - SKEW_MS, expires_ms=T + 2 * HOUR + 2 * SKEW_MS)
    assert allowance_w([ROSTER, overlap], [lent], B, T + 2 * HOUR) == 0, "a lease of one roster is none of another"
    later = roster(1, epoch=2, not_before_ms=end_ms, expires_ms=end_ms + HOUR)
    stale = roster(1, epoch=1, not_before_ms=end_ms, expires_ms=end_ms + HOUR)
    elsewhere = roster(1, feeder="t-18")
    for other, guilty in ((overlap, True), (stale, True), (later, False), (ROSTER, False), (elsewhere, False)):
        assert (roster_contradiction(ROSTER, other) is not None) is guilty
        assert roster_contradiction(other, ROSTER) == roster_contradiction(ROSTER, other)
    assert roster_contradiction(ROSTER, sign(overlap.record, OTHER_GRID)) is None


# --- Leases


@pytest.mark.spec("G-18")
def test_a_lease_moves_watts_and_the_cap_is_used_whole() -> None:
    lent = lease(A, C, 1_500)
    check_lease(lent, ROSTER, [], T)
    middle_ms = T + HOUR + HOUR // 2
    assert [allowance_w([ROSTER], [lent], key, middle_ms) for key in (A, B, C)] == [2_500, 5_000, 1_500]
    assert allowance_w([ROSTER], [], C, middle_ms) == 0, "a borrower has only what reached it"


@pytest.mark.spec("G-18")
def test_the_lender_gives_up_a_skew_longer_and_the_borrower_gets_a_skew_less() -> None:
    lent, start_ms, end_ms = lease(A, C, 1_500), T + HOUR, T + 2 * HOUR
    times = (start_ms - SKEW_MS - 1, start_ms - SKEW_MS, start_ms + SKEW_MS - 1, start_ms + SKEW_MS)
    assert [allowance_w([ROSTER], [lent], A, at) for at in times] == [4_000, 2_500, 2_500, 2_500]
    assert [allowance_w([ROSTER], [lent], C, at) for at in times] == [0, 0, 0, 1_500]
    times = (end_ms - SKEW_MS - 1, end_ms - SKEW_MS, end_ms + SKEW_MS - 1, end_ms + SKEW_MS)
    assert [allowance_w([ROSTER], [lent], A, at) for at in times] == [2_500, 2_500, 2_500, 4_000]
    assert [allowance_w([ROSTER], [lent], C, at) for at in times] == [1_500, 0, 0, 0]


@pytest.mark.spec("G-18")
def test_a_lease_renewed_from_its_end_on_leaves_no_gap() -> None:
    leases = [lease(A, C, 1_500), lease(A, C, 1_000, not_before_ms=T + 2 * HOUR, expires_ms=T + 3 * HOUR)]
    assert allowance_w([ROSTER], leases, C, T + 2 * HOUR) == 1_000
    assert allowance_w([ROSTER], leases, A, T + 2 * HOUR) == 2_500


@pytest.mark.spec("G-13", "G-14", "G-16", "G-17", "G-18")
def test_a_lease_that_binds_nobody_is_refused_and_counts_nothing() -> None:
    other = roster(4_000, 5_000, 0, epoch=2)
    foreign = sign(lease(A, C, 1_000).record, KEYS[B])
    for bad, code in (
        (foreign, Code.BAD_SIGNATURE),
        (lease(A, C, 1_000, roster=other.id), Code.UNKNOWN_ROSTER),
        (lease(A, STRANGER, 1_000), Code.BAD_RECORD),
        (lease(STRANGER, C, 1_000), Code.BAD_RECORD),
        (lease(A, C, 1_000, not_before_ms=T - 1, expires_ms=T + 1), Code.BAD_RECORD),
        (lease(A, C, 1, not_before_ms=T + 24 * HOUR - 1, expires_ms=T + 24 * HOUR + 1), Code.BAD_RECORD),
        (lease(A, C, 4_001), Code.OVER_LENT),
        (lease(C, A, 1), Code.OVER_LENT),
    ):
        assert refusal(RemoteProtocolError, check_lease, bad, ROSTER, [], T) is code
        assert allowance_w([ROSTER], [bad], bad.record.borrower, T + HOUR + HOUR // 2) in (0, 4_000)
        if code is not Code.BAD_SIGNATURE:
            assert refusal(LocalProtocolError, lend, bad.record, ROSTER, [], T) is code


@pytest.mark.spec("G-13", "G-16")
def test_a_lease_that_is_over_is_neither_taken_nor_signed() -> None:
    done, end_ms = lease(A, C, 1_000), T + 2 * HOUR
    check_lease(done, ROSTER, [], end_ms + SKEW_MS - 1)
    assert refusal(RemoteProtocolError, check_lease, done, ROSTER, [], end_ms + SKEW_MS) is Code.EXPIRED
    assert refusal(LocalProtocolError, lend, done.record, ROSTER, [], end_ms) is Code.EXPIRED


@pytest.mark.spec("G-14")
def test_what_is_borrowed_is_not_lent_on() -> None:
    to_c = lease(A, C, 1_500)
    assert refusal(LocalProtocolError, lend, lease(C, B, 1).record, ROSTER, [to_c], T) is Code.OVER_LENT
    second = lease(A, B, 2_501).record
    assert refusal(LocalProtocolError, lend, second, ROSTER, [to_c], T) is Code.OVER_LENT
    assert lend(replace(second, lent_w=2_500), ROSTER, [to_c, lease(B, A, 4_000)], T).lent_w == 2_500
    own = lend(lease(B, A, 5_000).record, ROSTER, [lease(C, B, 5_000)], T)
    assert own.lent_w == 5_000, "a whole guaranteed share may be lent"


@pytest.mark.spec("G-14", "G-15", "G-17")
def test_a_lender_has_so_many_leases_at_one_time_however_small() -> None:
    lent = [lease(A, C, 1) for _ in range(LEASES_MAX)]
    assert not over_lent(lent, ROSTER, A)
    assert refusal(LocalProtocolError, lend, lease(A, C, 1).record, ROSTER, lent, T) is Code.OVER_LENT
    assert refusal(RemoteProtocolError, check_lease, lease(A, C, 1), ROSTER, lent, T) is Code.OVER_LENT
    assert len(over_lent([*lent, lease(A, C, 1), lease(A, B, 1)], ROSTER, A)) == LEASES_MAX + 1
    assert LEASES_MAX + 2 <= CONTRADICTION_RECORDS_MAX, "the proof and the roster fit one piece of evidence"


@pytest.mark.spec("G-15")
def test_a_lender_keeps_count_of_so_many_leases_until_they_are_certainly_over() -> None:
    lent = [lease(A, C, 1) for _ in range(LEASES_MAX)]
    later, over_ms = lease(A, C, 1, not_before_ms=T + 3 * HOUR, expires_ms=T + 4 * HOUR).record, T + 2 * HOUR + SKEW_MS
    assert lend(later, ROSTER, lent, over_ms) == lend(later, ROSTER, lent[1:], T) == later
    assert refusal(LocalProtocolError, lend, later, ROSTER, lent, over_ms - 1) is Code.OVER_LENT


@pytest.mark.spec("G-18", "G-19")
def test_one_lease_signed_twice_is_one_lease() -> None:
    """Whoever knows a key can make a second signature over the same bytes: it must not double what is lent."""
    once = lease(A, C, 2_500)
    twice = replace(once, envelope=once.envelope[:-64] + bytes(64))
    assert twice.id != once.id and not over_lent([once, twice], ROSTER, A)
    assert allowance_w([ROSTER], [once, twice], C, T + HOUR + HOUR // 2) == 2_500
    more = lease(A, B, 2_000)
    assert over_lent([once, twice, more], ROSTER, A) == over_lent([twice, more, once], ROSTER, A)
    assert over_lent([once, twice, more], ROSTER, A) == (min(once, twice, key=lambda signed: signed.id), more)


@pytest.mark.spec("G-17", "G-18", "G-19")
def test_over_lending_is_proved_by_the_fewest_leases_and_then_counts_nothing() -> None:
    before = lease(A, C, 4_000, not_before_ms=T, expires_ms=T + HOUR)
    small, large, middle = lease(A, C, 500), lease(A, B, 3_500), lease(A, C, 1_000)
    honest = [before, small, large]
    assert not over_lent(honest, ROSTER, A)
    assert refusal(RemoteProtocolError, check_lease, middle, ROSTER, honest, T) is Code.OVER_LENT
    proof = over_lent([*honest, middle, lease(B, C, 5_000)], ROSTER, A)
    assert proof == (large, middle) and over_lent(proof, ROSTER, A) == proof
    held, now_ms = [*honest, middle, lease(B, C, 700)], T + HOUR + HOUR // 2
    assert [allowance_w([ROSTER], held, key, now_ms) for key in (A, B, C)] == [0, 4_300, 700]


# --- The cap, whatever happens


class Night:
    """Four members under two rosters that follow one another. Each lends what it may; any lease can be lost."""

    MIDDLE_MS = T + 12 * SKEW_MS

    def __init__(self, chance: random.Random) -> None:
        shares_w = [chance.choice([0, 1_000, 3_000]) + chance.randrange(3_000) for _ in range(8)]
        self.first = roster(*shares_w[:4], expires_ms=self.MIDDLE_MS)
        self.second = roster(*shares_w[4:], epoch=2, not_before_ms=self.MIDDLE_MS, expires_ms=T + 24 * HOUR)
        self.lent: dict[bytes, list[Signed[FeederLease]]] = {key: [] for key in (A, B, C, D)}
        self.held: dict[bytes, list[Signed[FeederLease]]] = {key: [] for key in (A, B, C, D)}
        self.offset_ms = {
            key: chance.choice([-SKEW_MS, chance.randint(-SKEW_MS, SKEW_MS), SKEW_MS]) for key in self.lent
        }
        self.knows_second = {key: chance.random() < 0.8 for key in self.lent}
        for number in range(24):
            self.try_lease(chance, number.to_bytes(16, "big"))

    def try_lease(self, chance: random.Random, nonce: bytes) -> None:
        lender, borrower = chance.sample((A, B, C, D), 2)
        start_ms = T + chance.randrange(36) * SKEW_MS // 2 + chance.choice([0, 1])
        of = self.first if start_ms < self.MIDDLE_MS else self.second
        end_ms = start_ms + chance.randint(1, 16) * SKEW_MS // 2
        if of is self.first:
            end_ms = min(end_ms, self.MIDDLE_MS)
        wished = FeederLease(of.id, lender, borrower, chance.randint(1, 2_000), start_ms, end_ms, nonce)
        try:
            signed = sign(lend(wished, of, self.lent[lender], T), KEYS[lender])
        except LocalProtocolError:
            return
        self.lent[lender].append(signed)
        if chance.random() < 0.8:
            check_lease(signed, of, self.held[borrower], T)
            self.held[borrower].append(signed)

    def drawn_w(self, true_ms: int) -> int:
        """What all of them draw, each as much as it may by its own clock and by what reached it."""
        return sum(
            allowance_w(
                [self.first, self.second] if self.knows_second[key] else [self.first],
                self.lent[key] + self.held[key],
                key,
                true_ms + offset_ms,
            )
            for key, offset_ms in self.offset_ms.items()
        )

    def cap_w(self, true_ms: int) -> int:
        return (self.first if true_ms < self.MIDDLE_MS else self.second).record.cap_w


@pytest.mark.spec("G-18")
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_the_sum_of_what_all_members_may_draw_never_exceeds_the_cap(seed: int) -> None:
    night = Night(random.Random(seed))
    for half in range(-2, 56):
        for off_ms in (-1, 0, 1):
            true_ms = T + half * SKEW_MS // 2 + off_ms
            assert night.drawn_w(true_ms) <= night.cap_w(true_ms)


windows = st.tuples(st.integers(0, 40), st.integers(1, 16), st.integers(-1, 1)).map(
    lambda drawn: (T + drawn[0] * SKEW_MS // 2 + max(0, drawn[2]), drawn[1] * SKEW_MS // 2 + drawn[2])
)


@pytest.mark.spec("G-19")
@given(
    drawn=st.lists(st.tuples(st.integers(1, 3_000), windows), max_size=14), shuffle=st.randoms(use_true_random=False)
)
@settings(max_examples=60, deadline=None)
def test_whoever_overloads_the_feeder_by_its_leases_can_be_proved_to_have(
    drawn: list[tuple[int, tuple[int, int]]], shuffle: random.Random
) -> None:
    leases = [lease(A, C, lent_w, not_before_ms=start, expires_ms=start + length) for lent_w, (start, length) in drawn]
    starts = {signed.record.not_before_ms for signed in leases}
    most_w = max((sum(s.record.lent_w for s in leases if in_force(s, at)) for at in starts), default=0)
    crowd = max((sum(in_force(s, at) for s in leases) for at in starts), default=0)
    proof = over_lent(leases, ROSTER, A)
    assert bool(proof) is (most_w > 4_000 or crowd > LEASES_MAX)
    shuffle.shuffle(leases)
    assert over_lent(leases, ROSTER, A) == proof and over_lent(proof, ROSTER, A) == proof
    if proof:
        common_ms = max(signed.record.not_before_ms for signed in proof)
        assert all(in_force(signed, common_ms) for signed in proof) and len(proof) <= LEASES_MAX + 1


def in_force(signed: Signed[FeederLease], at_ms: int) -> bool:
    return signed.record.not_before_ms <= at_ms < signed.record.expires_ms


# --- What no record may say


@pytest.mark.spec("G-6", "G-11", "G-16", "L-2")
@pytest.mark.parametrize(
    "signed",
    [order(), ROSTER, lease(A, C, 1)],
    ids=["order", "roster", "lease"],
)
def test_times_out_of_bounds_are_refused(signed: Signed[Any]) -> None:
    begin, end, most_ms = {
        "shed-order": ("start_ms", "end_ms", SHED_MS_MAX),
        "feeder-roster": ("not_before_ms", "expires_ms", ROSTER_MS_MAX),
        "feeder-lease": ("not_before_ms", "expires_ms", LEASE_MS_MAX),
    }[signed.record.RECORD]
    fields = {**to_map(signed.record), begin: T}
    for length_ms in (1, most_ms):
        from_map_untrusted(type(signed.record), {**fields, end: T + length_ms})
    for length_ms in (-1, 0, most_ms + 1):
        refused(type(signed.record), {**fields, end: T + length_ms})


@pytest.mark.spec("G-6")
def test_a_shed_order_is_not_announced_too_long_ahead() -> None:
    fields = to_map(order().record)
    from_map_untrusted(ShedOrder, {**fields, "issued_ms": T - SHED_AHEAD_MS_MAX})
    from_map_untrusted(ShedOrder, {**fields, "issued_ms": T + HOUR})  # an order may be changed while it holds
    refused(ShedOrder, {**fields, "issued_ms": T - SHED_AHEAD_MS_MAX - 1})


@pytest.mark.spec("G-11")
def test_a_roster_guarantees_no_more_than_its_cap_to_members_named_once_in_order() -> None:
    fields = to_map(ROSTER.record)
    members = fields["members"]
    assert isinstance(members, list)
    one, two, three = members
    from_map_untrusted(FeederRoster, {**fields, "cap_w": 9_000, "members": [one, two]})
    refused(FeederRoster, {**fields, "cap_w": 8_999})
    refused(FeederRoster, {**fields, "members": []})
    refused(FeederRoster, {**fields, "members": [two, one]})
    refused(FeederRoster, {**fields, "members": [one, three, three]})
    refused(FeederRoster, {**fields, "cap_w": WATTS_MAX + 1})


@pytest.mark.spec("G-16")
def test_a_lease_is_between_two_and_moves_something() -> None:
    fields = to_map(lease(A, C, 1).record)
    refused(FeederLease, {**fields, "borrower": A})
    refused(FeederLease, {**fields, "lent_w": 0})


def test_the_fullest_roster_fits_a_piece_of_evidence() -> None:
    members = tuple(
        FeederMember(n.to_bytes(32, "big"), WATTS_MAX // ROSTER_MEMBERS_MAX) for n in range(ROSTER_MEMBERS_MAX)
    )
    fullest = roster(feeder="t" * 64, epoch=INTEGER_MAX, cap_w=WATTS_MAX, members=members)
    assert len(fullest.envelope) <= CONTRADICTION_BYTES_MAX


def refused(kind: type[Any], fields: dict[str, Any]) -> None:
    assert refusal(RemoteProtocolError, from_map_untrusted, kind, fields) is Code.BAD_RECORD
