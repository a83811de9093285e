"""Deposits, at a real mint: what they secure at the node, when they are taken, and how they come back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node.accounts import Account, Accounts
from fallow.node.deposits import DAY_S, KEPT_S, LATEST_S, LEAST_S, TAKE_S, Deposits
from fallow.node.journal import Journal
from fallow.node.paid import payments
from fallow.node.paying import Paying
from fallow.node.rails.cashu import Cashu
from fallow.node.rails.cashu_selection import choose
from fallow.node.rails.deposits import HELD_BY_ONE_MAX, HELD_MAX, DepositBook, Held, Made
from fallow.node.rails.rail import Invoice
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from fallow.protocol.payment import LEDGER, Channel

from .deposit_crashes import FUNDED, REFERENCE, UNIT_UCR, purse_of
from .test_ledger import PAYERS, Deal, write
from .test_rails import Gate, altered, gate, mint, purses

__all__ = ["gate", "mint"]

PROGRAM = Path(__file__).with_name("deposit_crashes.py")
PAYER = PAYERS[0]
PAYER_KEY = bytes(PAYER.verify_key)
NODE_KEY = bytes(SigningKey(bytes([1]) * 32).verify_key)
LONG_S = 30 * DAY_S
TURN = 1


@dataclass
class Bank:
    """A payer's purse, and a node's with its accounts; the node's clock goes as the test wants."""

    payer: Cashu
    payee: Cashu
    journal: Journal
    book: DepositBook
    accounts: Accounts
    folder: Path
    now_s: int = int(time.time())

    def deposits(self) -> Deposits:
        return Deposits(self.book, self.payee, self.accounts, lambda: self.now_s * 1000)

    def invoice(self, units: int, name: str) -> Invoice:
        return Invoice(PAYER_KEY, NODE_KEY, self.payee.terms, units * UNIT_UCR, name)

    def lock(self, units: int = 8, *, lasts_s: int = LONG_S, name: str = "spring") -> bytes:
        return self.payer.pay(self.invoice(units, name), until_s=self.now_s + lasts_s)

    async def lends(self, account: Account, ucr: int) -> bool:
        """Whether a stranger gets so much, where strangers get nothing."""
        try:
            async with self.accounts.lent(account, ucr, 0, 10**9):
                return True
        except Refused as refused:
            return refused.code is not Code.PREPAY


@pytest.fixture
def bank(tmp_path: Path, gate: Gate) -> Iterator[Bank]:
    pair = purses(tmp_path, gate.address)
    pair.fund(pair["payer"], pair["payee"], 60 * UNIT_UCR)
    with closing(Journal(tmp_path)) as journal, closing(DepositBook(tmp_path)) as book:
        made = Bank(pair["payer"], pair["payee"], journal, book, None, tmp_path)  # type: ignore[arg-type]
        made.accounts = Accounts(journal, lambda: made.now_s * 1000)
        yield made
    for rail in pair.opened.values():
        rail.close()


async def account_of(bank: Bank) -> Account:
    now = bank.now_s * 1000
    return await bank.accounts.open(
        sign(Channel(PAYER_KEY, NODE_KEY, NODE_KEY, LEDGER, 10**9, bytes(16), now, now + 10**9, 0), PAYER)
    )


@pytest.mark.spec("P-25", "P-33", "P-34")
async def test_it_secures_as_much_as_it_is_worth_until_a_day_before_its_time(bank: Bank, gate: Gate) -> None:
    account, deposits = await account_of(bank), bank.deposits()
    assert not await bank.lends(account, 1)
    means = bank.lock(8)
    assert deposits.is_one(means)
    held = await deposits.hold(means, trio.CapacityLimiter(TURN))
    gate.lost = dict.fromkeys(("/v1/checkstate", "/v1/keys"), 0)
    assert await deposits.hold(means, trio.CapacityLimiter(TURN)) == held  # again: nobody is asked
    assert (held.payer, held.ucr) == (PAYER_KEY, 8 * UNIT_UCR)
    assert await bank.lends(account, 8 * UNIT_UCR)
    assert not await bank.lends(account, 8 * UNIT_UCR + 1)
    assert payments(bank.folder) == []
    bank.deposits()  # another process of the node
    assert await bank.lends(account, 8 * UNIT_UCR)
    bank.now_s += LONG_S - TAKE_S
    deposits.count()
    assert not await bank.lends(account, 1)
    await deposits.look(
        trio.CapacityLimiter(TURN)
    )  # nothing is owed: it is let go, and the mint is not needed for that
    assert bank.book.held() == []
    gate.lost.clear()
    assert not bank.payer.is_spent(means)


