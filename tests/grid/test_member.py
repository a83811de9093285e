"""Members of one feeder: together, the honest ones never draw more than its cap, whatever is lost and whoever lies."""

from collections.abc import Iterator
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.node.grid.member import EACH_MAX, FORGET_MS, LEASE_MS, RENEW_MS, Member
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.feeders import lenders, portions_w
from fallow.protocol.grid import FeederLease, FeederMember, FeederRoster
from fallow.protocol.limits import BORROWERS_MAX, LEASES_MAX, ROSTERS_MAX, SKEW_MS

GRID = SigningKey(b"\x11" * 32)
T = 1_790_000_000_000
DAY = 24 * 3_600_000
KEYS = [SigningKey(bytes([n]) * 32) for n in range(1, 9)]
BY_KEY = {bytes(key.verify_key): key for key in KEYS}
SHARE_W = 4_000


def roster(
    count: int = 8, epoch: int = 1, begins_ms: int = T, ends_ms: int = T + DAY, share_w: int = SHARE_W
) -> Signed[FeederRoster]:
    members = tuple(FeederMember(key, share_w) for key in sorted(bytes(each.verify_key) for each in KEYS[:count]))
    return sign(FeederRoster("t-17", epoch, share_w * count, members, begins_ms, ends_ms), GRID)


ROSTER = roster()


def member(key: SigningKey = KEYS[0], *rosters: Signed[FeederRoster]) -> Member:
    made = Member(key, bytes(GRID.verify_key), "t-17")
    for each in rosters or (ROSTER,):
        made.take_roster_untrusted(each.envelope, T)
    return made


def pair() -> tuple[Member, Member]:
    """A borrower, and one that may lend to it."""
    borrower = member()
    return borrower, member(BY_KEY[borrower.lenders(T)[0]])


def nonces() -> Iterator[bytes]:
    return (number.to_bytes(16, "big") for number in range(10**6))


NONCE = nonces()


def lent(
    lender: Member, borrower: Member, wanted_w: int = SHARE_W, now_ms: int = T + SKEW_MS, keeps_w: int = 0
) -> Signed[FeederLease]:
    lease = lender.grant(borrower.key, ROSTER.id, wanted_w, keeps_w, now_ms, next(NONCE))
    assert lease is not None
    return lease


# --- Portions


