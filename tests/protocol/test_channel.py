"""The channel: two real machines with a lossy wire between them, a plain list of promises, and payers who cheat."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nacl.signing import SigningKey

from fallow.protocol.channel import TABLE, ChannelState, Event, Ground, Party, Phase
from fallow.protocol.claims import Claim, Claims, claim_of
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, LocalProtocolError, ProtocolError, RemoteProtocolError
from fallow.protocol.holding import Held
from fallow.protocol.limits import GROUNDS_MAX, HELD_MAX, HOLD_MS_MAX, SKEW_MS
from fallow.protocol.payment import LEDGER, Channel, Voucher, contradiction_of

CLIENT, NODE = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
H = b"\x05" * 32
HOUR = 3_600_000
END, GRACE = 24 * HOUR, 8 * HOUR
PAYER, PAYEE = Party.PAYER, Party.PAYEE
VERDICT = Ground("verdict", H)


def channel(limit_ucr: int = 1_000, ends_ms: int = END) -> Signed[Channel]:
    record = Channel(
        bytes(CLIENT.verify_key), bytes(NODE.verify_key), H, LEDGER, limit_ucr, b"n" * 16, 0, ends_ms, GRACE
    )
    return sign(record, CLIENT)


def receipt(number: int) -> bytes:
    return number.to_bytes(32, "big")


def voucher(number: int, due: int, held: int = 0, forfeited: int = 0, release_at_ms: int = 0) -> Signed[Voucher]:
    return parts(number, due, *[(held, release_at_ms)] * bool(held), forfeited=forfeited)


def parts(number: int, due: int, *held: tuple[int, int], forfeited: int = 0) -> Signed[Voucher]:
    return sign(Voucher(channel().id, receipt(number), due, tuple(Held(*part) for part in held), forfeited), CLIENT)


def pay(payer: ChannelState, number: int, claim: Claim, now_ms: int = 0) -> Signed[Voucher]:
    signed = sign(payer.pay(receipt(number), claim, now_ms), CLIENT)
    payer.paid(signed, claim)
    return signed


def counters(state: ChannelState) -> tuple[int, ...]:
    """What the latest voucher says; which receipt it names is of no matter."""
    if state.latest is None:
        return ()
    record = state.latest.record
    last_ms = record.held[-1].release_at_ms if record.held else 0
    return record.due_ucr, record.held_ucr, record.forfeited_ucr, last_ms


def refusal(attempt: Callable[[], object]) -> Code | None:
    """The code with which it is refused, if it is."""
    try:
        attempt()
    except ProtocolError as error:
        return error.code
    return None


class Sides:
    """A payer and a payee of one channel."""

    def __init__(self, limit_ucr: int = 1_000, ends_ms: int = END) -> None:
        signed = channel(limit_ucr, ends_ms)
        self.payer, self.payee = ChannelState(PAYER, signed), ChannelState(PAYEE, signed)

    def pay(self, number: int, claim: Claim, now_ms: int = 0) -> Signed[Voucher]:
        signed = pay(self.payer, number, claim, now_ms)
        self.payee.receive(signed, claim, now_ms)
        return signed

    def forfeit(self, ground: Ground, ucr: int, now_ms: int) -> None:
        for side in (self.payer, self.payee):
            side.forfeit(ground, ucr, now_ms)


@pytest.mark.spec("P-15")
@given(
    amounts=st.lists(st.integers(0, 50), min_size=1, max_size=12), shuffle=st.randoms(use_true_random=False),
    repeat=st.booleans(),
)  # fmt: skip
def test_vouchers_in_any_order_and_repeated_come_to_the_same(amounts: list[int], shuffle: Random, repeat: bool) -> None:
    sides = Sides()
    arrivals = [(pay(sides.payer, n, Claim(ucr)), Claim(ucr)) for n, ucr in enumerate(amounts)] * (2 if repeat else 1)
    payable = []
    shuffle.shuffle(arrivals)
    for signed, claim in arrivals:
        sides.payee.receive(signed, claim, 0)
        payable.append(sides.payee.payable_ucr(0))
    assert payable == sorted(payable) and sides.payee.promised_ucr == sides.payer.promised_ucr == sum(amounts)


@pytest.mark.spec("P-13", "P-15")
def test_a_voucher_below_its_receipt_is_refused_and_changes_nothing() -> None:
    sides = Sides()
    sides.pay(1, Claim(10))
    with pytest.raises(RemoteProtocolError) as caught:
        sides.payee.receive(pay(sides.payer, 2, Claim(4)), Claim(5), 0)
    assert caught.value.code is Code.UNPAID and sides.payee.promised_ucr == 10


@pytest.mark.spec("P-5", "P-9")
def test_the_limit_holds_on_both_sides_and_covers_what_is_not_forfeited() -> None:
    sides = Sides(10)
    with pytest.raises(LocalProtocolError):
        sides.payer.pay(H, Claim(11), 0)
    over = sign(Voucher(sides.payee.channel.id, H, 11, (), 0), CLIENT)
    with pytest.raises(RemoteProtocolError) as caught:
        sides.payee.receive(over, Claim(11), 0)
    assert caught.value.code is Code.CREDIT_EXHAUSTED
    sides.pay(1, Claim(10, 4, HOUR))
    sides.forfeit(VERDICT, 4, 1)
    sides.pay(2, Claim(4), 2)
    assert (sides.payee.balance_ucr, sides.payee.promised_ucr, sides.payee.room_ucr) == (10, 14, 0)


@pytest.mark.spec("P-4")
def test_a_receipt_is_paid_once() -> None:
    payer = Sides().payer
    pay(payer, 1, Claim(10))
    with pytest.raises(LocalProtocolError):
        pay(payer, 1, Claim(10))


@pytest.mark.spec("P-7")
def test_a_voucher_for_another_channel_or_by_another_payer_is_refused() -> None:
    payee = Sides().payee
    for stray in (
        sign(Voucher(H, H, 1, (), 0), CLIENT),
        sign(Voucher(payee.channel.id, H, 1, (), 0), NODE),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            payee.receive(stray, Claim(1), 0)
        assert caught.value.code is Code.BAD_SIGNATURE


@pytest.mark.spec("P-17")
def test_what_was_forfeited_is_not_held_again_later() -> None:
    """Of 100 held, 40 were forfeited: only what later receipts let the payer hold beyond these 40 is held."""
    sides = Sides()
    sides.pay(1, Claim(100, 100, HOUR))
    sides.forfeit(VERDICT, 40, 1)
    sides.pay(2, Claim(10, 10, 2 * HOUR), HOUR)
    assert counters(sides.payer) == (70, 0, 40, 0)
    sides.pay(3, Claim(50, 50, 2 * HOUR), HOUR)
    assert counters(sides.payer) == counters(sides.payee) == (100, 20, 40, 2 * HOUR)


@pytest.mark.spec("P-17")
def test_pay_is_held_in_parts_that_fall_due_by_themselves() -> None:
    sides = Sides()
    sides.pay(1, claim_of(100, 500_000, HOUR, 0))
    assert counters(sides.payer) == (50, 50, 0, HOUR)
    sides.pay(2, claim_of(101, 500_000, HOUR, 1_000), 1_000)  # until the same release, and rounded down
    assert counters(sides.payer) == (101, 100, 0, HOUR)
    sides.pay(3, claim_of(10, 1_000_000, HOUR // 2, 1_000), 1_000)  # its order does not let it be held for so long
    assert counters(sides.payer) == (101, 110, 0, HOUR)
    sides.pay(4, claim_of(10, 1_000_000, HOUR, HOUR // 3), HOUR // 3)
    assert counters(sides.payer) == (101, 120, 0, HOUR + HOUR // 3)
    times = [HOUR // 2 + 1_000, HOUR, HOUR + HOUR // 3]
    payable = [101, 111, 111, 211, 211, 221]
    assert [sides.payer.payable_ucr(now_ms + late) for now_ms in times for late in (-1, 0)] == payable
    assert [sides.payee.payable_ucr(now_ms + SKEW_MS + late) for now_ms in times for late in (-1, 0)] == payable
    sides.pay(5, claim_of(10, 1_000_000, HOUR, 2 * HOUR), 2 * HOUR)
    assert counters(sides.payee) == (221, 10, 0, 3 * HOUR)


WEEK, DAY = HOLD_MS_MAX, 24 * HOUR


@pytest.mark.spec("P-17")
@settings(deadline=None, max_examples=20)
@given(hold_ms=st.sampled_from([7 * HOUR, DAY, WEEK]), gap=st.integers(1, 40), seed=st.integers(0, 9))
def test_whoever_works_on_has_six_sevenths_at_stake_at_every_time(hold_ms: int, gap: int, seed: int) -> None:
    """And no micro-credit is held for longer than its order says, nor released before its time but by a seventh of it."""
    random, sides, now_ms = Random(seed), Sides(10**9, 10 * hold_ms), 0
    paid: list[tuple[int, int]] = []
    for number in range(3 * 7 * gap):
        now_ms += random.randrange(1, 2 * hold_ms // (7 * gap))
        sides.pay(number, claim_of(100, 500_000, hold_ms, now_ms), now_ms)
        paid.append((now_ms, 50))
        held = sides.payer.held(now_ms)
        assert len(held) < HELD_MAX and all(now_ms < part.release_at_ms <= now_ms + hold_ms for part in held)
        of_them = [
            sum(ucr for at, ucr in paid if at > now_ms - span_ms) for span_ms in (hold_ms - hold_ms // 7, hold_ms)
        ]
        assert of_them[0] <= sides.payer.held_ucr(now_ms) <= of_them[1]


@pytest.mark.spec("P-14", "P-17")
def test_no_payer_keeps_what_it_owes_held_by_moving_the_release() -> None:
    """Each hour it would rather hold all that is held until the newest order's time, or what has fallen due meanwhile, too."""
    sides = Sides()
    payee = sides.payee
    for number in range(20):
        now_ms, claim = number * HOUR, claim_of(10, 1_000_000, 7 * HOUR, number * HOUR)
        if latest := payee.latest:
            for kept_ucr in (payee.held_ucr(now_ms), latest.record.held_ucr):
                greedy = parts(number, 10 * number - kept_ucr, (kept_ucr + 10, claim.hold_until_ms))
                code = refusal(lambda: payee.receive(greedy, claim, now_ms))  # noqa: B023
                assert code in (Code.UNPAID, Code.CONTRADICTION) and payee.latest is latest
        sides.pay(number, claim, now_ms)
        assert payee.payable_ucr(now_ms + 2 * SKEW_MS) >= 10 * max(0, number - 6)


