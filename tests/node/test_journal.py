"""What is on disk survives a kill, a restart rebuilds from it, and damage is said and left alone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import accumulate, count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.node.accounts import Accounts
from fallow.node.credit import DAY_MS
from fallow.node.debts import debts
from fallow.node.earnings import earnings
from fallow.node.journal import UNCLAIMED_MS, Journal
from fallow.node.journal_file import JOURNAL
from fallow.node.paid import Fee, Payment, fees
from fallow.protocol.channel import Ground
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Refused, RemoteProtocolError, StoreError
from fallow.protocol.holding import Held
from fallow.protocol.limits import SKEW_MS
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import LEDGER, Channel, Voucher, contradiction_of
from fallow.protocol.prices import Price
from fallow.protocol.receipts import OPEN, Receipt
from fallow.protocol.work import Parameters

NOW = 1_800_000_000_000
NODE, PAYER = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
CHANNEL = sign(
    Channel(bytes(PAYER.verify_key), bytes(NODE.verify_key), bytes(32), LEDGER, 1000, bytes(16), NOW, NOW + 10**9, 0),
    PAYER,
)


def order(number: int, created_ms: int = NOW, held_ppm: int = 0, hold_ms: int = 0) -> Signed[JobOrder]:
    zero = bytes(32)
    record = JobOrder(
        zero, "generate", Parameters(max_tokens=64), 1, 5, 64, zero, bytes(NODE.verify_key), zero,
        Price(zero, "generate", 0, 1, 4, 0), CHANNEL.id,
        500, created_ms, number.to_bytes(16, "big"), 1000, 1000, zero, held_ppm, hold_ms, (), None, None,
    )  # fmt: skip
    return sign(record, PAYER)


def receipt(of: Signed[JobOrder], sequence: int, amount_ucr: int) -> Signed[Receipt]:
    record = Receipt(of.id, sequence, None, 32 * sequence, 32, bytes(32), (-1,) * 32, "class", amount_ucr, OPEN)
    return sign(record, NODE)


def voucher(answers: bytes, due_ucr: int) -> Signed[Voucher]:
    return sign(Voucher(CHANNEL.id, answers, due_ucr, (), 0), PAYER)


@pytest.mark.spec("J-12")
def test_an_order_is_accepted_once_also_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_order(CHANNEL, order(1), NOW)
    journal.close()
    journal = Journal(tmp_path)
    with pytest.raises(Refused) as refused:
        journal.add_order(CHANNEL, order(1), NOW)
    assert refused.value.code == "replayed"
    journal.add_order(CHANNEL, order(2), NOW)
    journal.close()


@pytest.mark.spec("J-12")
def test_orders_that_came_to_nothing_go_once_no_clock_would_take_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    claimed, idle = order(1), order(2)
    journal.add_order(CHANNEL, claimed, NOW)
    journal.add_order(CHANNEL, idle, NOW)
    journal.add_receipt(receipt(claimed, 0, 10), CHANNEL.id, Claim(10), NOW)
    later = NOW + UNCLAIMED_MS + 1
    journal.add_order(CHANNEL, order(3, later), later)
    with pytest.raises(Refused):
        journal.add_order(CHANNEL, claimed, later)  # evidence stays
    journal.add_order(CHANNEL, idle, later)
    journal.close()


def test_a_job_that_runs_for_hours_keeps_its_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_order(CHANNEL, order(1), NOW)
    later = NOW + UNCLAIMED_MS - 1
    journal.add_order(CHANNEL, order(2, later), later)
    journal.add_receipt(receipt(order(1), 0, 10), CHANNEL.id, Claim(10), later)
    assert [row.owed_ucr for row in earnings(tmp_path)] == [10]
    journal.close()


def test_channels_on_which_nothing_came_of_any_order_go_too(tmp_path: Path) -> None:
    """Keys are free, and each can open channels and walk away."""
    journal = Journal(tmp_path)
    for number in range(3):
        channel = sign(replace(CHANNEL.record, nonce=bytes([number]) * 16), PAYER)
        strange = order(number)
        journal.add_order(channel, sign(replace(strange.record, channel=channel.id), PAYER), NOW)
    journal.add_order(CHANNEL, order(9), NOW)
    journal.add_receipt(receipt(order(9), 0, 10), CHANNEL.id, Claim(10), NOW)
    later = NOW + UNCLAIMED_MS + 1
    journal.add_order(CHANNEL, order(8, later), later)
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db:
        assert db.execute("SELECT id FROM channels").fetchall() == [(CHANNEL.id,)]
        assert db.execute("SELECT count(*) FROM orders").fetchone() == (2,)
    journal.close()


async def test_a_restart_rebuilds_the_channel(tmp_path: Path) -> None:
    job = order(1)
    first, second = receipt(job, 0, 100), receipt(job, 1, 150)
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    await accounts.accept(account, job)
    await accounts.claim(account, job.record, first, 100)
    await accounts.honour(account, voucher(first.id, 100))
    await accounts.claim(account, job.record, second, 50)
    journal.close()

    journal = Journal(tmp_path)
    again = await Accounts(journal, lambda: NOW).open(CHANNEL)
    assert again == account
    assert (again.state.promised_ucr, again.claimed_ucr, again.room_ucr) == (100, 150, 850)
    rows = earnings(tmp_path)
    assert [(row.window, row.owed_ucr, row.voucher is not None) for row in rows] == [(0, 100, True), (1, 50, False)]
    assert {row.payer for row in rows} == {bytes(PAYER.verify_key)}
    journal.close()


@pytest.mark.spec("P-13")
async def test_a_voucher_that_does_not_cover_is_not_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    job = order(1)
    claim = receipt(job, 0, 100)
    await accounts.claim(account, job.record, claim, 100)
    with pytest.raises(RemoteProtocolError) as unpaid:
        await accounts.honour(account, voucher(claim.id, 99))
    assert unpaid.value.code == "unpaid"
    assert journal.channel(CHANNEL.id).voucher is None
    assert account.state.latest is None
    journal.close()


def test_a_full_disk_is_said_as_such_and_nothing_is_lost(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        job = order(0)
        journal.add_order(CHANNEL, job, NOW)
        journal.add_receipt(receipt(job, 0, 100), CHANNEL.id, Claim(100), NOW)
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages}")  # to SQLite, a disk that ends there
        with pytest.raises(StoreError, match="full") as error:
            _add_orders(journal)
        assert error.value.code == "store_full"
        assert [row.owed_ucr for row in earnings(tmp_path)] == [100]
        journal._db.execute("PRAGMA max_page_count = 1000000")
        journal.add_order(CHANNEL, order(10**6), NOW)


def _add_orders(journal: Journal) -> None:
    for number in count(1):
        journal.add_order(CHANNEL, order(number), NOW)


@pytest.mark.spec("P-16")
async def test_a_voucher_that_the_disk_refuses_does_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    job = order(1)
    claim = receipt(job, 0, 100)
    await accounts.claim(account, job.record, claim, 100)
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON vouchers BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    with pytest.raises(StoreError):
        await accounts.honour(account, voucher(claim.id, 100))
    assert account.state.latest is None and claim.id not in account.state.named
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db:
        db.execute("DROP TRIGGER full")
    await accounts.honour(account, voucher(claim.id, 100))
    assert account.state.promised_ucr == 100
    journal.close()


@pytest.mark.spec("P-12")
async def test_of_vouchers_that_contradict_each_other_both_are_kept_and_the_first_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    job, release = order(1, held_ppm=500_000, hold_ms=3_600_000), NOW + 3_600_000
    claim = receipt(job, 0, 100)
    await accounts.accept(account, job)
    await accounts.claim(account, job.record, claim, 100)
    kept = sign(Voucher(CHANNEL.id, claim.id, 50, (Held(50, release),), 0), PAYER)
    other = sign(Voucher(CHANNEL.id, claim.id, 40, (Held(200, release),), 0), PAYER)
    await accounts.honour(account, kept)
    for _ in range(2):  # told again, it is no second proof
        with pytest.raises(RemoteProtocolError) as refused:
            await accounts.honour(account, other)
        assert refused.value.code == "contradiction"
    journal.close()

    journal = Journal(tmp_path)
    again = await Accounts(journal, lambda: NOW).open(CHANNEL)
    assert again.state == account.state and again.state.latest == kept
    assert journal.contradictions() == [(CHANNEL.id, other.envelope)]
    assert contradiction_of(kept, other)
    journal.close()


async def test_what_is_held_is_not_yet_earned_and_what_is_forfeited_never(tmp_path: Path) -> None:
    """Half of each window's 100 is held for an hour; then a verdict takes 30 of it."""
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    job, release = order(1, held_ppm=500_000, hold_ms=3_600_000), NOW + 3_600_000
    await accounts.accept(account, job)
    for number in range(2):
        claim = receipt(job, number, 100 * (number + 1))
        await accounts.claim(account, job.record, claim, 100)
        half = 50 * (number + 1)
        with pytest.raises(RemoteProtocolError) as refused:
            await accounts.honour(
                account, sign(Voucher(CHANNEL.id, claim.id, half - 1, (Held(half + 1, release),), 0), PAYER)
            )
        assert refused.value.code == "unpaid"
        await accounts.honour(account, sign(Voucher(CHANNEL.id, claim.id, half, (Held(half, release),), 0), PAYER))
    less = sign(Voucher(CHANNEL.id, claim.id, 100, (Held(70, release),), 30), PAYER)
    with pytest.raises(RemoteProtocolError):
        await accounts.honour(account, less)
    await accounts.forfeit(account, Ground("verdict", bytes(32)), 30)
    journal.close()

    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    assert (await accounts.open(CHANNEL)).state == account.state
    figures = [[(row.paid_ucr, row.held_ucr, row.forfeited_ucr) for row in earnings(tmp_path, NOW)]]
    await accounts.honour(await accounts.open(CHANNEL), less)
    for now_ms in (NOW, release + SKEW_MS):
        figures.append([(row.paid_ucr, row.held_ucr, row.forfeited_ucr) for row in earnings(tmp_path, now_ms)])
    held, released = [(100, 0, 0), (70, 70, 30)], [(100, 0, 0), (70, 0, 30)]
    assert figures == [held, held, released]
    journal.close()


