"""What leases could bring at most: counted by hand where that can be done."""

from fallow.testnet.simnet.tasks.feeder_bounds import most_lent_w

A, B, C, D = b"a", b"b", b"c", b"d"
PORTIONS_W = {A: {C: 1000, D: 1000}, B: {D: 1000}, C: {}, D: {}}


def everybody(one: bytes, other: bytes) -> bool:
    return True


def test_no_more_than_a_lender_spares_a_portion_lets_through_or_a_borrower_wants() -> None:
    assert most_lent_w(PORTIONS_W, {A: -1500, B: 0, C: 5000, D: 5000}, everybody) == 1500
    assert most_lent_w(PORTIONS_W, {A: -9000, B: 0, C: 5000, D: 5000}, everybody) == 2000
    assert most_lent_w(PORTIONS_W, {A: -9000, B: -9000, C: 300, D: 5000}, everybody) == 2300


def test_a_lender_goes_to_whom_nobody_else_can_lend() -> None:
    assert most_lent_w(PORTIONS_W, {A: -1000, B: -1000, C: 1000, D: 1000}, everybody) == 2000


def test_nothing_is_lent_to_whom_one_cannot_reach_or_where_nobody_wants_or_spares() -> None:
    assert most_lent_w(PORTIONS_W, {A: -1000, B: -1000, C: 1000, D: 1000}, lambda one, other: one == A) == 1000
    assert most_lent_w(PORTIONS_W, {A: -1000, B: -1000}, everybody) == 0
    assert most_lent_w(PORTIONS_W, {A: 1000, B: 1000, C: 1000, D: 1000}, everybody) == 0
    assert most_lent_w(PORTIONS_W, {}, everybody) == 0
