"""The ledger of mutual debts has what vouchers, decisions and payments say, once each, and comes to what the statement says."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.client.wallet import Wallet
from fallow.client.wallet_books import wallet_books
from fallow.node.books import Statement, period_of, statement
from fallow.node.earnings import dues, earnings
from fallow.node.journal import Journal
from fallow.node.log import wall_ms
from fallow.node.paid import Payment
from fallow.node.rails.journal_books import journal_books
from fallow.node.rails.ledger import Entry, Ledger
from fallow.node.rails.rail import Invoice
from fallow.protocol.channel import Ground
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.holding import Held
from fallow.protocol.limits import SKEW_MS
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import LEDGER, Channel, Voucher
from fallow.protocol.prices import Price
from fallow.protocol.receipts import FINAL, Receipt
from fallow.protocol.work import Parameters

from .ledger_crashes import FEE_UCR, client_ledger, node_ledger
from .pair import CLIENT_KEY, NODE_KEY

PROGRAM = Path(__file__).with_name("ledger_crashes.py")
NODE = SigningKey(bytes([1]) * 32)
PAYERS = [SigningKey(bytes([number]) * 32) for number in (2, 3)]
NOW = 1_795_000_000_000
ZERO = bytes(32)
PRICE = Price(ZERO, "generate", 0, 1, 4, 0)
YEAR = period_of("2026")


@dataclass(frozen=True)
class Deal:
    """One payer's channel: receipts, of which vouchers name all but some, and what is held of it until then."""

    amounts: list[int]
    unnamed: int
    held_ppm: int
    release_in_ms: int
    forfeited_ppm: int
    """Of what is held."""
    beyond_ucr: int
    """The payer promises more than its receipts come to."""


deals = st.builds(
    Deal, st.lists(st.integers(1, 10**6), min_size=1, max_size=4), st.integers(0, 2), st.integers(0, 10**6),
    st.integers(-10**6, 10**6), st.integers(0, 10**6), st.sampled_from([0, 0, 7]),
)  # fmt: skip
facts = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["bank", "manual", "fee"]), st.integers(-5000, 5000)), max_size=5
)