def vouchers_on_disk(state: Path) -> int:
    with closing(sqlite3.connect(state / JOURNAL)) as db:
        (count,) = db.execute("SELECT count(*) FROM vouchers").fetchone()
    return int(count)


@pytest.mark.spec("P-7")
async def test_a_voucher_that_answers_nothing_of_ours_is_not_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    elsewhere = receipt(order(1), 0, 0)
    journal.add_receipt(elsewhere, bytes(32), Claim(0), NOW)  # ours, but on another channel
    for named in (bytes(32), elsewhere.id):
        with pytest.raises(RemoteProtocolError) as unpaid:
            await accounts.honour(account, voucher(named, 10))
        assert unpaid.value.code == "unpaid"
    assert (account.state.latest, account.state.named.owed_ucr, vouchers_on_disk(tmp_path)) == (None, 0, 0)
    journal.close()


@pytest.mark.spec("P-15")
async def test_a_voucher_that_says_nothing_new_holds_and_is_not_kept_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    job = order(1)
    claim = receipt(job, 0, 100)
    await accounts.claim(account, job.record, claim, 100)
    for due_ucr in (120, 120, 110):
        await accounts.honour(account, voucher(claim.id, due_ucr))
    assert (account.state.promised_ucr, vouchers_on_disk(tmp_path)) == (120, 1)
    journal.close()


