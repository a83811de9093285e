"""What a node lends: to all strangers together a share of a day, to each payer as much as it has settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.node.credit import DAY_MS, HOUR_MS, Credit, Debtor, credit_of, day_ucr
from fallow.protocol.errors import Code, Refused
from fallow.protocol.prices import Price
from fallow.protocol.profiles import ServedBundle

A, B, C = (bytes([number]) * 32 for number in range(3))
POOL = 100


def lent(credit: Credit, payer: bytes, ucr: int, now_ms: int = 0) -> bool:
    """Whether a job of so much ran, and claimed all that it might."""
    try:
        credit.lend(payer, ucr, POOL, now_ms)
    except Refused as refused:
        if refused.code is Code.PREPAY:
            return False
        raise
    credit.release(payer, ucr, now_ms)
    credit.claimed(payer, ucr, now_ms)
    return True


@pytest.mark.spec("P-25")
def test_many_keys_get_no_more_than_one() -> None:
    credit = Credit()
    taken = sum(lent(credit, bytes([number]) * 32, 7) for number in range(100))
    assert taken == POOL // 7
    assert not lent(credit, A, 3)
    assert lent(credit, A, 2)


@pytest.mark.spec("P-25", "P-26")
def test_who_is_refused_is_told_what_would_do_and_it_does() -> None:
    credit = Credit()
    assert lent(credit, A, 60)
    assert lent(credit, B, 40)
    with pytest.raises(Refused, match="settle 25 ucr"):
        credit.lend(B, 50, POOL, 0)
    credit.settled(B, 24, 0)
    assert not lent(credit, B, 50)
    credit.settled(B, 25, 0)
    assert lent(credit, B, 50)


@pytest.mark.spec("P-26")
def test_credit_grows_with_what_was_settled() -> None:
    credit = Credit()
    assert lent(credit, A, POOL)
    for settled in (100, 200, 400):
        credit.settled(A, settled, 0)
        while lent(credit, A, 10):
            pass
        assert credit.debtors[A].owed_ucr == 2 * settled + POOL  # strangers' share besides: nobody else uses it


@pytest.mark.spec("P-26")
def test_what_is_paid_ahead_is_used_up_without_touching_the_strangers_share() -> None:
    credit = Credit()
    assert lent(credit, A, POOL)
    credit.settled(B, 1_000, 0)
    for _ in range(10):
        assert lent(credit, B, 100)
    assert credit.strangers_ucr == POOL


@pytest.mark.spec("P-25")
def test_the_share_is_there_anew_a_day_later() -> None:
    credit = Credit()
    assert lent(credit, A, POOL)
    assert not lent(credit, B, 1, DAY_MS - HOUR_MS)
    assert lent(credit, B, POOL, DAY_MS + HOUR_MS)
    assert not lent(credit, C, 1, DAY_MS + HOUR_MS)


def test_the_owners_friends_are_bound_by_their_channels_alone() -> None:
    credit = Credit(friends=frozenset({A}))
    assert lent(credit, A, 1_000_000)
    assert lent(credit, B, POOL)


STEPS = st.lists(
    st.tuples(
        st.sampled_from((A, B, C)), st.sampled_from(("lend", "settle", "forget")), st.integers(0, 80),
        st.integers(0, DAY_MS),
    ),
    max_size=40,
)  # fmt: skip


@pytest.mark.spec("P-25", "P-26")
@given(STEPS)
def test_whatever_happens_a_day_of_strangers_costs_no_more_than_its_share(
    steps: list[tuple[bytes, str, int, int]],
) -> None:
    credit, now_ms, claims = Credit(), 0, list[tuple[int, bytes, int]]()
    settled = dict.fromkeys((A, B, C), 0)
    for payer, step, ucr, passed_ms in steps:
        now_ms += passed_ms // 4
        if step == "lend" and lent(credit, payer, ucr, now_ms):
            claims.append((now_ms, payer, ucr))
        elif step == "settle":
            settled[payer] += ucr
            credit.settled(payer, settled[payer], now_ms)
        elif step == "forget":  # a restart: the books as the disk has them
            rows = {}
            for each in (A, B, C):
                hours: dict[int, int] = {}
                for at_ms, _, claimed in (claim for claim in claims if claim[1] == each):
                    hours[at_ms // HOUR_MS] = hours.get(at_ms // HOUR_MS, 0) + claimed
                rows[each] = Debtor(sum(hours.values()), 0, settled[each], by_hour=hours)
            credit = credit_of(rows, (), now_ms)
        lost = 0
        for each in (A, B, C):
            owed = sum(claimed for _, of, claimed in claims if of == each)
            lately = sum(claimed for at_ms, of, claimed in claims if of == each and at_ms > now_ms - DAY_MS + HOUR_MS)
            lost += max(0, min(owed - 2 * settled[each], lately))
        assert lost <= POOL


def test_a_days_capacity_is_that_of_the_dearest_entry() -> None:
    served = ServedBundle(A, ("generate", "score"), "class", 500_000, 25_000, 0)
    prices = (Price(A, "generate", 0, 1, 4, 0), Price(A, "score", 0, 1, 0, 1), Price(B, "call", 9, 9, 9, 9))
    assert day_ucr((served,), prices) == 500 * 24 * 3600
    assert day_ucr((), prices) == 0