@pytest.mark.spec("P-18", "P-36")
def test_what_would_fall_due_last_is_forfeited_first_and_what_is_given_up_is_due() -> None:
    sides = Sides()
    for number in range(3):
        sides.pay(number, claim_of(100, 500_000, 3 * HOUR, number * HOUR), number * HOUR)
    before = sides.payee.latest
    sides.payer.forfeit(VERDICT, 120, 2 * HOUR)
    assert [(part.ucr, part.release_at_ms) for part in sides.payer.held(2 * HOUR)] == [(30, 3 * HOUR)]
    lost = sign(sides.payer.restate(2 * HOUR), CLIENT)
    sides.payer.paid(lost, Claim(0))
    late_ms = 4 * HOUR + SKEW_MS  # the payee was away until two parts had fallen due
    assert refusal(lambda: sides.payee.forfeit(VERDICT, 120, late_ms)) is Code.EXPIRED
    sides.payee.forfeit(VERDICT, 50, late_ms)
    assert refusal(lambda: sides.payee.receive(lost, Claim(0), late_ms)) is Code.UNPAID
    assert refusal(lambda: sides.payer.yielding(VERDICT, 121, late_ms)) is Code.ILLEGAL_MOVE
    given_up = sign(sides.payer.yielding(VERDICT, 50, late_ms), CLIENT)
    sides.payer.yielded(VERDICT, 50, given_up)
    assert before and contradiction_of(lost, given_up) is contradiction_of(before, given_up) is None
    sides.payee.receive(given_up, Claim(0), late_ms)
    for side in (sides.payer, sides.payee):
        assert counters(side) == (250, 0, 50, 0) and side.payable_ucr(late_ms) == side.balance_ucr == 250
    sides.pay(4, Claim(10), late_ms)  # and they go on