async def test_vouchers_that_come_at_once_are_judged_one_after_another(tmp_path: Path) -> None:
    """Each alone covers its receipt; together they do not."""
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    refused = []

    async def honour(claim: Signed[Receipt]) -> None:
        try:
            await accounts.honour(account, voucher(claim.id, 100))
        except RemoteProtocolError as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            job = order(number)
            claim = receipt(job, 0, 100)
            await accounts.claim(account, job.record, claim, 100)
            nursery.start_soon(honour, claim)
    assert (refused, vouchers_on_disk(tmp_path)) == (["unpaid"], 1)
    journal.close()


async def test_a_payers_debts_outlast_a_restart_whatever_is_handed_over_again(tmp_path: Path) -> None:
    """The debts are of days ago, so that the node has the payer's line on disk alone."""
    journal, payer = Journal(tmp_path), bytes(PAYER.verify_key)
    later = NOW + 2 * DAY_MS
    journal.add_order(CHANNEL, order(1), NOW)
    journal.add_receipt(receipt(order(1), 0, 600), CHANNEL.id, Claim(600), NOW)
    paid = Payment(bytes(32), payer, "bank", 200, 0, "once", NOW)
    assert journal.add_payment(paid)
    accounts = Accounts(journal, lambda: later)
    assert not await accounts.take(paid)
    await accounts.book(bytes(32), {payer: 50})
    account = await accounts.open(CHANNEL)
    with pytest.raises(Refused) as refused:
        async with accounts.lent(account, 1, 0, 1000):
            pass
    assert refused.value.code == "prepay"
    assert accounts._credit.debtor(payer) == journal.debtor(payer, later)
    journal.close()


