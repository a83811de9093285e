"""Channels and vouchers as records: what follows what, what contradicts what, and whom a channel is for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.codec import encode
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.holding import Held
from fallow.protocol.limits import HELD_MAX, SKEW_MS
from fallow.protocol.payment import (
    LEDGER,
    Channel,
    Voucher,
    channel_contradiction_of,
    check_channel,
    check_claim,
    contradiction_of,
    follows,
    rank_of,
)
from fallow.protocol.schema import from_map_untrusted, to_map

CLIENT, NODE = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
H = b"\x05" * 32
GOOD = sign(
    Channel(bytes(CLIENT.verify_key), bytes(NODE.verify_key), H, LEDGER, 1_000, b"n" * 16, 0, 10_000, 1_000), CLIENT
)


def voucher(due: int, held: int = 0, forfeited: int = 0, release_at_ms: int = 0, receipt: bytes = H) -> Signed[Voucher]:
    return parts(due, *[(held, release_at_ms)] * bool(held), forfeited=forfeited, receipt=receipt)


def parts(due: int, *held: tuple[int, int], forfeited: int = 0, receipt: bytes = H) -> Signed[Voucher]:
    return sign(Voucher(GOOD.id, receipt, due, tuple(Held(*part) for part in held), forfeited), CLIENT)


SMALL = st.integers(0, 4)
VOUCHERS = st.builds(
    lambda due, held, forfeited: Voucher(H, H, due, tuple(Held(held[at], at) for at in sorted(held)), forfeited),
    SMALL, st.dictionaries(st.integers(1, 4), st.integers(1, 4), max_size=3), SMALL,
)  # fmt: skip


@pytest.mark.spec("P-3")
@given(VOUCHERS, VOUCHERS)
def test_a_voucher_follows_another_if_its_payee_is_never_worse_off_but_for_forfeits(a: Voucher, b: Voucher) -> None:
    def gone_ucr(record: Voucher, now_ms: int) -> int:
        return record.due_ucr + record.forfeited_ucr + sum(p.ucr for p in record.held if now_ms >= p.release_at_ms)

    never_less = all(gone_ucr(b, now_ms) >= gone_ucr(a, now_ms) for now_ms in range(6))
    assert follows(b, a) == (never_less and b.due_ucr >= a.due_ucr)


@pytest.mark.spec("P-15")
@given(VOUCHERS, VOUCHERS, VOUCHERS)
def test_following_is_an_order(a: Voucher, b: Voucher, c: Voucher) -> None:
    assert follows(a, a)
    assert not (follows(a, b) and follows(b, a)) or a == b
    assert follows(c, a) or not (follows(c, b) and follows(b, a))


@given(VOUCHERS, VOUCHERS)
def test_of_two_that_follow_the_later_one_ranks_higher(a: Voucher, b: Voucher) -> None:
    assert (rank_of(a) == rank_of(b)) <= (a == b or not follows(b, a))
    assert not follows(b, a) or rank_of(b) >= rank_of(a)


@pytest.mark.spec("P-3")
@pytest.mark.parametrize(
    ("one", "other", "proves"),
    [
        (voucher(10), voucher(20), False),
        (voucher(10, 5, 0, 100), voucher(15), False),
        (voucher(10, 5, 0, 100), voucher(10, 0, 5), False),
        (voucher(10, 5, 0, 100), voucher(10, 5, 0, 50), False),
        (voucher(10, 5, 0, 100), voucher(10, 9, 0, 100), False),
        (voucher(10, 5, 0, 100), voucher(15, 5, 0, 200), False),
        (voucher(10, 5, 0, 100), voucher(12, 5, 3, 200), False),
        (voucher(10, receipt=b"\x06" * 32), voucher(10), False),
        (voucher(10, 5, 0, 100), voucher(10, 5, 0, 200), False),  # the later one is the one that releases earlier
        (voucher(10, 5, 0, 100), voucher(10, 6, 0, 200), True),
        (voucher(10, 5, 0, 100), voucher(14, 9, 0, 200), True),
        (voucher(10), voucher(9, 20, 0, 100), True),
        (voucher(10, 0, 5), voucher(12), True),
        (voucher(10, 0, 5), voucher(15), False),  # the forfeit was given up
        (voucher(10, 0, 5), voucher(20, 0, 4), False),
        (parts(10, (5, 100), (5, 200)), parts(15, (5, 200), (5, 300)), False),
        (parts(10, (5, 100), (5, 200)), parts(10, (10, 200)), False),  # again the one that releases earlier
        (parts(10, (5, 100), (5, 200)), parts(10, (11, 200)), True),
        (parts(10, (5, 100), (5, 200)), parts(10, (6, 100), (3, 200)), True),
    ],
)
def test_two_vouchers_that_take_back_from_one_another_prove_it(
    one: Signed[Voucher], other: Signed[Voucher], proves: bool
) -> None:
    assert (contradiction_of(one, other) is not None) == (contradiction_of(other, one) is not None) == proves


def test_what_is_of_another_payer_or_channel_proves_nothing() -> None:
    one, other = voucher(10), voucher(9, 20, 0, 100)
    assert contradiction_of(one, other)
    assert contradiction_of(one, sign(other.record, NODE)) is None
    assert contradiction_of(one, sign(replace(other.record, channel=H), CLIENT)) is None


@pytest.mark.spec("P-1")
def test_two_channels_of_one_process_to_one_node_prove_it() -> None:
    def other(key: SigningKey = CLIENT, **changes: object) -> Signed[Channel]:
        return sign(replace(GOOD.record, **changes), key)  # type: ignore[arg-type]

    assert channel_contradiction_of(GOOD, other(credit_limit_ucr=2_000))
    for innocent in (
        other(), other(nonce=b"m" * 16), other(payee=H), other(payer=bytes(NODE.verify_key), key=NODE, rail="x"),
    ):  # fmt: skip
        assert channel_contradiction_of(GOOD, innocent) is None


@pytest.mark.spec("P-6")
@pytest.mark.parametrize(
    "held",
    [[(1, 0)], [(0, 1)], [(1, 5), (1, 5)], [(1, 6), (1, 5)], [(1, 1 + number) for number in range(HELD_MAX + 1)]],
)
def test_parts_are_few_of_something_and_in_the_order_of_their_release(held: list[tuple[int, int]]) -> None:
    good = to_map(Voucher(H, H, 1, (), 0))
    with pytest.raises(RemoteProtocolError) as caught:
        from_map_untrusted(Voucher, {**good, "held": [{"ucr": ucr, "release_at_ms": at} for ucr, at in held]})
    assert caught.value.code is Code.BAD_RECORD
    with pytest.raises((ValueError, LocalProtocolError)):
        encode(to_map(Voucher(H, H, 1, tuple(Held(*part) for part in held), 0)))


@pytest.mark.spec("P-2")
def test_a_channel_is_its_payers_own_and_to_this_node() -> None:
    good, node = GOOD, bytes(NODE.verify_key)
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


@pytest.mark.spec("P-2")
def test_a_late_voucher_is_claimed_until_the_grace_is_over_and_no_order_is_taken_by_then() -> None:
    good, node = GOOD, bytes(NODE.verify_key)
    assert (good.record.expires_ms, good.record.close_grace_ms) == (10_000, 1_000)
    last = 10_000 + 1_000 + SKEW_MS
    check_claim(good, node, H, last)
    for late in (lambda: check_claim(good, node, H, last + 1), lambda: check_channel(good, node, H, last)):
        with pytest.raises(RemoteProtocolError) as caught:
            late()
        assert caught.value.code is Code.EXPIRED
    with pytest.raises(RemoteProtocolError):
        check_claim(sign(good.record, NODE), node, H, 0)