@pytest.mark.spec("P-26", "P-34")
async def test_it_is_taken_whole_if_anything_is_owed_a_day_before_its_time(bank: Bank, gate: Gate) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    means = bank.lock(8)
    await deposits.hold(means, turn)
    write(bank.journal, 0, Deal([100], 0, 0, 0, 0, 0))
    await deposits.look(turn)
    assert len(bank.book.held()) == 1  # it is not time yet
    bank.now_s += LONG_S - TAKE_S
    gate.lost = {"/v1/swap": 0}
    await deposits.look(turn)  # the mint has swapped, and the node was not told: it asks again the next time
    assert len(bank.book.held()) == 1
    gate.lost.clear()
    await deposits.look(turn)
    assert [(paid.payer, paid.ucr, paid.rail) for paid in payments(bank.folder)] == [(PAYER_KEY, 8 * UNIT_UCR, "cashu")]
    assert bank.book.held() == []
    assert bank.payee.balance == 7  # the mint keeps one
    assert not deposits.is_one(means)  # handed over again, it is what was paid
    with pytest.raises(Refused) as caught:
        bank.payer.take_back(means, bank.now_s + LONG_S)
    assert caught.value.code is Code.SPENT


@pytest.mark.spec("P-34")
async def test_a_no_of_the_mint_lets_nothing_go_that_is_unspent(bank: Bank, gate: Gate) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    await deposits.hold(bank.lock(8), turn)
    write(bank.journal, 0, Deal([100], 0, 0, 0, 0, 0))
    bank.now_s += LONG_S - TAKE_S
    bank.payee._mint._keyset = "0" * 16  # it signs with others by now
    await deposits.look(turn)
    assert len(bank.book.held()) == 1
    gate.refused = {"/v1/swap", "/v1/restore"}
    await deposits.look(turn)
    assert len(bank.book.held()) == 1
    gate.refused.clear()
    await deposits.look(turn)
    assert bank.book.held() == []
    assert [paid.ucr for paid in payments(bank.folder)] == [8 * UNIT_UCR]


async def test_what_others_have_spent_or_nobody_allows_for_long_is_let_go(bank: Bank, gate: Gate) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    spent, kept = bank.lock(8, name="spent"), bank.lock(8, name="kept")
    await deposits.hold(spent, turn)
    await deposits.hold(kept, turn)
    with closing(Cashu(bank.folder / "copy.sqlite", gate.address, b"\x02" * 32, UNIT_UCR)) as copy:
        copy.take(spent)
    write(bank.journal, 0, Deal([100], 0, 0, 0, 0, 0))
    bank.now_s += LONG_S - TAKE_S
    gate.refused = {"/v1/swap"}
    await deposits.look(turn)
    assert [held.means for held in bank.book.held()] == [kept]
    bank.now_s += TAKE_S + KEPT_S
    await deposits.look(turn)
    assert (bank.book.held(), payments(bank.folder)) == ([], [])


def test_a_deposit_that_came_back_is_not_taken_by_its_payee(bank: Bank, gate: Gate) -> None:
    """Whatever the mint's answer found: nobody, another process, or this one, which then died."""
    before = bank.payer.balance
    means = bank.lock(8, lasts_s=-60)
    assert not bank.payer.is_taken(means)
    gate.lost = {"/v1/swap": 0}
    with pytest.raises(NetworkError):
        bank.payer.take_back(means, bank.now_s)
    gate.lost.clear()
    assert not bank.payer.is_taken(means)
    assert bank.payer.is_back(means)
    assert bank.payer.balance == before - 2
    taken = bank.lock(8, name="taken")
    bank.payee.take(taken)
    assert bank.payer.is_taken(taken)
    assert not bank.payee.is_lost(taken)