async def test_a_receipt_has_two_vouchers_at_most_on_disk(tmp_path: Path) -> None:
    """The first that names it, which statements show, and the latest, which counts."""
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    journal.add_order(CHANNEL, order(1), NOW)
    claim = receipt(order(1), 0, 100)
    await accounts.claim(account, order(1).record, claim, 100)
    first = voucher(claim.id, 100)
    for due_ucr in range(100, 120):
        await accounts.honour(account, voucher(claim.id, due_ucr))
    assert (account.state.promised_ucr, vouchers_on_disk(tmp_path)) == (119, 2)
    assert [row.voucher for row in earnings(tmp_path)] == [first.id]
    assert (await Accounts(journal, lambda: NOW).open(CHANNEL)).state == account.state
    journal.close()


async def test_credit_counts_what_was_taken_without_paying_and_what_may_still_come(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    accounts = Accounts(journal, lambda: NOW)
    account = await accounts.open(CHANNEL)
    await accounts.claim(account, order(1).record, receipt(order(1), 0, 600), 600)
    with account.reserved(300):
        assert account.room_ucr == 100
        with pytest.raises(Refused) as refused, account.reserved(101):
            pass
        assert refused.value.code == "credit_exhausted"
    assert account.room_ucr == 400
    journal.close()


async def test_channels_with_more_receipts_than_are_kept_at_hand_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.node.accounts.CLAIMS_MAX", 2)
    journal = Journal(tmp_path)
    accounts, job = Accounts(journal, lambda: NOW), order(1)
    account = await accounts.open(CHANNEL)
    await accounts.accept(account, job)
    for number in range(2):
        assert await accounts.open(CHANNEL) is account
        claim = receipt(job, number, 10 * (number + 1))
        await accounts.claim(account, job.record, claim, 10)
        await accounts.honour(account, voucher(claim.id, 10 * (number + 1)))
    other = sign(replace(CHANNEL.record, nonce=bytes([1] * 16)), PAYER)
    await accounts.open(other)
    again = await accounts.open(CHANNEL)
    assert again is not account and again.state == account.state
    journal.close()


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_journal import CHANNEL, NOW, Claim, order, receipt, voucher
from fallow.node.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(100_000):
    job = order(number)
    claim = receipt(job, 0, 1)
    journal.add_order(CHANNEL, job, NOW)
    journal.add_receipt(claim, CHANNEL.id, Claim(1), NOW)
    print("receipt", claim.id.hex(), flush=True)
    promise = voucher(claim.id, number + 1)
    journal.add_voucher(promise, NOW)
    print("voucher", promise.id.hex(), flush=True)
"""


@pytest.mark.spec("P-16")
def test_what_was_said_to_be_on_disk_is_there_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().split() for _ in range(51)]
        writer.kill()
        said += [line.split() for line in writer.stdout]
    rows = earnings(tmp_path)
    assert {bytes.fromhex(word[1]) for word in said if word[0] == "receipt"} <= {row.receipt for row in rows}
    promised = {row.voucher for row in rows}
    assert {bytes.fromhex(word[1]) for word in said if word[0] == "voucher"} <= promised
    Journal(tmp_path).close()


_OF_VERSION_5 = """
DROP TABLE vouchers;
CREATE TABLE vouchers (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL, receipt BLOB NOT NULL, due_ucr INTEGER NOT NULL,
    held_ucr INTEGER NOT NULL, forfeited_ucr INTEGER NOT NULL, release_at_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT;
CREATE INDEX vouchers_channel ON vouchers (channel);
CREATE INDEX vouchers_receipt ON vouchers (receipt);
PRAGMA user_version = 5;
"""


def test_what_was_earned_by_vouchers_with_one_release_stays_in_the_books(tmp_path: Path) -> None:
    journal, paid = Journal(tmp_path), [receipt(order(1), number, 100 * (number + 1)) for number in range(2)]
    journal.add_order(CHANNEL, order(1), NOW)
    for each in paid:
        journal.add_receipt(each, CHANNEL.id, Claim(100, 50, NOW + 100), NOW)
    journal.close()
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db:
        db.executescript(_OF_VERSION_5)
        for number, (due, held) in enumerate(((50, 50), (150, 50))):
            row = (bytes([number]), CHANNEL.id, paid[number].id, due, held, 0, NOW + 100, NOW, b"of its version")
            db.execute("INSERT INTO vouchers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.commit()
    Journal(tmp_path).close()
    for now_ms, held_ucr in ((NOW, 50), (NOW + 100 + SKEW_MS, 0)):
        rows = earnings(tmp_path, now_ms)
        assert [(row.voucher, row.paid_ucr, row.held_ucr) for row in rows] == [
            (b"\x00", 100, 0),
            (b"\x01", 100, held_ucr),
        ]


def test_a_journal_whose_node_was_not_started_since_is_old_and_not_damaged(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        journal.add_order(CHANNEL, order(1), NOW)
        journal.add_receipt(receipt(order(1), 0, 100), CHANNEL.id, Claim(100, 50, NOW + 100), NOW)
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db:
        db.executescript(_OF_VERSION_5)
    with pytest.raises(StoreError, match="start the node once"):
        earnings(tmp_path)
    Journal(tmp_path).close()
    assert len(earnings(tmp_path)) == 1


def _overwritten(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def _page_damaged(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(os.urandom(4096))


def _of_another_version(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize("damage", [_overwritten, _page_damaged, _of_another_version])
def test_a_damaged_journal_is_said_and_kept(tmp_path: Path, damage: object) -> None:
    journal = Journal(tmp_path)
    for number in range(50):
        journal.add_order(CHANNEL, order(number), NOW)
    journal.close()
    path = tmp_path / JOURNAL
    damage(path)  # type: ignore[operator]
    damaged = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Journal(tmp_path)
    assert error.value.code == "corrupt_store"
    assert str(path) in error.value.message
    assert path.read_bytes() == damaged


def test_earnings_read_while_the_node_writes(tmp_path: Path) -> None:
    assert earnings(tmp_path) == []
    journal = Journal(tmp_path)
    job = order(1)
    journal.add_order(CHANNEL, job, NOW)
    assert earnings(tmp_path) == []
    journal.add_receipt(receipt(job, 0, 7), CHANNEL.id, Claim(7), NOW)
    (row,) = earnings(tmp_path)
    assert (row.owed_ucr, row.tokens, row.entry, row.voucher) == (7, 32, "generate", None)
    journal.close()


ARRIVED, LOST, REFUSED = "arrived", "lost", "refused"
"""What became of a receipt's voucher: it is here, it was signed and never came, or it was never signed."""


def booked(state: Path, fates: list[tuple[str, int]]) -> list[tuple[bool, int]]:
    """For each receipt, whether a voucher names it and what of it is paid, by the journal."""
    journal = Journal(state)
    promised = 0
    for number, (fate, owed_ucr) in enumerate(fates):
        job = order(number)
        claim = receipt(job, 0, owed_ucr)
        journal.add_order(CHANNEL, job, NOW)
        journal.add_receipt(claim, CHANNEL.id, Claim(owed_ucr), NOW + number)
        promised += owed_ucr * (fate != REFUSED)
        if fate == ARRIVED:
            journal.add_voucher(voucher(claim.id, promised), NOW)
    journal.close()
    return [(row.voucher is not None, row.paid_ucr) for row in earnings(state)]


def test_what_a_later_voucher_covers_is_earned(tmp_path: Path) -> None:
    fates = [(LOST, 10), (LOST, 20), (ARRIVED, 30), (LOST, 40)]
    assert booked(tmp_path, fates) == [(False, 10), (False, 20), (True, 30), (False, 0)]


def test_what_was_refused_stays_unpaid_when_later_work_is_paid(tmp_path: Path) -> None:
    assert booked(tmp_path, [(REFUSED, 10), (ARRIVED, 30), (REFUSED, 5)]) == [(False, 0), (True, 30), (False, 0)]


@settings(max_examples=40, deadline=None)  # each example syncs to the disk
@given(st.lists(st.tuples(st.sampled_from([ARRIVED, LOST, REFUSED]), st.integers(0, 80)), max_size=12))
def test_earned_is_what_the_best_voucher_promises(fates: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as state:
        rows = booked(Path(state), fates)
    promised = list(accumulate(owed_ucr * (fate != REFUSED) for fate, owed_ucr in fates))
    best = max((total for (fate, _), total in zip(fates, promised, strict=True) if fate == ARRIVED), default=0)
    assert sum(paid for _, paid in rows) == best
    assert all(paid == owed for (named, paid), (_, owed) in zip(rows, fates, strict=True) if named)
    assert all(0 <= paid <= owed for (_, paid), (_, owed) in zip(rows, fates, strict=True))


async def test_channels_do_not_pay_for_one_another(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    other = sign(replace(CHANNEL.record, nonce=bytes([1] * 16)), PAYER)
    for number, channel in enumerate((CHANNEL, other)):
        job = order(number)
        journal.add_order(channel, job, NOW)
        journal.add_receipt(receipt(job, 0, 10), channel.id, Claim(10), NOW)
    journal.add_voucher(voucher(receipt(order(0), 0, 10).id, 50), NOW)
    assert sorted(row.paid_ucr for row in earnings(tmp_path)) == [0, 10]
    journal.close()


def test_a_journal_of_the_version_before_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_order(CHANNEL, order(1), NOW)
    journal.close()
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db, db:
        db.executescript(
            f"{_OF_VERSION_5}"
            "DROP TABLE payments; DROP TABLE fees; DROP INDEX channels_payer; DROP INDEX receipts_issued;"
            "DROP INDEX orders_channel;"
            "PRAGMA user_version = 2;"
        )
    assert debts(tmp_path) == []
    journal = Journal(tmp_path)
    with pytest.raises(Refused):
        journal.add_order(CHANNEL, order(1), NOW)
    assert journal.add_payment(Payment(bytes(32), bytes(PAYER.verify_key), "bank", 5, 0, "x", NOW))
    journal.close()
    assert [debt.open_ucr for debt in debts(tmp_path)] == [-5]


def test_a_fee_of_a_journal_of_version_4_is_booked_once_when_it_is_told_again(tmp_path: Path) -> None:
    payer = bytes(PAYER.verify_key)
    Journal(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as db, db:
        db.executescript(
            f"{_OF_VERSION_5}"
            "DROP TABLE fees; DROP INDEX orders_channel;"
            "CREATE TABLE fees (decision BLOB PRIMARY KEY, payer BLOB NOT NULL, ucr INTEGER NOT NULL,"
            " told_ms INTEGER NOT NULL) STRICT;"
            "CREATE INDEX fees_payer ON fees (payer); PRAGMA user_version = 4;"
        )
        db.execute("INSERT INTO fees VALUES (?, ?, 9, ?)", (bytes(32), payer, NOW))
    assert fees(tmp_path) == []
    with closing(Journal(tmp_path)) as journal:
        journal.add_fees(bytes([1]) * 32, {payer: 9}, NOW)
        assert journal.fees_ucr(payer) == 9
    assert fees(tmp_path) == [Fee(bytes([1]) * 32, payer, 9, NOW)]


def test_what_judges_say_is_booked_once_for_each_party(tmp_path: Path) -> None:
    payer, judge = bytes(PAYER.verify_key), bytes([5]) * 32
    with closing(Journal(tmp_path)) as journal:
        assert journal.add_fees(bytes(32), {payer: 9, judge: -3}, NOW) == {payer: 9, judge: -3}
        assert journal.add_fees(bytes(32), {payer: 6, bytes([6]) * 32: -3}, NOW) == {bytes([6]) * 32: -3}
        assert journal.fees_of(bytes(32)) == {payer: 9, judge: -3, bytes([6]) * 32: -3}
        assert (journal.fees_ucr(payer), journal.fees_ucr(judge)) == (9, 0)
        debtor = journal.debtor(payer, NOW)
        assert (debtor.owed_ucr, debtor.promised_ucr) == (9, 9)
        journal.add_payment(Payment(bytes(32), payer, "bank", 9, 0, "x", NOW))
    assert [(row.payer, row.owed_ucr, row.open_ucr) for row in debts(tmp_path)] == [(payer, 9, 0)]
