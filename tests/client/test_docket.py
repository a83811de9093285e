"""A judge's docket: what is brought once, who makes place for whom, and what goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fallow.client.docket import CLAIMANT_MAX, FETCHED_MS, KEPT_MS, OPEN_MAX, STRANGERS_MAX, Docket
from fallow.protocol.disputes import UPHELD, Decision, Dispute, Kind
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, Refused
from fallow.protocol.limits import DISPUTES_MAX

HASH, NOW, ANSWER_MS = bytes(32), 1_790_000_000_000, 60_000


def key(number: int) -> SigningKey:
    return SigningKey(number.to_bytes(32, "big"))


def disputed(
    number: int, kind: Kind = Kind.WRONG, *, claimant: int | None = None, accused: int = 0, fee: int = 0
) -> Signed[Dispute]:
    """Of the order of this number, by a claimant of its own unless said."""
    order, against = number.to_bytes(32, "big"), bytes(key(accused or 10_000 + number).verify_key)
    return sign(
        Dispute(str(kind), against, order, HASH, fee, ANSWER_MS, NOW, HASH),
        key(number if claimant is None else claimant),
    )


@pytest.fixture
def docket(tmp_path: Path) -> Iterator[Docket]:
    with closing(Docket(tmp_path / "docket.sqlite")) as opened:
        yield opened


def refused(docket: Docket, dispute: Signed[Dispute], *, stranger: bool = True) -> Code:
    with pytest.raises(Refused) as caught:
        docket.open(dispute, b"shown", NOW, stranger=stranger)
    return caught.value.code


@pytest.mark.spec("A-30")
def test_an_order_is_brought_once_for_each_kind(docket: Docket) -> None:
    first = disputed(1)
    entry = docket.open(first, b"shown", NOW, stranger=True)
    assert docket.open(first, b"else", NOW, stranger=True) == entry
    assert refused(docket, disputed(1, fee=3)) is Code.REPLAYED
    docket.open(disputed(1, Kind.DISOWNED), b"shown", NOW, stranger=True)
    docket.decide(sign(Decision(first.id, UPHELD, first.record.accused, 0, 5, 0, "off"), key(9)), None)
    assert refused(docket, disputed(1, fee=3)) is Code.REPLAYED


def test_free_keys_fill_no_more_than_their_part(docket: Docket) -> None:
    for number in range(1, STRANGERS_MAX + 1):
        docket.open(disputed(number), b"shown", NOW, stranger=True)
    assert refused(docket, disputed(STRANGERS_MAX + 1)) is Code.BUSY
    for number in range(STRANGERS_MAX + 1, OPEN_MAX + 1):
        docket.open(disputed(number), b"shown", NOW, stranger=False)
    assert refused(docket, disputed(OPEN_MAX + 1), stranger=False) is Code.BUSY


def test_one_claimant_and_one_accused_have_their_bounds(docket: Docket) -> None:
    for number in range(1, CLAIMANT_MAX + 1):
        docket.open(disputed(number, claimant=7), b"shown", NOW, stranger=False)
    assert refused(docket, disputed(100, claimant=7), stranger=False) is Code.BUSY
    for number in range(200, 200 + DISPUTES_MAX):
        docket.open(disputed(number, accused=8), b"shown", NOW, stranger=False)
    assert refused(docket, disputed(300, accused=8), stranger=False) is Code.BUSY


def test_what_nobody_fetches_makes_place_and_what_is_too_old_goes(docket: Docket) -> None:
    left, decided = disputed(1), disputed(2)
    for one in (left, decided):
        docket.open(one, b"shown", NOW, stranger=True)
    docket.decide(sign(Decision(decided.id, UPHELD, decided.record.accused, 0, 5, 0, "off"), key(9)), None)
    later = NOW + ANSWER_MS + FETCHED_MS + 1
    docket.open(disputed(3), b"shown", later, stranger=True)
    assert docket.entry(left.id) is None
    docket.open(left, b"shown", later, stranger=True)  # and may be brought again
    assert docket.entry(decided.id) is not None
    docket.open(disputed(4), b"shown", NOW + KEPT_MS + 1, stranger=True)
    assert docket.entry(decided.id) is None