def test_two_processes_that_finish_one_request_neither_lose_nor_bring_back_tokens(bank: Bank, gate: Gate) -> None:
    with closing(Cashu(bank.folder / "payer.sqlite", gate.address, b"\x01" * 32, UNIT_UCR)) as other:
        gate.lost = {"/v1/swap": 0}
        with pytest.raises(NetworkError):
            bank.lock(8)
        gate.lost.clear()
        (asked,) = other._db.execute("SELECT id FROM asked").fetchone()
        whole = other._outbox._answered

        def overtaken(*given: Any) -> Any:
            """The other process finishes it, and spends the change, before this one has written anything."""
            answer = whole(*given)
            bank.lock(8)
            bank.payee.take(bank.payer.pay(bank.invoice(bank.payer.balance - 1, "all of it")))
            return answer

        other._outbox._answered = overtaken  # type: ignore[method-assign]
        other._outbox.finish(asked)
        other._outbox.finish(asked)
        assert (bank.payer.balance, other.balance) == (0, 0)


def test_a_refusal_that_crosses_the_answer_loses_nothing(bank: Bank, gate: Gate) -> None:
    """The other process has asked, and been answered, between this one's two questions."""
    means = bank.lock(8)
    ask = bank.payee._mint.ask

    def crossed(path: str, body: Any = None) -> Any:
        answer = ask(path, body)
        if path == "/v1/restore" and not answer["signatures"] and not bank.payee.is_spent(means):
            asked = json.loads(bank.payee._db.execute("SELECT body FROM asked").fetchone()[0])
            ask("/v1/swap", asked)
        return answer

    bank.payee._mint.ask = crossed  # type: ignore[method-assign]
    assert bank.payee.take(means).ucr == 8 * UNIT_UCR
    assert bank.payee.balance == 7


def test_what_is_pending_at_the_mint_stays_asked_for(bank: Bank, gate: Gate) -> None:
    means = bank.lock(8)
    gate.refused = {"/v1/swap"}
    states = bank.payee._mint.states
    bank.payee._mint.states = lambda points: ["PENDING" for _ in points]  # type: ignore[method-assign]
    with pytest.raises(NetworkError, match="not decided"):
        bank.payee.take(means)
    bank.payee._mint.states = states  # type: ignore[method-assign]
    gate.refused.clear()
    assert bank.payee.take(means).ucr == 8 * UNIT_UCR


async def test_what_was_taken_is_counted_though_the_node_died_before_it_was(bank: Bank) -> None:
    """And though the payer owes nothing any more by then."""
    deposits = bank.deposits()
    means = bank.lock(8)
    await deposits.hold(means, trio.CapacityLimiter(TURN))
    bank.payee.take(means)
    bank.now_s += LONG_S - TAKE_S
    await bank.deposits().look(trio.CapacityLimiter(TURN))
    assert [paid.ucr for paid in payments(bank.folder)] == [8 * UNIT_UCR]


@pytest.mark.spec("P-32", "P-33")
async def test_what_secures_nothing_is_not_held(bank: Bank) -> None:
    deposits, turn = bank.deposits(), trio.CapacityLimiter(TURN)
    spent = bank.lock(4, name="spent")
    bank.payee.take(spent)
    for means, code in (
        (bank.lock(2, lasts_s=LEAST_S - 60, name="short"), Code.BAD_TERMS),
        (bank.lock(2, lasts_s=LATEST_S + 60, name="long"), Code.BAD_TERMS),
        (bank.lock(1, name="all of it is the fee"), Code.BAD_TERMS),
        (spent, Code.BAD_RECORD),
        (altered(bank.lock(2, name="no proof"), dleq=None), Code.BAD_SIGNATURE),
        (altered(bank.lock(2, name="more"), amount=64), Code.BAD_RECORD),
    ):
        with pytest.raises((Refused, RemoteProtocolError)) as caught:
            await deposits.hold(means, turn)
        assert caught.value.code is code
    own = bank.payer.pay(
        Invoice(PAYER_KEY, NODE_KEY, bank.payer.address, 2 * UNIT_UCR, "own"), until_s=bank.now_s + LONG_S
    )
    with pytest.raises(RemoteProtocolError, match="not locked to our key"):
        await deposits.hold(own, turn)
    assert not deposits.is_one(bank.lock(2, lasts_s=-bank.now_s, name="a payment"))
    assert bank.book.held() == []


