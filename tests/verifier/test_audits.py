"""How often work is looked at, and when that makes honesty pay."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.policy import drawn_at
from fallow.verifier.audits import (
    FLOOR_PPM,
    MILLION,
    NEWCOMER,
    UNWRITTEN_MAX,
    Deterrence,
    audit_ppm,
    held_needed_ucr,
    jobs_until_found,
    spot_ppm,
)

AMOUNTS = st.integers(0, 10**12)
SHARES = st.integers(0, MILLION - 1)


@given(st.integers(0, NEWCOMER - 1), AMOUNTS, AMOUNTS)
def test_newcomers_are_always_checked(valid: int, price: int, held: int) -> None:
    assert audit_ppm(valid, price, held) == MILLION


@given(st.integers(NEWCOMER, 10**6), AMOUNTS, AMOUNTS, st.integers(1, MILLION), SHARES)
def test_the_rate_is_the_largest_of_three(valid: int, price: int, held: int, floor: int, colluding: int) -> None:
    rate = audit_ppm(valid, price, held, floor, colluding)
    exact = max(floor / MILLION, 1 / valid, price / (held * (1 - colluding / MILLION)) if held else math.inf)
    assert rate <= MILLION
    assert rate / MILLION == pytest.approx(min(1.0, exact), rel=1e-6, abs=2e-6)
    assert rate >= min(MILLION, floor)


def test_who_has_nothing_to_lose_is_always_checked() -> None:
    assert audit_ppm(10**6, 100, 0) == MILLION
    assert audit_ppm(10**6, 100, 10**9) == FLOOR_PPM
    assert audit_ppm(20, 100, 10**9) == 50_000


@given(st.binary(min_size=32, max_size=32), st.integers(1, MILLION), st.integers(1, MILLION))
def test_what_is_drawn_at_one_rate_is_drawn_at_every_higher_one(receipt: bytes, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert not drawn_at(low, bytes(32), receipt) or drawn_at(high, bytes(32), receipt)


def test_checkers_are_tried_often_at_first() -> None:
    assert [spot_ppm(valid) for valid in (0, 4, 10, 50, 10**6)] == [250_000, 250_000, 100_000, FLOOR_PPM, FLOOR_PPM]
    assert jobs_until_found(FLOOR_PPM) == 50
    assert jobs_until_found(FLOOR_PPM, 0.99) == 228
    assert jobs_until_found(250_000, 0.99) == 17
    assert jobs_until_found(0) == math.inf
    assert jobs_until_found(MILLION, 0.99) == 1


@given(st.floats(0.001, 1), st.floats(0, 0.95), st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**9))
def test_honesty_pays_exactly_from_what_has_to_be_held(
    checked: float, colluding: float, price: int, saved: int, held: int
) -> None:
    saved = min(saved, price)
    needed = held_needed_ucr(checked, colluding, price, saved)
    if not math.isclose(held, needed, rel_tol=1e-9, abs_tol=1e-6):
        assert Deterrence(checked, colluding, price, saved, held).honest_pays is (held > needed)


@pytest.mark.parametrize("colluding", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("held_windows", [1, 3, 10, 50, 1_000])
def test_the_rate_of_a_proven_node_deters_whoever_saves_nine_tenths_of_the_price(
    colluding: float, held_windows: int
) -> None:
    price = 1_000
    rate = audit_ppm(10**6, price, held_windows * price, 1)  # neither floor nor newcomer: what is held alone decides
    assert Deterrence(rate / MILLION, colluding, price, 9 * price // 10, held_windows * price).honest_pays


@given(
    st.integers(NEWCOMER, 10**6),
    st.integers(0, 10**4),
    st.integers(1, 10**7),
    st.integers(0, 4096),
    st.integers(0, 100),
)
def test_the_end_of_a_text_is_looked_at_as_often_as_what_it_leaves_unwritten_would_be(
    valid: int, price: int, held: int, unwritten: int, token: int
) -> None:
    plain = audit_ppm(valid, price, held)
    ended = audit_ppm(valid, price, held, unwritten=unwritten, token_ucr=token)
    cut = min(unwritten, UNWRITTEN_MAX)
    assert plain <= ended <= MILLION
    assert audit_ppm(valid, price + cut * token, held) <= ended
    windows = 1 + cut / WINDOW_TOKENS
    assert ended >= min(MILLION, windows * max(FLOOR_PPM, MILLION / valid)) - 1
    if not unwritten:
        assert ended == plain
    if unwritten >= UNWRITTEN_MAX:
        assert ended == audit_ppm(valid, price, held, unwritten=UNWRITTEN_MAX, token_ucr=token), (
            "bounded: honest texts end, too"
        )


def test_a_few_tokens_and_an_end_are_not_cheap() -> None:
    """A short last window alone was drawn at 1 / CV, whatever it took from the reader."""
    assert audit_ppm(20, 16, 10**6) == 50_000
    assert audit_ppm(20, 16, 10**6, unwritten=2 * WINDOW_TOKENS, token_ucr=4) == 150_000
    assert audit_ppm(20, 16, 1_000, unwritten=32, token_ucr=4) == 180_000