@pytest.mark.spec("P-10", "P-14")
@pytest.mark.parametrize(
    "held",
    [
        voucher(1, 49, 51, 0, HOUR),  # more than half
        voucher(1, 50, 50, 0, HOUR + SKEW_MS + 1),  # for longer
        voucher(1, 100, 50, 0, END + HOLD_MS_MAX),  # a gift that never comes
    ],
)
def test_what_the_order_did_not_agree_to_hold_is_not_held(held: Signed[Voucher]) -> None:
    payee, claim = Sides().payee, claim_of(100, 500_000, HOUR, 0)
    with pytest.raises(RemoteProtocolError):
        payee.receive(held, claim, 0)
    assert payee.latest is None
    payee.receive(voucher(1, 50, 50, 0, HOUR + SKEW_MS), claim, 0)


@pytest.mark.spec("P-14", "P-15")
def test_one_receipts_consent_holds_no_other_receipts_pay() -> None:
    payee = Sides().payee
    with pytest.raises(RemoteProtocolError) as caught:
        payee.receive(voucher(2, 0, 100, 0, HOUR), Claim(100), 0)  # 1 agreed to be held, and was never paid
    assert caught.value.code is Code.UNPAID
    payee.receive(voucher(2, 100, 100, 0, HOUR), Claim(100), 0)  # 1's own voucher is overtaken
    payee.receive(voucher(1, 0, 100, 0, HOUR), Claim(100, 100, HOUR), 0)
    assert counters(payee) == (100, 100, 0, HOUR)