def test_it_comes_back_when_its_time_is_over_and_not_before(bank: Bank) -> None:
    before = bank.payer.balance
    means = bank.lock(8, lasts_s=-60)
    with pytest.raises(Refused) as caught:
        bank.payer.take_back(means, bank.now_s - 61)
    assert caught.value.code is Code.LOCKED
    assert "UTC" in caught.value.message
    assert bank.payer.balance == before - 9
    for _ in range(2):
        assert bank.payer.take_back(means, bank.now_s) == 7 * UNIT_UCR
    assert bank.payer.balance == before - 2  # the mint keeps one of each swap
    assert bank.payer.is_spent(means)


def test_a_mint_that_says_no_for_another_reason_is_quoted(bank: Bank) -> None:
    means = bank.lock(8)  # by the mint's clock it is locked
    with pytest.raises(RemoteProtocolError, match="mint refused"):
        bank.payer.take_back(means, bank.now_s + LONG_S)


def test_who_pays_at_another_mint_or_price_pays_nothing(bank: Bank, tmp_path: Path) -> None:
    before = bank.payer.balance
    key, mint, price = bank.payee.terms.split(" ")
    for terms in (f"{key} {mint}x {price}", f"{key} {mint} 1", f"{key} {mint}"):
        with pytest.raises(Refused) as caught:
            bank.payer.pay(Invoice(PAYER_KEY, NODE_KEY, terms, UNIT_UCR, "elsewhere"))
        assert caught.value.code is Code.BAD_TERMS
    assert bank.payer.balance == before


def test_two_processes_do_not_spend_the_same_tokens(bank: Bank) -> None:
    """One has chosen its tokens when the other pays with them."""
    with closing(Cashu(bank.folder / "payer.sqlite", bank.payee.terms.split(" ")[1], b"\x01" * 32, UNIT_UCR)) as other:
        chosen = choose(other._db, 40, other._mint.fee)
        bank.lock(8)
        left = bank.payer.balance
        with pytest.raises(Refused) as caught:
            other._outbox.keep("late", "/v1/swap", {"inputs": chosen}, [], None, [each["secret"] for each in chosen])
        assert caught.value.code is Code.BUSY
        assert other.balance == left
    assert bank.payee.take(bank.payer.pay(bank.invoice(8, "next"))).ucr == 8 * UNIT_UCR


def test_bills_are_kept_until_they_are_paid(bank: Bank, gate: Gate) -> None:
    before, quote = bank.payer.balance, bank.payer.quotes.ask(5)
    assert [(id, amount) for id, amount, _ in bank.payer.quotes.waiting()] == [(quote, 5)]
    gate.lost = {"/v1/mint/bolt11": 0}
    with pytest.raises(NetworkError):
        bank.payer.quotes.fill(5, quote)
    gate.lost.clear()
    assert len(bank.payer.quotes.waiting()) == 1
    bank.payer.quotes.fill(5, quote)
    assert (bank.payer.quotes.waiting(), bank.payer.balance) == ([], before + 5)
    assert not bank.payer.quotes.is_over(quote, bank.now_s + LONG_S)  # it was paid