@pytest.mark.spec("G-24")
def test_each_member_may_lend_to_a_few_an_equal_part_and_all_parts_are_no_more_than_it_has() -> None:
    for each in ROSTER.record.members:
        parts = portions_w(ROSTER, each.key)
        assert len(parts) == BORROWERS_MAX
        assert each.key not in parts
        assert set(parts.values()) == {SHARE_W // BORROWERS_MAX}
        assert all(each.key in lenders(ROSTER, borrower) for borrower in parts)
        assert len(lenders(ROSTER, each.key)) == BORROWERS_MAX
    assert portions_w(ROSTER, b"\0" * 32) == {}
    assert lenders(ROSTER, b"\0" * 32) == []


def test_a_feeder_of_two_and_one_of_one() -> None:
    two, one = roster(2), roster(1)
    first, second = (each.key for each in two.record.members)
    assert portions_w(two, first) == {second: SHARE_W}
    assert portions_w(one, one.record.members[0].key) == {}


# --- Lending


def test_a_lender_draws_less_at_once_and_its_borrower_more_if_its_clock_agrees() -> None:
    borrower, lender = pair()
    now_ms = T + 2 * SKEW_MS
    lease = lent(lender, borrower, now_ms=now_ms)
    assert lender.allowance(now_ms).watts == 3_000
    assert borrower.take_lease_untrusted(lender.key, lease.envelope, now_ms) is not None
    assert borrower.take_lease_untrusted(lender.key, lease.envelope, now_ms) is None
    begins_ms, ends_ms = now_ms, now_ms + LEASE_MS - SKEW_MS
    assert [borrower.allowance(at).watts for at in (begins_ms - 1, begins_ms, ends_ms - 1, ends_ms)] == [
        4_000,
        5_000,
        5_000,
        4_000,
    ]
    assert [lender.allowance(at).watts for at in (ends_ms, ends_ms + 2 * SKEW_MS - 1, ends_ms + 2 * SKEW_MS)] == [
        3_000,
        3_000,
        4_000,
    ]
    assert "1,000 W borrowed" in str(borrower.allowance(begins_ms))
    assert "1,000 W of it lent" in str(lender.allowance(begins_ms))


@pytest.mark.spec("G-24")
def test_who_asks_for_too_much_gets_its_part() -> None:
    borrower, lender = pair()
    assert lent(lender, borrower, 10**9).record.lent_w == 1_000
    assert lender.grant(borrower.key, ROSTER.id, 10**9, 0, T + SKEW_MS, next(NONCE)) is None


def test_who_may_not_borrow_gets_nothing() -> None:
    _, lender = pair()
    strangers = [each.key for each in ROSTER.record.members if each.key not in portions_w(ROSTER, lender.key)]
    assert strangers
    for stranger in (*strangers, b"\0" * 32):
        assert lender.grant(stranger, ROSTER.id, 1_000, 0, T + SKEW_MS, next(NONCE)) is None
    assert (
        lender.grant(next(iter(portions_w(ROSTER, lender.key))), b"\0" * 32, 1_000, 0, T + SKEW_MS, next(NONCE)) is None
    )


def test_what_a_member_wants_itself_it_keeps() -> None:
    borrower, lender = pair()
    assert lender.grant(borrower.key, ROSTER.id, 1_000, 3_980, T + SKEW_MS, next(NONCE)) is None
    assert lent(lender, borrower, 1_000, keeps_w=3_400).record.lent_w == 600


def test_a_lease_is_followed_by_another_without_a_gap() -> None:
    borrower, lender = pair()
    first = lent(lender, borrower)
    now_ms = first.record.expires_ms - RENEW_MS + 1
    borrower.take_lease_untrusted(lender.key, first.envelope, T + SKEW_MS)
    assert borrower.wish(lender.key, 5_000, now_ms) == (ROSTER.id, 1_000)
    second = lent(lender, borrower, now_ms=now_ms)
    borrower.take_lease_untrusted(lender.key, second.envelope, now_ms)
    assert second.record.not_before_ms == first.record.expires_ms
    assert borrower.wish(lender.key, 5_000, now_ms) is None
    assert {borrower.allowance(first.record.expires_ms + off).watts for off in (-SKEW_MS, -1, 0, SKEW_MS)} == {5_000}


def test_more_is_lent_in_between_and_never_more_leases_than_there_is_room_for() -> None:
    borrower, lender = pair()
    first = lent(lender, borrower, 300)
    second = lent(lender, borrower, 700)
    third = lent(lender, borrower, 1_000)
    assert [each.record.lent_w for each in (first, second, third)] == [300, 400, 300]
    assert second.record.expires_ms == first.record.expires_ms
    assert lender.grant(borrower.key, ROSTER.id, 1_000, 0, first.record.expires_ms - 1, next(NONCE)) is None
    assert len(lender.given) == EACH_MAX


def test_what_has_just_ended_is_not_lent_to_somebody_else_as_well() -> None:
    lender = member()
    one, other, *_ = (member(BY_KEY[key]) for key in portions_w(ROSTER, lender.key))
    first = lent(lender, one)
    now_ms = first.record.expires_ms + 1
    assert lender.grant(other.key, ROSTER.id, 1_000, 3_000, now_ms, next(NONCE)) is None
    again = lent(lender, one, now_ms=now_ms, keeps_w=3_000)
    assert again.record.not_before_ms == first.record.expires_ms
    assert lent(lender, other, now_ms=now_ms, keeps_w=2_000).record.not_before_ms == now_ms - SKEW_MS


def test_a_lender_is_never_bound_for_longer_than_a_lease() -> None:
    borrower, lender = pair()
    now_ms = T + SKEW_MS
    for _ in range(60):
        lender.grant(borrower.key, ROSTER.id, 1_000, 0, now_ms, next(NONCE))
        assert max(each.record.expires_ms for each in lender.given) <= now_ms + LEASE_MS
        assert lender.allowance(now_ms).watts == 3_000
        now_ms += 60_000
        lender.forget(now_ms)


def test_a_member_asks_for_what_it_lacks_and_not_for_what_others_lend_it() -> None:
    borrower, lender = pair()
    assert borrower.wish(lender.key, 4_000, T + SKEW_MS) is None
    assert borrower.wish(lender.key, 4_049, T + SKEW_MS) is None
    assert borrower.wish(lender.key, 4_600, T + SKEW_MS) == (ROSTER.id, 600)
    other = member(BY_KEY[borrower.lenders(T)[1]])
    borrower.take_lease_untrusted(other.key, lent(other, borrower, 600).envelope, T + SKEW_MS)
    assert borrower.wish(lender.key, 4_600, T + SKEW_MS) is None


# --- What is not believed


def refused(borrower: Member, lender: bytes, lease: Signed[FeederLease], now_ms: int = T + SKEW_MS) -> Code:
    with pytest.raises(RemoteProtocolError) as caught:
        borrower.take_lease_untrusted(lender, lease.envelope, now_ms)
    return caught.value.code


def forged(
    lender: Member, borrower: Member, watts: int = 500, signer: SigningKey | None = None, hour: int = 0
) -> Signed[FeederLease]:
    begins_ms = T + SKEW_MS + hour * 3_600_000
    record = FeederLease(ROSTER.id, lender.key, borrower.key, watts, begins_ms, begins_ms + LEASE_MS, next(NONCE))
    return sign(record, signer or BY_KEY[lender.key])


def test_forged_expired_and_replayed_leases_and_those_of_others_count_nothing() -> None:
    borrower, lender = pair()
    other = member(BY_KEY[borrower.lenders(T)[1]])
    assert refused(borrower, lender.key, forged(lender, borrower, signer=BY_KEY[other.key])) is Code.BAD_SIGNATURE
    assert refused(borrower, lender.key, forged(lender, other)) is Code.BAD_RECORD
    old = lent(lender, borrower)
    assert refused(borrower, lender.key, old, old.record.expires_ms + SKEW_MS) is Code.EXPIRED
    assert refused(member(KEYS[0], roster(epoch=2)), lender.key, old) is Code.UNKNOWN_ROSTER
    assert borrower.held == []
    assert borrower.allowance(T + SKEW_MS).watts == SHARE_W


@pytest.mark.spec("G-25")
def test_more_than_the_part_of_a_lender_is_refused_though_the_lender_has_it() -> None:
    borrower, lender = pair()
    assert refused(borrower, lender.key, forged(lender, borrower, 1_001)) is Code.OVER_LENT
    borrower.take_lease_untrusted(lender.key, forged(lender, borrower, 600).envelope, T + SKEW_MS)
    assert refused(borrower, lender.key, forged(lender, borrower, 401)) is Code.OVER_LENT
    borrower.take_lease_untrusted(lender.key, forged(lender, borrower, 400).envelope, T + SKEW_MS)
    borrower.take_lease_untrusted(lender.key, forged(lender, borrower, 1_000, hour=1).envelope, T + SKEW_MS)
    assert len(borrower.held) == 3


@pytest.mark.spec("G-17")
def test_who_lends_more_than_it_has_is_believed_no_more() -> None:
    borrower, lender = pair()
    borrower.take_lease_untrusted(lender.key, forged(lender, borrower, 900).envelope, T + SKEW_MS)
    at_ms = T + 3 * SKEW_MS
    assert borrower.allowance(at_ms).watts == 4_900
    assert refused(borrower, lender.key, forged(lender, borrower, 3_200)) is Code.OVER_LENT
    assert borrower.allowance(at_ms).watts == 4_000
    for _ in range(LEASES_MAX):
        assert refused(borrower, lender.key, forged(lender, borrower, 3_200)) is Code.OVER_LENT
    assert len(borrower.held) == 2


# --- Rosters


def test_rosters_follow_one_another_and_contradictions_are_refused() -> None:
    found = member()
    assert found.take_roster_untrusted(ROSTER.envelope, T) is None
    following = roster(7, 2, T + DAY, T + 2 * DAY, share_w=3_000)
    assert found.take_roster_untrusted(following.envelope, T) is not None
    assert found.allowance(T + DAY - SKEW_MS).watts == 3_000
    for other, code in (
        (roster(epoch=3, begins_ms=T + DAY - 1, ends_ms=T + 2 * DAY), Code.CONTRADICTION),
        (sign(ROSTER.record, KEYS[0]), Code.BAD_SIGNATURE),
        (
            sign(
                FeederRoster("t-18", 1, 0, ROSTER.record.members[:0] or (FeederMember(bytes(32), 0),), T, T + DAY), GRID
            ),
            Code.UNKNOWN_ROSTER,
        ),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            found.take_roster_untrusted(other.envelope, T)
        assert caught.value.code is code
    for epoch in range(3, ROSTERS_MAX + 1):
        found.take_roster_untrusted(roster(8, epoch, T + epoch * DAY, T + (epoch + 1) * DAY).envelope, T)
    with pytest.raises(RemoteProtocolError):
        found.take_roster_untrusted(roster(8, 9, T + 9 * DAY, T + 10 * DAY).envelope, T)


def test_without_a_roster_and_as_a_stranger_nothing_is_drawn() -> None:
    assert Member(KEYS[0], bytes(GRID.verify_key), "t-17").allowance(T).watts == 0
    stranger = member(SigningKey(b"\x77" * 32))
    assert stranger.allowance(T + SKEW_MS).watts == 0
    assert "no member" in str(stranger.allowance(T + SKEW_MS))


def test_a_member_that_forgot_what_it_lent_draws_nothing_of_its_own() -> None:
    forgetful = Member(KEYS[0], bytes(GRID.verify_key), "t-17", T + 3 * SKEW_MS)
    forgetful.take_roster_untrusted(ROSTER.envelope, T)
    assert forgetful.allowance(T + 3 * SKEW_MS - 1).watts == 0
    assert forgetful.changes_ms(T + 3 * SKEW_MS - 1) == T + 3 * SKEW_MS
    assert forgetful.allowance(T + 3 * SKEW_MS).watts == SHARE_W
    assert (
        forgetful.grant(next(iter(portions_w(ROSTER, forgetful.key))), ROSTER.id, 1_000, 0, T + SKEW_MS, next(NONCE))
        is None
    )


def test_what_is_over_is_forgotten_and_nothing_else() -> None:
    borrower, lender = pair()
    lease = lent(lender, borrower)
    borrower.take_lease_untrusted(lender.key, lease.envelope, T + SKEW_MS)
    for each in (borrower, lender):
        each.forget(lease.record.expires_ms + FORGET_MS - 1)
    assert (len(borrower.held), len(lender.given)) == (1, 1)
    for each in (borrower, lender):
        each.forget(lease.record.expires_ms + FORGET_MS)
        assert (each.held, each.given) == ([], [])
        each.forget(T + DAY + SKEW_MS)
        assert each.rosters == {}


# --- All together


class Night:
    """Eight members of whom some lie, clocks that are off, and messages that are lost, late, doubled and out of order."""

    def __init__(self, seed: int, liars: int) -> None:
        self.random = Random(seed)
        self.now_ms = T + SKEW_MS
        self.members = [member(key) for key in KEYS]
        self.liars = set(self.random.sample(range(len(KEYS)), liars))
        self.off_ms = [self.random.randint(-SKEW_MS, SKEW_MS) for _ in KEYS]
        self.wants_w = [0] * len(KEYS)
        self.post: list[tuple[int, bytes, bytes]] = []

    def clock(self, who: int) -> int:
        return self.now_ms + self.off_ms[who]

    def step(self) -> None:
        random, who = self.random, self.random.randrange(len(KEYS))
        asker = self.members[who]
        match random.randrange(5):
            case 0:
                self.now_ms += random.randint(0, 5 * 60_000)
            case 1:
                self.wants_w[who] = random.randint(0, 3 * SHARE_W)
            case 2:
                for lender in asker.lenders(self.clock(who)):
                    if wish := asker.wish(lender, self.wants_w[who], self.clock(who)):
                        self.ask(who, lender, *wish)
            case 3:  # over-asking, and asking whom one may not
                lender = random.choice(asker.others())
                self.ask(who, lender, ROSTER.id, random.randint(0, 10 * SHARE_W))
            case 4 if self.post:
                to, lender, envelope = random.choice(self.post)
                if random.random() < 0.5:
                    self.post.remove((to, lender, envelope))
                with suppress(RemoteProtocolError):
                    self.members[to].take_lease_untrusted(lender, envelope, self.clock(to))
        if random.random() < 0.02:
            for number, each in enumerate(self.members):
                each.forget(self.clock(number))

    def ask(self, who: int, lender_key: bytes, roster_id: bytes, wanted_w: int) -> None:
        number = next(n for n, each in enumerate(self.members) if each.key == lender_key)
        lender, now_ms = self.members[number], self.clock(number)
        if number in self.liars:
            begins_ms = now_ms + self.random.randint(-SKEW_MS, SKEW_MS)
            watts, ends_ms = self.random.randint(1, SHARE_W), min(begins_ms + self.random.randint(1, LEASE_MS), T + DAY)
            if ends_ms > begins_ms:
                record = FeederLease(
                    roster_id, lender_key, self.members[who].key, watts, begins_ms, ends_ms, next(NONCE)
                )
                self.post.append((who, lender_key, sign(record, BY_KEY[lender_key]).envelope))
            return
        lender.grant(self.members[who].key, roster_id, wanted_w, self.wants_w[number], now_ms, next(NONCE))
        for lease in lender.given_to(self.members[who].key, now_ms):
            if self.random.random() < 0.7:
                self.post.append((who, lender_key, lease.envelope))

    def drawn_w(self) -> int:
        """By honest members, if each draws all that it may."""
        return sum(
            each.allowance(self.clock(number)).watts
            for number, each in enumerate(self.members)
            if number not in self.liars
        )


@pytest.mark.spec("G-18", "G-24", "G-25")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 4))
def test_honest_members_never_draw_more_than_the_cap(seed: int, liars: int) -> None:
    night = Night(seed, liars)
    for _ in range(150):
        night.step()
        assert night.drawn_w() <= ROSTER.record.cap_w


def test_and_they_do_lend() -> None:
    night, most_w = Night(3, 0), 0
    for _ in range(600):
        night.step()
        most_w = max(most_w, *(each.allowance(night.clock(n)).watts for n, each in enumerate(night.members)))
    assert most_w > 1.2 * SHARE_W
