"""Prices and receipts: both sides count the same, and what is owed only grows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.identity import salted_digest
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.orders import JobOrder
from fallow.protocol.prices import Price, Usage, amount_ucr, amount_ucr_max, find_price
from fallow.protocol.receipts import CANCELLED, FINAL, OPEN, YIELDED, Delivery
from fallow.protocol.work import Parameters, transcript_next, transcript_start

CLIENT, NODE = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
H = b"\x05" * 32
PRICE = Price(H, "generate", 100, 2, 5, 0)


def order(tokens: int = 80) -> Signed[JobOrder]:
    record = JobOrder(
        H, "generate", Parameters(tokens), 1, 40, tokens, salted_digest(H, b""), bytes(NODE.verify_key), H, PRICE, H,
        10_000, 0, b"n" * 16, 20_000, 5_000, H, 0, 0, (), None, None,
    )  # fmt: skip
    return sign(record, CLIENT)


@pytest.mark.spec("J-5")
def test_a_complete_job_pays_everything() -> None:
    assert amount_ucr(PRICE, Usage(1, 40, 80), planned_tokens=80, end=FINAL) == 100 + 80 + 400


@pytest.mark.spec("J-5")
def test_a_job_cut_short_pays_its_start_in_proportion() -> None:
    assert amount_ucr(PRICE, Usage(1, 40, 20), planned_tokens=80, end=OPEN) == (100 + 80) * 20 // 80 + 100


@pytest.mark.spec("J-5")
@given(
    prices=st.tuples(*[st.integers(0, 1000)] * 4), given_tokens=st.integers(1, 500), planned=st.integers(1, 500),
    data=st.data(),
)  # fmt: skip
def test_what_is_owed_only_grows_and_stays_under_the_most(
    prices: tuple[int, int, int, int], given_tokens: int, planned: int, data: st.DataObject
) -> None:
    price = Price(H, "generate", *prices)
    delivered = sorted(data.draw(st.lists(st.integers(0, planned), min_size=1, max_size=6)))
    owed = [amount_ucr(price, Usage(1, given_tokens, n), planned_tokens=planned, end=OPEN) for n in delivered]
    owed.append(amount_ucr(price, Usage(1, given_tokens, delivered[-1]), planned_tokens=planned, end=FINAL))
    assert owed == sorted(owed) and owed[-1] <= amount_ucr_max(price, 1, given_tokens, planned)


@pytest.mark.spec("J-6")
def test_a_price_list_without_the_entry_gives_nothing_for_free() -> None:
    with pytest.raises(RemoteProtocolError):
        find_price([PRICE], H, "call")


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


@pytest.mark.spec("J-22", "J-23", "J-24")
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


@pytest.mark.spec("J-24")
@pytest.mark.parametrize(
    "change",
    [
        {"amount_ucr": 10**6}, {"tokens": 1, "values_micro": (0,)}, {"first_token": 1}, {"transcript": b"\x00" * 32},
        {"sequence": 1}, {"previous": H}, {"values_micro": (1,) * WINDOW_TOKENS}, {"numerics_class": "other"}, {"order": H},
    ],
)  # fmt: skip
def test_a_receipt_that_says_something_else_is_refused(change: dict[str, object]) -> None:
    sides = Sides()
    sides.deliver(WINDOW_TOKENS)
    false = sign(replace(sides.executor.next_receipt(OPEN), **change), NODE)  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError) as caught:
        sides.client.received(false)
    assert caught.value.code is Code.BAD_RECORD and not sides.client.receipts