def test_the_book_keeps_terms_and_bounds(tmp_path: Path) -> None:
    with closing(DepositBook(tmp_path)) as book:
        first = book.begin(Made("a", b"p" * 32, "key", "/ip4", 5, 100))
        assert book.begin(Made("a", b"p" * 32, "key", "/ip4", 5, 999)) == first
        for other in (Made("a", b"q" * 32, "key", "/ip4", 5, 100), Made("a", b"p" * 32, "key", "/ip4", 6, 100)):
            with pytest.raises(Refused, match="another reference"):
                book.begin(other)
        book.forget("a")
        assert book.all_made() == []
        book.begin(first)
        book.note_handed("a", "/ip6")
        book.forget("a")
        assert [(each.handed, each.place) for each in book.all_made()] == [(True, "/ip6")]
        for number in range(HELD_MAX):
            payer = bytes([number // HELD_BY_ONE_MAX]) * 32
            assert book.hold(Held(number.to_bytes(32, "big"), payer, "r", 1, number, b""))
            if number == HELD_BY_ONE_MAX - 1:
                with pytest.raises(Refused, match="of one payer"):
                    book.hold(Held(b"x" * 32, payer, "r", 1, 0, b""))
        assert not book.hold(Held(bytes(32), bytes(32), "r", 1, 0, b""))
        with pytest.raises(Refused) as caught:
            book.hold(Held(b"x" * 32, b"p" * 32, "r", 1, 0, b""))
        assert caught.value.code is Code.BUSY
        assert book.worth(HELD_MAX - 3) == {payer: 2}
        assert book.worth(HELD_MAX - 3, (HELD_MAX - 1).to_bytes(32, "big")) == {payer: 1}
        assert len(book.held(9)) == 10


@pytest.mark.timeout(600)
def test_killed_at_whatever_write_it_loses_nothing_and_comes_back(tmp_path: Path, mint: str) -> None:
    subprocess.run([sys.executable, str(PROGRAM), str(tmp_path), mint], check=True, timeout=550)
    places = sorted(tmp_path.iterdir())
    assert len(places) > 20
    for place in places:
        with closing(purse_of(place, mint)) as purse, closing(DepositBook(place)) as book:
            (made,) = book.all_made()
            assert (made.reference, made.handed, made.back) == (REFERENCE, True, True), place.name
            assert purse.balance == FUNDED - 2, place.name  # the mint keeps one of each swap
            assert purse._db.execute("SELECT count(*) FROM asked").fetchone() == (0,), place.name


def test_a_node_s_deposit_is_told_from_a_client_s(bank: Bank) -> None:
    """The file given to a client has a path that begins as a node's address does."""
    key = bank.payee.address
    assert Made("a", NODE_KEY, bank.payee.terms, "/ip4/127.0.0.1", 5, 100).for_node
    assert Made("a", NODE_KEY, key, "/ip4/127.0.0.1", 5, 100).for_node
    assert not Made("a", bytes.fromhex(key)[1:], key, "/tmp/bond.means", 5, 100).for_node


async def test_by_one_look_a_deposit_counts_or_is_due_and_never_neither(bank: Bank) -> None:
    """Else it would be let go, and lent on until the next look."""
    means = bank.lock(8)
    turn = trio.CapacityLimiter(TURN)
    await bank.deposits().hold(means, turn)

    def ticking() -> int:
        bank.now_s += 1
        return bank.now_s * 1000

    deposits = Deposits(bank.book, bank.payee, bank.accounts, ticking)
    (held,) = bank.book.held()
    bank.now_s = held.until_s - TAKE_S - 2
    for _ in range(2):
        await deposits.look(turn)
        assert bool(bank.book.held()) is (PAYER_KEY in bank.accounts._credit.secured)
    assert not bank.book.held()


async def test_who_has_gone_before_its_deposit_had_a_turn_is_not_waited_for(bank: Bank) -> None:
    deposits = bank.deposits()
    means = bank.lock(8)
    paying = Paying({bank.payee.name: bank.payee}, bank.accounts, deposits)
    async with deposits._holding, trio.open_nursery() as nursery:
        nursery.start_soon(paying._take_untrusted, means)
        while not deposits._holding.statistics().tasks_waiting:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert bank.book.held() == []
    assert (await paying._take_untrusted(means)).ucr == 8 * UNIT_UCR
    assert [held.means for held in bank.book.held()] == [means]