def write(journal: Journal, number: int, deal: Deal) -> None:
    """The deal of one payer is in the journal."""
    payer, node = PAYERS[number], bytes(NODE.verify_key)
    channel = sign(
        Channel(bytes(payer.verify_key), node, ZERO, LEDGER, 10**9, bytes([number]) * 16, NOW, NOW + 10**9, 0), payer
    )
    receipts: list[Signed[Receipt]] = []
    for index, ucr in enumerate(deal.amounts):
        order = sign(
            JobOrder(
                ZERO, "generate", Parameters(max_tokens=8), 1, 5, 8, ZERO, node, ZERO, PRICE, channel.id, 500, NOW,
                bytes([number, index]) + bytes(14), 1000, 1000, ZERO, 0, 0, (), None, None,
            ),
            payer,
        )  # fmt: skip
        journal.add_order(channel, order, NOW)
        receipts.append(sign(Receipt(order.id, 0, None, 0, 8, ZERO, (-1,) * 8, "class", ucr, FINAL), NODE))
        journal.add_receipt(receipts[-1], channel.id, Claim(ucr), NOW + index)
    named = receipts[: max(0, len(receipts) - deal.unnamed)]
    promised = sum(deal.amounts[: len(named)]) + deal.beyond_ucr
    held = promised * deal.held_ppm // 10**6
    for receipt in named:
        parts = (Held(held, NOW + deal.release_in_ms),) if held else ()
        record = Voucher(channel.id, receipt.id, promised - held, parts, 0)
        journal.add_voucher(sign(record, payer), NOW)
    if named and (forfeited := held * deal.forfeited_ppm // 10**6):
        journal.add_ground(channel.id, Ground("verdict", bytes([number]) * 32), forfeited, NOW)


def tell(journal: Journal, number: int, party: int, kind: str, ucr: int) -> None:
    """A payment, or a fee either way, is in the journal."""
    key = bytes(PAYERS[party].verify_key)
    if kind == "fee":
        journal.add_fees(number.to_bytes(32, "big"), {key: ucr}, NOW)
    elif ucr > 0:
        journal.add_payment(Payment(number.to_bytes(32, "big"), key, kind, ucr, ucr // 10, str(number), NOW))


@settings(max_examples=40, deadline=None)
@given(st.lists(deals, min_size=1, max_size=2), facts)
def test_it_comes_to_what_the_statement_says_to_the_micro_credit(
    written: list[Deal], told: list[tuple[int, str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        state = Path(folder)
        with closing(Journal(state)) as journal:
            for number, deal in enumerate(written):
                write(journal, number, deal)
            for number, (party, kind, ucr) in enumerate(told):
                tell(journal, number, party, kind, ucr)
        rows = earnings(state, NOW)
        assert sum(ucr for *_, ucr in dues(state, None, NOW)) == sum(row.paid_ucr - row.held_ucr for row in rows)
        with closing(Ledger(state / "ledger.sqlite", NODE, journal_books(state))) as ledger:
            for _ in range(2):  # once each, however often it is looked at
                reconciles(ledger, statement(state, YEAR))


def reconciles(ledger: Ledger, found: Statement, set_off: dict[bytes, int] | None = None) -> None:
    """Party by party: what is due, and the fees, less what was paid; a set-off makes both debts smaller and no balance."""
    balances = ledger.balances()
    for party, totals in found.payers().items():
        ours, theirs = balances[party]
        waived = (set_off or {}).get(party, 0)
        fees = [fee.ucr for fee in found.fees if fee.party == party]
        assert ours == totals.due_ucr + sum(ucr for ucr in fees if ucr > 0) - totals.settled_ucr
        assert theirs == -sum(ucr for ucr in fees if ucr < 0) - waived
    assert sum(ours for ours, _ in balances.values()) == sum(
        each.due_ucr + sum(max(0, fee.ucr) for fee in found.fees if fee.party == party) - each.settled_ucr
        for party, each in found.payers().items()
    )


def test_what_is_held_is_due_from_its_release_on_and_nobody_has_to_do_anything(tmp_path: Path) -> None:
    payer = bytes(PAYERS[0].verify_key)
    soon = wall_ms() - NOW + SKEW_MS
    with closing(Journal(tmp_path)) as journal:
        write(journal, 0, Deal([1000], 0, 400_000, soon, 0, 0))
    assert dues(tmp_path, payer, NOW + soon + SKEW_MS - 1)[0][2] == 600
    assert dues(tmp_path, payer, NOW + soon + SKEW_MS)[0][2] == 1000
    with closing(Ledger(tmp_path / "ledger.sqlite", NODE, journal_books(tmp_path))) as ledger:
        assert ledger.owed_ucr(payer) == (600, 0)


def test_a_party_that_nobody_knows_costs_the_reading_of_nobodys_books_but_its_own(tmp_path: Path) -> None:
    read: list[bytes | None] = []

    def books(party: bytes | None) -> list[Entry]:
        read.append(party)
        return []

    with closing(Ledger(tmp_path / "ledger.sqlite", NODE, books)) as ledger:
        ledger.owed_ucr(ZERO)
        ledger.balances()
    assert read == [ZERO, None]


@dataclass(frozen=True)
class Books:
    """Both sides' ledgers after one run, as they are opened then."""

    name: str
    client: list[Entry]
    node: list[Entry]
    statement: Statement
    due: int
    """By the client's wallet."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Books]:
    folder = tmp_path_factory.mktemp("ledgers")
    subprocess.run([sys.executable, str(PROGRAM), str(folder)], check=True, timeout=600)
    return [books_of(path) for path in sorted(folder.iterdir())]


def books_of(folder: Path) -> Books:
    with closing(client_ledger(folder)) as client, closing(node_ledger(folder)) as node:
        due = sum(each.theirs_ucr for each in wallet_books(folder / "wallet.db", CLIENT_KEY)(NODE_KEY))
        found = statement(folder / "node", period_of(str(datetime.now(UTC).year)))
        books = Books(folder.name, client.entries(NODE_KEY), node.entries(CLIENT_KEY), found, due)
        reconciles(node, found, {CLIENT_KEY: FEE_UCR})
        return books


@pytest.mark.spec("P-26", "P-31")
def test_whoever_is_killed_at_whatever_write_every_debt_is_there_once_on_both_sides(runs: list[Books]) -> None:
    assert {name.split("-")[0] for name in (books.name for books in runs)} == {"client", "node"}
    for books in runs:
        mirrored = sorted((each.reference, each.theirs_ucr, each.ours_ucr) for each in books.client)
        assert mirrored == sorted((each.reference, each.ours_ucr, each.theirs_ucr) for each in books.node), books.name
        kinds = sorted(each.reference.split(" ")[0] for each in books.node if " " in each.reference)
        assert kinds == ["channel", "decision"], books.name
        assert len(books.node) == 3, books.name  # and the set-off, by its payment's id
        ours = sum(each.ours_ucr for each in books.node)
        assert (ours, sum(each.theirs_ucr for each in books.node)) == (books.due - FEE_UCR, 0), books.name
        assert [(paid.rail, paid.ucr) for paid in books.statement.payments] == [("ledger", FEE_UCR)], books.name


def test_a_client_without_a_wallet_owes_nothing(tmp_path: Path) -> None:
    books = wallet_books(tmp_path / "wallet.db", CLIENT_KEY)
    with closing(Ledger(tmp_path / "ledger.sqlite", PAYERS[0], books)) as ledger:
        assert ledger.balances() == {}
    with closing(Wallet(tmp_path / "wallet.db", PAYERS[0])):
        assert list(books(None)) == []


def test_a_set_off_that_was_taken_is_not_brought_in_again(tmp_path: Path) -> None:
    """The journal has it as a payment, and the ledger has it since it was taken."""
    payer, node = PAYERS[0], bytes(NODE.verify_key)
    with closing(Journal(tmp_path)) as journal:
        write(journal, 0, Deal([1000], 0, 0, 0, 0, 0))
        tell(journal, 1, 0, "fee", -300)
        with closing(Ledger(tmp_path / "node.sqlite", NODE, journal_books(tmp_path))) as owed:
            with closing(Ledger(tmp_path / "payer.sqlite", payer)) as waived:
                waived.post(node, "a decision", ours_ucr=300)
                means = waived.pay(Invoice(bytes(payer.verify_key), node, owed.address, 300, "fee"))
            taken = owed.take(means)
            journal.add_payment(taken.payment(owed.name, NOW))
            assert owed.take(means) == taken
            assert owed.owed_ucr(bytes(payer.verify_key)) == (700, 0)
            reconciles(owed, statement(tmp_path, YEAR), {bytes(payer.verify_key): 300})
