"""Prices, receipts and vouchers: both sides count the same, and counters only grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.identity import salted_digest
from fallow.protocol.limits import SKEW_MS, WINDOW_TOKENS
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import LEDGER, Channel, ChannelState, Voucher, check_channel, check_claim
from fallow.protocol.prices import Price, Usage, amount_ucr, amount_ucr_max, find_price, price_list_id
from fallow.protocol.receipts import CANCELLED, FINAL, OPEN, YIELDED, Delivery
from fallow.protocol.work import Parameters, transcript_next, transcript_start

CLIENT, NODE = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
H = b"\x05" * 32
PRICE = Price(H, "generate", 100, 2, 5, 0)


def order(tokens: int = 80) -> Signed[JobOrder]:
    record = JobOrder(
        H, "generate", Parameters(tokens), 1, 40, tokens, salted_digest(H, b""), bytes(NODE.verify_key), H, H, H,
        10_000, 0, b"n" * 16, 20_000, 5_000, H, None, None,
    )  # fmt: skip
    return sign(record, CLIENT)


def test_a_complete_job_pays_everything() -> None:
    assert amount_ucr(PRICE, Usage(1, 40, 80), planned_tokens=80, complete=True) == 100 + 80 + 400


def test_a_job_cut_short_pays_its_start_in_proportion() -> None:
    assert amount_ucr(PRICE, Usage(1, 40, 20), planned_tokens=80, complete=False) == (100 + 80) * 20 // 80 + 100


@given(
    prices=st.tuples(*[st.integers(0, 1000)] * 4), given_tokens=st.integers(1, 500), planned=st.integers(1, 500),
    data=st.data(),
)  # fmt: skip
def test_what_is_owed_only_grows_and_stays_under_the_most(
    prices: tuple[int, int, int, int], given_tokens: int, planned: int, data: st.DataObject
) -> None:
    price = Price(H, "generate", *prices)
    delivered = sorted(data.draw(st.lists(st.integers(0, planned), min_size=1, max_size=6)))
    owed = [amount_ucr(price, Usage(1, given_tokens, n), planned_tokens=planned, complete=False) for n in delivered]
    owed.append(amount_ucr(price, Usage(1, given_tokens, delivered[-1]), planned_tokens=planned, complete=True))
    assert owed == sorted(owed) and owed[-1] <= amount_ucr_max(price, 1, given_tokens, planned)


def test_a_price_list_without_the_entry_gives_nothing_for_free() -> None:
    with pytest.raises(RemoteProtocolError):
        find_price([PRICE], H, "call")
    assert price_list_id([PRICE]) != price_list_id([replace(PRICE, call_ucr=101)])


class Sides:
    """An executor's and a client's count of one job."""

    def __init__(self, tokens: int = 80) -> None:
        self.order = order(tokens)
        start = transcript_start(H, self.order.id)
        self.executor = Delivery(self.order, PRICE, "class", start)
        self.client = Delivery(self.order, PRICE, "class", start)

    def deliver(self, count: int) -> None:
        for number in range(count):
            after = transcript_next(self.executor.transcript, bytes([number % 250]))
            self.executor.add(1, (-number,), after)
            self.client.add(1, (-number,), transcript_next(self.client.transcript, bytes([number % 250])))

    def receipt(self, end: str) -> None:
        signed = sign(self.executor.next_receipt(end), NODE)
        self.executor.issued(signed)
        self.client.received(signed)


@pytest.mark.parametrize("end", [FINAL, YIELDED, CANCELLED])
def test_both_sides_come_to_the_same_receipts(end: str) -> None:
    sides = Sides()
    sides.deliver(WINDOW_TOKENS)
    assert sides.executor.window_full
    sides.receipt(OPEN)
    assert not sides.executor.window_full
    sides.deliver(8)
    sides.receipt(end)
    first, last = (signed.record for signed in sides.client.receipts)
    assert last.previous == sides.client.receipts[0].id and last.first_token == first.tokens == WINDOW_TOKENS
    assert last.amount_ucr == sides.client.amount_ucr > first.amount_ucr


@pytest.mark.parametrize(
    "change",
    [
        {"amount_ucr": 10**6}, {"tokens": 33}, {"first_token": 1}, {"transcript": b"\x00" * 32}, {"sequence": 1},
        {"previous": H}, {"values_micro": (0,)}, {"numerics_class": "other"}, {"order": H},
    ],
)  # fmt: skip
def test_a_receipt_that_says_something_else_is_refused(change: dict[str, object]) -> None:
    sides = Sides()
    sides.deliver(WINDOW_TOKENS)
    false = sign(replace(sides.executor.next_receipt(OPEN), **change), NODE)  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError) as caught:
        sides.client.received(false)
    assert caught.value.code is Code.BAD_RECORD and not sides.client.receipts


def channel(limit_ucr: int = 1_000) -> Signed[Channel]:
    record = Channel(
        bytes(CLIENT.verify_key), bytes(NODE.verify_key), H, LEDGER, limit_ucr, b"n" * 16, 0, 10_000, 1_000
    )
    return sign(record, CLIENT)


def pay(payer: ChannelState, receipt: bytes, added_ucr: int) -> Signed[Voucher]:
    voucher = sign(payer.pay(receipt, added_ucr), CLIENT)
    payer.paid(voucher, added_ucr)
    return voucher


@given(
    amounts=st.lists(st.integers(0, 50), min_size=1, max_size=12),
    shuffle=st.randoms(use_true_random=False),
    repeat=st.booleans(),
)
def test_vouchers_in_any_order_and_repeated_come_to_the_same(amounts: list[int], shuffle: object, repeat: bool) -> None:
    payer, payee = ChannelState(channel()), ChannelState(payer_channel := channel())
    assert payer.channel.id == payer_channel.id
    arrivals = [(pay(payer, bytes([n]) * 32, ucr), ucr) for n, ucr in enumerate(amounts)] * (2 if repeat else 1)
    payable = []
    shuffle.shuffle(arrivals)  # type: ignore[attr-defined]
    for voucher, owed in arrivals:
        payee.receive(voucher, owed)
        payable.append(payee.promised_ucr)
    assert payable == sorted(payable) and payee.promised_ucr == payer.promised_ucr == sum(amounts)


def test_a_voucher_below_its_receipt_is_refused_and_changes_nothing() -> None:
    payer, payee = ChannelState(channel()), ChannelState(channel())
    payee.receive(pay(payer, H, 10), 10)
    with pytest.raises(RemoteProtocolError) as caught:
        payee.receive(pay(payer, b"\x06" * 32, 4), 5)
    assert caught.value.code is Code.UNPAID and payee.promised_ucr == 10


def test_the_limit_holds_on_both_sides() -> None:
    payer, payee = ChannelState(channel(10)), ChannelState(channel(10))
    with pytest.raises(LocalProtocolError):
        payer.pay(H, 11)
    over = sign(Voucher(payee.channel.id, H, 11, 0, 0), CLIENT)
    with pytest.raises(RemoteProtocolError) as caught:
        payee.receive(over, 11)
    assert caught.value.code is Code.CREDIT_EXHAUSTED


@pytest.mark.parametrize("due_ucr", [0, 100])
def test_nothing_agrees_to_held_pay(due_ucr: int) -> None:
    payee = ChannelState(channel())
    with pytest.raises(RemoteProtocolError) as caught:
        payee.receive(sign(Voucher(payee.channel.id, H, due_ucr, 100, 2**62), CLIENT), 100)
    assert caught.value.code is Code.BAD_RECORD and payee.promised_ucr == 0


def test_a_receipt_is_paid_once() -> None:
    payer = ChannelState(channel())
    pay(payer, H, 10)
    with pytest.raises(LocalProtocolError):
        payer.pay(H, 10)


def test_a_voucher_for_another_channel_or_by_another_payer_is_refused() -> None:
    payee = ChannelState(channel())
    for voucher in (sign(Voucher(H, H, 1, 0, 0), CLIENT), sign(Voucher(payee.channel.id, H, 1, 0, 0), NODE)):
        with pytest.raises(RemoteProtocolError) as caught:
            payee.receive(voucher, 1)
        assert caught.value.code is Code.BAD_SIGNATURE


def test_a_channel_is_its_payers_own_and_to_this_node() -> None:
    good, node = channel(), bytes(NODE.verify_key)
    check_channel(good, node, H, 5_000)
    for bad in (
        lambda: check_channel(sign(good.record, NODE), node, H, 0),
        lambda: check_channel(good, H, H, 0),
        lambda: check_channel(good, node, node, 0),
        lambda: check_channel(good, node, H, 10_000_000),
        lambda: check_channel(sign(replace(good.record, rail="cash"), CLIENT), node, H, 0),
    ):
        with pytest.raises(RemoteProtocolError):
            bad()


def test_a_late_voucher_is_claimed_until_the_grace_is_over_and_no_order_is_taken_by_then() -> None:
    good, node = channel(), bytes(NODE.verify_key)
    assert (good.record.expires_ms, good.record.close_grace_ms) == (10_000, 1_000)
    last = 10_000 + 1_000 + SKEW_MS
    check_claim(good, node, H, last)
    for late in (lambda: check_claim(good, node, H, last + 1), lambda: check_channel(good, node, H, last)):
        with pytest.raises(RemoteProtocolError) as caught:
            late()
        assert caught.value.code is Code.EXPIRED
    with pytest.raises(RemoteProtocolError):
        check_claim(sign(good.record, NODE), node, H, 0)
