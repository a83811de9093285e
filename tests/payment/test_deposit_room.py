"""Where all places for deposits are taken: whoever locks more is let in, and the node loses nothing that it relies on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from fallow.node.deposits import LEAST_S, TRIED_MAX
from fallow.node.paid import payments
from fallow.node.rails.deposits import HELD_BY_ONE_MAX, HELD_MAX, Held
from fallow.node.rails.rail import Invoice
from fallow.protocol.errors import Code, Refused

from .deposit_crashes import UNIT_UCR
from .test_deposits import LONG_S, NODE_KEY, PAYER_KEY, TURN, Bank, account_of, bank
from .test_ledger import PAYERS, Deal, write
from .test_rails import Gate, gate, mint

__all__ = ["bank", "gate", "mint"]

SMALL, LARGE = 4, 8
"""Units."""
OTHER_KEY = bytes(PAYERS[1].verify_key)


def fill(bank: Bank, places: int, ucr: int = 1_000_000) -> None:
    """So many places are taken by deposits that are worth more than the purse has, by as many payers as it takes."""
    for number in range(places):
        payer = bytes([100 + number // HELD_BY_ONE_MAX]) * 32
        id = b"filler" + number.to_bytes(26, "big")
        bank.book.hold(Held(id, payer, "filler", ucr, bank.now_s + LONG_S, b""))


def small(bank: Bank, name: str = "small", units: int = SMALL) -> bytes:
    """One of another payer's."""
    invoice = Invoice(OTHER_KEY, NODE_KEY, bank.payee.terms, units * UNIT_UCR, name)
    return bank.payer.pay(invoice, until_s=bank.now_s + LONG_S)


def held(bank: Bank) -> set[bytes]:
    """Of those that have tokens."""
    return {each.means for each in bank.book.held() if each.means}


@pytest.mark.spec("P-33", "P-34")
async def test_the_smallest_makes_room_for_a_larger_one_and_is_its_payer_s_if_nothing_is_owed(bank: Bank) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    other, mine = small(bank), bank.lock(LARGE)
    fill(bank, HELD_MAX - 1)
    await deposits.hold(other, turn)
    assert not await bank.lends(await account_of(bank), 1)
    await deposits.hold(mine, turn)
    assert held(bank) == {mine}
    assert await bank.lends(await account_of(bank), LARGE * UNIT_UCR)
    assert bank.accounts._credit.secured.get(OTHER_KEY) is None
    assert payments(bank.folder) == [] and not bank.payer.is_spent(other)
    with pytest.raises(Refused) as caught:  # handed over again, it is smaller than all
        await deposits.hold(other, turn)
    assert caught.value.code is Code.BUSY
    assert f"none of less than {SMALL * UNIT_UCR} ucr" in caught.value.message
    assert held(bank) == {mine}


async def test_as_large_is_not_larger_and_what_is_held_is_not_asked_for_again(bank: Bank) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    first, second = bank.lock(SMALL, name="first"), small(bank)
    fill(bank, HELD_MAX - 1)
    await deposits.hold(first, turn)
    with pytest.raises(Refused, match="deposit more"):
        await deposits.hold(second, turn)
    assert (await deposits.hold(first, turn)).ucr == SMALL * UNIT_UCR
    assert held(bank) == {first}


async def test_who_owes_something_has_paid_with_the_deposit_that_makes_room(bank: Bank, gate: Gate) -> None:
    """If the mint is away meanwhile, nothing changes, and what is relied on stays."""
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    mine, other = bank.lock(SMALL), small(bank, units=LARGE)
    write(bank.journal, 0, Deal([100], 0, 0, 0, 0, 0))
    fill(bank, HELD_MAX - 1)
    await deposits.hold(mine, turn)
    gate.lost = {"/v1/swap": 0}
    with pytest.raises(Refused) as caught:
        await deposits.hold(other, turn)
    assert caught.value.code is Code.BUSY
    assert held(bank) == {mine}
    assert bank.accounts._credit.secured[PAYER_KEY] == SMALL * UNIT_UCR
    gate.lost.clear()
    await deposits.hold(other, turn)
    assert held(bank) == {other}
    assert [(paid.payer, paid.ucr) for paid in payments(bank.folder)] == [(PAYER_KEY, SMALL * UNIT_UCR)]
    assert bank.payee.balance == SMALL - 1