@pytest.mark.spec("P-14", "P-17")
def test_what_was_forfeited_is_not_held_a_second_time() -> None:
    sides = Sides()
    sides.pay(1, Claim(100, 100, 2 * HOUR))
    sides.forfeit(VERDICT, 100, 1)
    with pytest.raises(RemoteProtocolError) as caught:
        sides.payee.receive(voucher(2, 0, 100, 100, 2 * HOUR), Claim(100, 0, 0), 1)
    assert caught.value.code is Code.UNPAID
    sides.pay(2, Claim(100, 60, 2 * HOUR), 1)
    assert counters(sides.payee) == (40, 60, 100, 2 * HOUR)


@pytest.mark.spec("P-11", "P-18")
def test_nothing_is_forfeited_without_a_ground() -> None:
    sides, claim = Sides(), Claim(100, 50, HOUR)
    sides.pay(1, claim)
    taken = voucher(1, 50, 20, 30, HOUR)
    with pytest.raises(RemoteProtocolError) as caught:
        sides.payee.receive(taken, claim, 0)
    assert caught.value.code is Code.UNPAID
    sides.payee.forfeit(VERDICT, 29, 0)
    with pytest.raises(RemoteProtocolError):
        sides.payee.receive(taken, claim, 0)
    sides.payee.forfeit(Ground("evidence", H), 1, 0)
    sides.payee.receive(taken, claim, 0)
    assert counters(sides.payee) == (50, 20, 30, HOUR)


@pytest.mark.spec("P-18", "P-19")
def test_a_ground_counts_at_once_and_once() -> None:
    sides = Sides()
    sides.pay(1, Claim(100, 50, HOUR))
    for _ in range(2):
        sides.forfeit(VERDICT, 20, HOUR - 1)
    for side in (sides.payer, sides.payee):
        assert (side.balance_ucr, side.held_ucr(HOUR - 1), side.payable_ucr(END)) == (80, 30, 80)
        with pytest.raises(ProtocolError) as caught:
            side.forfeit(VERDICT, 21, HOUR - 1)
        assert caught.value.code is Code.ILLEGAL_MOVE
    signed = sign(sides.payer.restate(HOUR - 1), CLIENT)
    sides.payer.paid(signed, sides.payer.named[signed.record.receipt])
    sides.payee.receive(signed, Claim(100, 50, HOUR), END)
    assert counters(sides.payer) == counters(sides.payee) == (50, 30, 20, HOUR)


@pytest.mark.spec("P-19")
@pytest.mark.parametrize(("side", "error", "last_ms"), [
    (PAYER, LocalProtocolError, HOUR - 1),
    (PAYEE, RemoteProtocolError, HOUR + SKEW_MS - 1),
])  # fmt: skip
def test_nothing_is_forfeited_after_its_release_nor_more_than_is_held(
    side: Party, error: type[ProtocolError], last_ms: int
) -> None:
    sides = Sides()
    sides.pay(1, Claim(100, 50, HOUR))
    state = sides.payer if side is PAYER else sides.payee
    for ucr, now_ms in ((51, 0), (0, 0), (-1, 0), (1, last_ms + 1)):
        with pytest.raises(error):
            state.forfeit(VERDICT, ucr, now_ms)
    state.forfeit(VERDICT, 50, last_ms)
    with pytest.raises(error):
        state.forfeit(Ground("evidence", H), 1, last_ms)


@pytest.mark.spec("P-19")
def test_forfeits_are_bounded() -> None:
    payee = Sides().payee
    payee.receive(voucher(1, 0, 1_000, 0, HOUR), Claim(1_000, 1_000, HOUR), 0)
    for number in range(GROUNDS_MAX):
        payee.forfeit(Ground("verdict", receipt(number)), 1, 0)
    with pytest.raises(RemoteProtocolError) as caught:
        payee.forfeit(VERDICT, 1, 0)
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.spec("P-3", "P-12")
def test_a_payer_who_contradicts_itself_is_told_so() -> None:
    sides = Sides()
    sides.pay(1, Claim(100, 50, HOUR))
    assert sides.payee.latest is not None
    other = voucher(1, 40, 200, 0, HOUR)
    with pytest.raises(RemoteProtocolError) as caught:
        sides.payee.receive(other, Claim(100, 50, HOUR), 0)
    assert caught.value.code is Code.CONTRADICTION
    assert contradiction_of(sides.payee.latest, other)


