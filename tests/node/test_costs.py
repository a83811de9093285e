"""Prices follow from what an hour costs, and both sides of an order come to the same number."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.node.config import DEFAULT_PRICES, parse
from fallow.node.costs import Costs, EntryPrice, entry_price
from fallow.node.engine.messages import Rates
from fallow.node.profiles import asked
from fallow.protocol.codec import encode
from fallow.protocol.envelope import sign
from fallow.protocol.errors import ConfigError
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.orders import JobOrder
from fallow.protocol.prices import Price, amount_ucr_max, find_price
from fallow.protocol.reading import read_untrusted
from fallow.protocol.receipts import CANCELLED, FINAL, OPEN, YIELDED, Delivery
from fallow.protocol.schema import to_map
from fallow.protocol.work import Parameters

RATES = Rates(prefill_milli=500_000, decode_milli=25_000, score_milli=400_000, call_milli=10_000)
COSTS = Costs(watts=300, kwh_ucr=300_000, wear_h_ucr=10_000, margin_ppm=200_000)
"""100,000 micro-credits an hour, and a fifth more."""


def test_an_hours_work_brings_what_an_hour_costs_and_the_margin() -> None:
    assert COSTS.hour_ucr == 100_000
    price = entry_price("generate", RATES, COSTS)
    assert price == EntryPrice(input_token_ucr=1, output_token_ucr=2)  # 1.33, rounded up
    assert entry_price("score", RATES, COSTS) == EntryPrice(input_token_ucr=1, checked_token_ucr=1)
    assert entry_price("call", RATES, COSTS) == EntryPrice(call_ucr=4)


@given(st.integers(1, 10**9), st.builds(Costs, *[st.integers(0, 10**6)] * 4).filter(lambda costs: costs.hour_ucr > 0))
def test_nobody_works_at_a_loss_and_nobody_asks_for_more_than_the_next_whole_number(rate: int, costs: Costs) -> None:
    each = entry_price("call", Rates(call_milli=rate), costs).call_ucr
    hour = rate * 3600 * 1_000_000  # of thousandths of units, and of millionths of the cost
    needed = 1000 * costs.hour_ucr * (1_000_000 + costs.margin_ppm)
    assert needed <= each * hour < needed + hour


def test_the_owners_own_word_comes_first(tmp_path: Path) -> None:
    table = {"state": "s", "costs": {"watts": 300, "kwh_ucr": 300_000}, "prices": {"score": {"checked_token_ucr": 9}}}
    config = parse(table, tmp_path)
    assert asked(config, "score", RATES) == EntryPrice(input_token_ucr=1, checked_token_ucr=9)
    assert asked(config, "generate", RATES) == EntryPrice(input_token_ucr=1, output_token_ucr=1)
    assert asked(config, "generate", Rates()) == DEFAULT_PRICES["generate"]
    assert asked(parse({"state": "s"}, tmp_path), "generate", RATES) == DEFAULT_PRICES["generate"]


@pytest.mark.parametrize(
    "costs", [3, {}, {"watts": 1}, {"watts": -1, "kwh_ucr": 1}, {"watts": 1, "kwh_ucr": 1, "x": 1}]
)
def test_costs_that_are_none(tmp_path: Path, costs: object) -> None:
    with pytest.raises(ConfigError, match="costs"):
        parse({"state": "s", "costs": costs}, tmp_path)


H, CLIENT, NODE = bytes(32), SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
UCR = st.integers(0, 2**36)
"""So dear that the longest order stays below the most that a client can cap: a node refuses what may cost more."""
PIECES = st.lists(st.integers(1, WINDOW_TOKENS), max_size=12)


@pytest.mark.spec("J-5")
@settings(max_examples=150, deadline=None)
@given(
    st.tuples(UCR, UCR, UCR, UCR), st.sampled_from(("generate", "score", "call")), st.integers(1, 64),
    st.integers(1, 32_768), PIECES, st.sampled_from((FINAL, YIELDED, CANCELLED)), st.integers(0, 100),
)  # fmt: skip
def test_the_same_order_comes_to_the_same_number_on_both_sides(
    ucr: tuple[int, int, int, int], entry: str, calls: int, given_tokens: int, pieces: list[int], end: str, spare: int
) -> None:
    """The node counts by its own list, the client by what came over the wire; receipts carry the node's count to the client."""
    ours = Price(H, entry, *ucr)
    theirs = read_untrusted(Price, encode(to_map(ours)), bytes_max=1000)
    assert ours == theirs
    calls, pieces = (calls, []) if entry == "call" else (1, pieces)
    planned = sum(pieces) + (0 if entry == "call" else spare)
    record = JobOrder(
        H, entry, Parameters(planned), calls, given_tokens, planned, H, bytes(NODE.verify_key), H, ours, H,
        2**53 - 1, 0, b"n" * 16, 20_000, 5_000, H, 0, 0, (), None, None,
    )  # fmt: skip
    order = sign(record, CLIENT)
    node = Delivery(order, find_price([ours], H, entry), "class", H)
    client = Delivery(order, find_price([theirs], H, entry), "class", H)
    for tokens in pieces:
        for side in (node, client):
            side.add(tokens, (-1,) * tokens, H)
        if node.window_full:
            issue(node, client, OPEN)
    issue(node, client, end)
    assert node.amount_ucr == client.amount_ucr
    assert node.amount_ucr <= amount_ucr_max(theirs, calls, given_tokens, planned)
    amounts = [receipt.record.amount_ucr for receipt in client.receipts]
    assert amounts == sorted(amounts)


def issue(node: Delivery, client: Delivery, end: str) -> None:
    receipt = sign(node.next_receipt(end), NODE)
    node.issued(receipt)
    client.received(receipt)