async def test_a_job_that_runs_on_it_may_come_to_something(bank: Bank) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    mine, other = bank.lock(SMALL), small(bank, units=LARGE)
    fill(bank, HELD_MAX - 1)
    await deposits.hold(mine, turn)
    async with bank.accounts.lent(await account_of(bank), SMALL * UNIT_UCR, 0, 10**9):
        await deposits.hold(other, turn)
        assert held(bank) == {other}
        assert [paid.payer for paid in payments(bank.folder)] == [PAYER_KEY]
    assert await bank.lends(await account_of(bank), 2 * SMALL * UNIT_UCR)  # as for whoever has paid so much


async def test_nothing_is_lent_on_a_deposit_from_when_it_is_looked_at_to_make_room(bank: Bank) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    mine, other, account = bank.lock(SMALL), small(bank, units=LARGE), await account_of(bank)
    fill(bank, HELD_MAX - 1)
    await deposits.hold(mine, turn)
    lent, asked = [], bank.accounts.open_ucr

    async def meanwhile(payer: bytes) -> int:
        lent.append(await bank.lends(account, 1))
        return await asked(payer)

    bank.accounts.open_ucr = meanwhile  # type: ignore[method-assign]
    await deposits.hold(other, turn)
    assert lent == [False]


async def test_one_payer_s_too_many_and_what_secures_nothing_displace_nobody(bank: Bank) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    other = small(bank)
    fill(bank, HELD_MAX - 1 - HELD_BY_ONE_MAX)
    for number in range(HELD_BY_ONE_MAX):
        bank.book.hold(Held(b"mine" + bytes([number]) * 28, PAYER_KEY, "r", 10**6, bank.now_s + LONG_S, b""))
    await deposits.hold(other, turn)
    for means in (bank.lock(LARGE), bank.lock(LARGE, lasts_s=LEAST_S - 60, name="short")):
        with pytest.raises(Refused):
            await deposits.hold(means, turn)
    assert held(bank) == {other}


async def test_what_the_mint_does_not_allow_to_be_taken_gives_way_to_the_next(
    bank: Bank, gate: Gate, tmp_path: Path
) -> None:
    """Not for ever: a mint that says no to the first few has nothing for anybody."""
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    stuck = [bank.lock(2, name=f"stuck {number}") for number in range(TRIED_MAX)]
    write(bank.journal, 0, Deal([100], 0, 0, 0, 0, 0))
    free, wanted = small(bank, units=SMALL), small(bank, "wanted", LARGE)
    fill(bank, HELD_MAX - TRIED_MAX)
    for means in stuck[1:]:
        await deposits.hold(means, turn)
    await deposits.hold(free, turn)
    gate.refused = {"/v1/swap"}
    await deposits.hold(wanted, turn)
    assert held(bank) == {*stuck[1:], wanted}
    gate.refused = set()


def test_the_book_names_the_smallest_first_and_of_these_the_first_to_end(bank: Bank) -> None:
    rows = [(b"a", 5, 30), (b"b", 3, 20), (b"c", 3, 10), (b"d", 9, 1)]
    for id, ucr, until_s in rows:
        bank.book.hold(Held(id * 32, id * 32, "r", ucr, until_s, b""))
    assert [each.id[:1] for each in bank.book.smallest(9, 8)] == [b"c", b"b", b"a"]
    assert [each.id[:1] for each in bank.book.smallest(9, 1)] == [b"c"]
    assert bank.book.smallest(3, 8) == []