LEGAL = """
open     payer  voucher forfeit        open
open     payer  close                  closing
open     payee  close                  closing
open     clock  expire                 closing
closing  payer  contest forfeit close  closing
closing  payee  contest close          closing
closing  clock  expire                 closed
"""
"""Phase, party, events, next phase: page 05's table, written once more."""

NEXT = {
    (Phase(phase), Party(party), Event(event)): Phase(after)
    for phase, party, *events, after in (line.split() for line in LEGAL.strip().splitlines())
    for event in events
}


@pytest.mark.spec("P-20")
def test_the_table_is_the_pages() -> None:
    assert TABLE == NEXT


def sides_in(phase: Phase) -> tuple[Sides, int]:
    """A channel of which something is held, in this phase, and a time in it."""
    sides = Sides()
    sides.pay(1, Claim(100, 50, HOUR))
    if phase is Phase.OPEN:
        return sides, 0
    now_ms = 1 if phase is Phase.CLOSING else GRACE + SKEW_MS
    for side in (sides.payer, sides.payee):
        side.close(PAYEE, 0)
        side.expire(now_ms)
        assert side.phase is phase
    return sides, now_ms


LATER = voucher(2, 60, 50, 0, HOUR)
HEARD: dict[tuple[Party, str], Callable[[Sides, int], None]] = {
    (PAYER, "voucher"): lambda sides, now_ms: sides.payee.receive(LATER, Claim(10), now_ms),
    (PAYEE, "voucher"): lambda sides, now_ms: sides.payer.present(LATER, now_ms),
    (PAYER, "forfeit"): lambda sides, now_ms: sides.payee.forfeit(VERDICT, 1, now_ms),
    (PAYER, "close"): lambda sides, now_ms: sides.payee.close(PAYER, now_ms),
    (PAYEE, "close"): lambda sides, now_ms: sides.payer.close(PAYEE, now_ms),
}
"""A move of one party, as it reaches the other one."""


@pytest.mark.spec("P-20")
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(("party", "what"), HEARD)
def test_a_move_of_the_other_side_is_taken_only_as_the_page_lists_it(phase: Phase, party: Party, what: str) -> None:
    sides, now_ms = sides_in(phase)
    hearer = sides.payee if party is PAYER else sides.payer
    event = Event.CONTEST if what == "voucher" and phase is not Phase.OPEN else Event(what)
    before = deepcopy(hearer)
    if after := NEXT.get((phase, party, event)):
        HEARD[party, what](sides, now_ms)
        assert hearer.phase is after
        return
    with pytest.raises(RemoteProtocolError) as caught:
        HEARD[party, what](sides, now_ms)
    assert caught.value.code is (Code.EXPIRED if event is Event.CONTEST else Code.ILLEGAL_MOVE)
    assert hearer == before


@pytest.mark.parametrize("party", [PAYER, PAYEE])
def test_nobody_closes_what_is_closed(party: Party) -> None:
    sides, now_ms = sides_in(Phase.CLOSED)
    own = sides.payer if party is PAYER else sides.payee
    with pytest.raises(LocalProtocolError) as caught:
        own.close(party, now_ms)
    assert caught.value.code is Code.ILLEGAL_MOVE and own.phase is Phase.CLOSED


def test_a_payee_signs_no_voucher_and_an_unused_channel_has_none_to_restate() -> None:
    sides = Sides()
    for attempt in (lambda: sides.payee.pay(H, Claim(1), 0), lambda: sides.payer.restate(0)):
        with pytest.raises(LocalProtocolError):
            attempt()


@pytest.mark.spec("P-8", "P-21", "P-22", "P-23")
def test_a_channel_closes_by_the_latest_signature_of_either_side() -> None:
    sides = Sides()
    sides.pay(1, Claim(10))
    lost = pay(sides.payer, 2, Claim(20))
    for side in (sides.payer, sides.payee):
        side.close(PAYEE, HOUR)
        side.close(PAYER, HOUR + 1)  # at the same time, as it were: the grace runs from the first
        assert (side.phase, side.deadline_ms()) == (Phase.CLOSING, HOUR + GRACE + SKEW_MS)
    sides.payee.receive(lost, Claim(20), HOUR + GRACE)  # the payer contests
    sides.pay(3, Claim(30), HOUR + 2)  # a job that was under way
    forgetful = ChannelState(PAYER, channel(), sides.payer.latest)
    forgetful.close(PAYER, HOUR)
    forgetful.latest = None
    assert sides.payee.latest is not None
    forgetful.present(sides.payee.latest, HOUR)
    for side in (sides.payer, sides.payee, forgetful):
        with pytest.raises(ProtocolError) as caught:
            (side.present if side.party is PAYER else lambda v, now: sides.payee.receive(v, Claim(20), now))(
                lost, HOUR + GRACE + SKEW_MS
            )
        assert caught.value.code is Code.EXPIRED
        assert side.phase is Phase.CLOSED and side.deadline_ms() is None
        assert side.payable_ucr(HOUR + GRACE + SKEW_MS) == side.balance_ucr == 60


@pytest.mark.spec("P-22")
def test_a_payer_may_not_deny_its_own_voucher() -> None:
    payer = Sides().payer
    pay(payer, 1, Claim(10))
    payer.close(PAYEE, 0)
    for bad, code in (
        (voucher(1, 5, 20, 0, HOUR), Code.CONTRADICTION),
        (sign(Voucher(H, H, 20, (), 0), CLIENT), Code.BAD_SIGNATURE),
        (sign(voucher(1, 20).record, NODE), Code.BAD_SIGNATURE),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            payer.present(bad, 1)
        assert caught.value.code is code and payer.balance_ucr == 10
    for same_or_later in (voucher(1, 4), voucher(1, 10), voucher(2, 12)):
        payer.present(same_or_later, 1)
    assert payer.balance_ucr == 12
    with pytest.raises(LocalProtocolError):
        pay(payer, 2, Claim(2))  # it is answered


@pytest.mark.spec("P-21", "P-23")
def test_what_is_held_keeps_a_closing_channel_until_its_release() -> None:
    sides = Sides()
    sides.pay(1, Claim(100, 100, 2 * GRACE))
    for side in (sides.payer, sides.payee):
        side.close(PAYEE, 0)
        assert side.deadline_ms() == 2 * GRACE + SKEW_MS
    sides.forfeit(VERDICT, 40, 2 * GRACE - 1)
    with pytest.raises(LocalProtocolError) as caught:
        pay(sides.payer, 2, Claim(1), GRACE)
    assert caught.value.code is Code.EXPIRED
    for side in (sides.payer, sides.payee):
        side.expire(2 * GRACE + SKEW_MS - 1)
        assert side.phase is Phase.CLOSING
        side.expire(2 * GRACE + SKEW_MS)
        assert side.phase is Phase.CLOSED and side.payable_ucr(2 * GRACE + SKEW_MS) == 60


TIMES = st.integers(0, 6)
CLAIMS = st.builds(
    lambda owed, ppm, hold: claim_of(owed, ppm, hold * HOUR, 0),
    st.integers(0, 9), st.sampled_from([0, 300_000, 1_000_000]), TIMES,
)  # fmt: skip
CHEATS = st.tuples(
    st.integers(0, 5), st.integers(0, 20), st.dictionaries(st.integers(1, 7), st.integers(1, 20), max_size=3)
)


@pytest.mark.spec("P-14")
@settings(max_examples=200)
@given(st.lists(CLAIMS, min_size=6, max_size=6), st.lists(CHEATS, max_size=8))
def test_no_payer_holds_a_receipts_pay_for_longer_than_its_order_says(
    claims: list[Claim], cheats: list[tuple[int, int, dict[int, int]]]
) -> None:
    payee = ChannelState(PAYEE, channel())
    for number, due, held in cheats:
        try:
            payee.receive(parts(number, due, *[(held[at], at * HOUR) for at in sorted(held)]), claims[number], 0)
        except RemoteProtocolError:
            continue
        for now_ms in range(0, 9 * HOUR, HOUR // 2):
            overdue = sum(
                claim.owed_ucr - (claim.held_ucr_max if now_ms < claim.hold_until_ms + 2 * SKEW_MS else 0)
                for claim in payee.named.by_receipt.values()
            )
            assert payee.payable_ucr(now_ms) >= overdue


class Model(RuleBasedStateMachine):
    """Two sides whose clocks differ, a wire that loses, repeats and reorders, and what was promised as a plain list."""

    @initialize(ahead_ms=st.integers(-SKEW_MS, SKEW_MS), limit=st.sampled_from([40, 1_000]))
    def begin(self, ahead_ms: int, limit: int) -> None:
        self.now, self.ahead, self.limit = SKEW_MS, ahead_ms, limit
        self.sides = Sides(limit)
        self.signed: list[tuple[Signed[Voucher], Claim]] = []
        self.promises: list[tuple[int, int, int]] = []
        """Micro-credits, how many of them are held, until when."""
        self.forfeited: list[tuple[Ground, int, int]] = []
        """On what ground, how much, of what is held until when."""
        self.given_up: list[Signed[Voucher]] = []
        """Vouchers with forfeits of which the payee never knew."""
        self.seen = (0, 0)

    @property
    def payee_now(self) -> int:
        return self.now + self.ahead

    def due_by(self, now_ms: int) -> int:
        """What the promises come to at a time, by nothing but themselves."""
        due = sum(ucr - (held if now_ms < release else 0) for ucr, held, release in self.promises)
        return due - sum(ucr for _, ucr, release in self.forfeited if now_ms >= release)

    def taken(self, ucr: int, now_ms: int) -> dict[int, int]:
        """Of what is held until when how much is forfeited, by nothing but the promises: the last first."""
        left: dict[int, int] = {}
        for _, held, release in self.promises:
            left[release] = left.get(release, 0) + held
        for _, lost, release in self.forfeited:
            left[release] -= lost
        found = {}
        for release in sorted((at for at in left if at > now_ms), reverse=True):
            found[release] = min(ucr, left[release])
            ucr -= found[release]
        assert ucr == 0
        return {release: lost for release, lost in found.items() if lost}

    @rule(ms=st.sampled_from([1, SKEW_MS, HOUR // 2, HOUR, 3 * HOUR]))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule(owed=st.integers(0, 30), ppm=st.sampled_from([0, 500_000, 1_000_000]), hold=st.sampled_from([0, HOUR, GRACE]))
    def pay(self, owed: int, ppm: int, hold: int) -> None:
        payer, before, number = self.sides.payer, counters(self.sides.payer), len(self.promises)
        claim = claim_of(owed, ppm, hold, self.now)
        over = sum(ucr for ucr, _, _ in self.promises) - sum(ucr for _, ucr, _ in self.forfeited) + owed > self.limit
        kept = {part.release_at_ms: part.ucr for part in payer.held(self.now)}
        code = refusal(lambda: pay(payer, number, claim, self.now))
        late = payer.phase is not Phase.OPEN and self.now >= payer.closing_ms + GRACE
        assert code is (Code.EXPIRED if late else Code.CREDIT_EXHAUSTED if over else None)
        if code:
            assert counters(payer) == before
            return
        assert payer.latest is not None
        signed = payer.latest
        held = {part.release_at_ms: part.ucr for part in signed.record.held}
        assert set(kept) <= set(held) and len(held) <= HELD_MAX
        ((added, release),) = [(held[at] - kept.get(at, 0), at) for at in held if held[at] != kept.get(at)] or [(0, 0)]
        assert 0 <= added <= claim.held_ucr_max
        assert not added or self.now < release <= claim.hold_until_ms
        self.promises.append((owed, added, release))
        self.signed.append((signed, claim_of(owed, ppm, hold, self.payee_now)))

    @precondition(lambda self: self.signed)
    @rule(which=st.integers(0, 100))
    def deliver(self, which: int) -> None:
        """One of those signed, perhaps again, perhaps after later ones."""
        payee, (signed, claim) = self.sides.payee, self.signed[which % len(self.signed)]
        for _ in range(2):
            code = refusal(lambda: payee.receive(signed, claim, self.payee_now))
            late = payee.phase is not Phase.OPEN and self.payee_now >= payee.closing_ms + GRACE + SKEW_MS
            assert code is (Code.EXPIRED if late else None)

    @precondition(lambda self: self.sides.payer.held_ucr(self.now))
    @rule(share=st.integers(1, 4), kind=st.sampled_from(["verdict", "evidence"]), reflect=st.booleans())
    def forfeit(self, share: int, kind: str, reflect: bool) -> None:
        """The payer brings the ground, and before it the voucher that it is about."""
        payer, payee = self.sides.payer, self.sides.payee
        ground = Ground(kind, receipt(len(self.forfeited)))  # type: ignore[arg-type]
        ucr = -(-payer.held_ucr(self.now) // share)
        if refusal(lambda: payee.receive(*self.signed[-1], self.payee_now)):
            return  # the grace is over; who has not brought its last voucher by then has nothing to forfeit of it
        self.forfeited += [(ground, lost, release) for release, lost in self.taken(ucr, self.now).items()]
        self.sides.payer.forfeit(ground, ucr, self.now)
        self.sides.payee.forfeit(ground, ucr, self.payee_now)
        if reflect:
            self.restate()

    @precondition(lambda self: self.sides.payer.held_ucr(self.now) and self.now + 2 * HOUR < END)
    @rule(share=st.integers(1, 4), away_ms=st.sampled_from([HOUR // 2, HOUR, 2 * HOUR]))
    def forfeit_late(self, share: int, away_ms: int) -> None:
        """The payee is away when the payer would tell it, and some of it falls due meanwhile."""
        payer, payee = self.sides.payer, self.sides.payee
        if payer.phase is not Phase.OPEN or payee.phase is not Phase.OPEN:
            return
        payee.receive(*self.signed[-1], self.payee_now)
        ground, ucr = Ground("decision", receipt(len(self.forfeited))), -(-payer.held_ucr(self.now) // share)
        payer.forfeit(ground, ucr, self.now)
        lost = sign(payer.restate(self.now), CLIENT)
        payer.paid(lost, payer.named[lost.record.receipt])
        self.given_up.append(lost)
        self.now += away_ms
        assert refusal(lambda: payee.receive(lost, Claim(0), self.payee_now)) is Code.UNPAID
        taken = min(ucr, payee.held_ucr(self.payee_now))
        if taken:
            of_them = self.taken(taken, self.payee_now - SKEW_MS)
            payee.forfeit(ground, taken, self.payee_now)
            self.forfeited += [(ground, lost_ucr, release) for release, lost_ucr in of_them.items()]
        signed = sign(payer.yielding(ground, taken, self.now), CLIENT)
        payer.yielded(ground, taken, signed)
        self.signed.append((signed, self.signed[-1][1]))

    @precondition(lambda self: self.signed)
    @rule()
    def restate(self) -> None:
        payer, (_, claim) = self.sides.payer, self.signed[-1]
        code = refusal(lambda: payer.restate(self.now))
        assert code in (Code.EXPIRED, None)
        if not code:
            signed = sign(payer.restate(self.now), CLIENT)
            payer.paid(signed, payer.named[signed.record.receipt])
            self.signed.append((signed, claim))

    @rule(by=st.sampled_from([PAYER, PAYEE]))
    def close(self, by: Party) -> None:
        for side, now_ms in ((self.sides.payer, self.now), (self.sides.payee, self.payee_now)):
            side.expire(now_ms)
            if side.phase is not Phase.CLOSED:
                side.close(by, now_ms)

    @precondition(lambda self: self.sides.payee.latest)
    @rule()
    def present(self) -> None:
        """The payee shows what it has; the payer knows it."""
        payer, latest = self.sides.payer, self.sides.payee.latest
        assert latest is not None
        before = counters(payer)
        assert refusal(lambda: payer.present(latest, self.now)) in (None, Code.EXPIRED, Code.ILLEGAL_MOVE)
        assert counters(payer) == before

    @invariant()
    def every_credit_is_somewhere(self) -> None:
        payer = self.sides.payer
        promised = sum(ucr for ucr, _, _ in self.promises)
        assert payer.promised_ucr == payer.named.owed_ucr == promised
        assert payer.forfeited_ucr == sum(ucr for _, ucr, _ in self.forfeited)
        assert payer.payable_ucr(self.now) == self.due_by(self.now)
        assert payer.balance_ucr == payer.payable_ucr(self.now) + payer.held_ucr(self.now) <= self.limit

    @invariant()
    def each_side_counts_against_itself_and_what_is_payable_stays_so(self) -> None:
        payable = self.sides.payer.payable_ucr(self.now), self.sides.payee.payable_ucr(self.payee_now)
        assert payable[1] <= payable[0]
        assert all(after >= before for after, before in zip(payable, self.seen, strict=True))
        self.seen = payable

    @invariant()
    def the_payer_never_contradicts_itself(self) -> None:
        if self.signed:
            newest = self.signed[-1][0]
            every = [*self.given_up, *(signed for signed, _ in self.signed)]
            assert not any(contradiction_of(signed, newest) for signed in every)

    def teardown(self) -> None:
        """In whatever order all that was signed arrives, also after restarts, both sides close with the same balance."""
        if not hasattr(self, "signed"):
            return
        payer, grounds = self.sides.payer, dict(self.sides.payer.grounds)
        shuffled = list(self.signed)
        Random(len(shuffled)).shuffle(shuffled)
        payee = ChannelState(PAYEE, payer.channel, grounds=grounds)
        for number, (signed, claim) in enumerate(shuffled):
            payee.receive(signed, claim, 0)
            if number % 3 == 0:
                payee = replace(payee, named=Claims(dict(payee.named.by_receipt)))
        assert counters(payee) == counters(payer)
        for side in (payer, payee):
            while (deadline_ms := side.deadline_ms()) is not None:
                side.expire(deadline_ms)
                self.now = max(self.now, deadline_ms)
        assert payer.payable_ucr(self.now) == payee.payable_ucr(self.now) == payer.balance_ucr == self.due_by(self.now)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
