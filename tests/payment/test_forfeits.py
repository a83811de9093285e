"""What judges take back of held pay is taken back once, on both sides, whoever is killed at whatever write, and whichever comes
first: the ground, or the voucher that rests on it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from fallow.client.wallet import Wallet
from fallow.node.debts import debts
from fallow.node.earnings import dues
from fallow.node.journal_file import JOURNAL
from fallow.node.rails.ledger import Entry
from fallow.protocol.disputes import reference_of, share_ucr
from fallow.protocol.holding import total_ucr
from fallow.protocol.limits import HOLD_MS_MAX
from fallow.protocol.payment import follows

from .forfeit_crashes import FEE_UCR, SEATS
from .ledger_crashes import client_ledger, node_ledger
from .pair import CLIENT, CLIENT_KEY, NODE_KEY, NOW_MS, OWNER_KEY
from .test_crashes import Books, books_of

PROGRAM = Path(__file__).with_name("forfeit_crashes.py")
ALL_DUE_MS = NOW_MS + 2 * HOLD_MS_MAX


@dataclass(frozen=True)
class Run:
    """What both sides have on disk in the end."""

    books: Books
    found_ucr: int
    """What may be forfeited, of what the vouchers before the one that rests on the ground hold: what is held later is not."""
    taken: list[int]
    """By the wallet."""
    grounds: list[int]
    """By the journal."""
    told: bool
    owed: dict[bytes, int]
    promised: list[int]
    due: list[int]
    """By the journal, once nothing is held any more."""
    matter: bytes
    """By which it was told."""
    of_client: list[Entry]
    of_node: list[Entry]
    """In either ledger, of the other, where there are any."""
    to_judges: list[tuple[int, int]]
    """What each owes the client, and is owed."""


@pytest.fixture(scope="module", params=["", "late", "decided"], ids=["ground-first", "voucher-first", "decided"])
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Run]:
    folder, how = tmp_path_factory.mktemp("forfeits"), [request.param] if request.param else []
    subprocess.run([sys.executable, str(PROGRAM), str(folder), *how], check=True, timeout=550)
    return [run_of(path) for path in sorted(folder.iterdir())]


def run_of(folder: Path) -> Run:
    books, node = books_of(folder), folder / "node"
    with closing(sqlite3.connect(folder / "wallet.db")) as wallet, closing(sqlite3.connect(node / JOURNAL)) as journal:
        before = wallet.execute(
            """SELECT added_ucr FROM vouchers WHERE NOT restated
               AND number < (SELECT min(number) FROM vouchers WHERE restated)"""
        ).fetchall()
        taken = [ucr for (ucr,) in wallet.execute("SELECT ucr FROM forfeits")]
        ((matter, told, most),) = wallet.execute("SELECT matter, told, most_ucr FROM telling").fetchall()
        grounds = [ucr for (ucr,) in journal.execute("SELECT ucr FROM grounds")]
    with closing(Wallet(folder / "wallet.db", CLIENT)) as opened:
        owed = opened.owed_by_owner()
    promised = [debt.promised_ucr for debt in debts(node, NOW_MS)]
    due = [ucr for *_, ucr in dues(node, CLIENT_KEY, ALL_DUE_MS)]
    ledgers: tuple[list[Entry], list[Entry], list[tuple[int, int]]] = ([], [], [])
    if (folder / "client-ledger.sqlite").exists():
        with closing(client_ledger(folder)) as ours, closing(node_ledger(folder)) as theirs:
            judges = [ours.owed_ucr(bytes(seat.verify_key)) for seat in SEATS]
            ledgers = (ours.entries(NODE_KEY), theirs.entries(CLIENT_KEY), judges)
    found_ucr = min(most, sum(added // 2 for (added,) in before))
    return Run(books, found_ucr, taken, grounds, bool(told), owed, promised, due, matter, *ledgers)


def test_who_tells_it_has_died_around_it_and_who_is_told(runs: list[Run]) -> None:
    """A node knows nothing of which comes first: where vouchers do, the client alone dies."""
    victims = Counter(run.books.name.split("-")[0] for run in runs)
    assert victims["client"] > 12
    assert "node" not in victims or victims["node"] > 8


@pytest.mark.spec("P-18", "P-19")
def test_what_was_held_then_is_forfeited_once_on_both_sides_and_the_node_knows(runs: list[Run]) -> None:
    for run in runs:
        assert run.taken == run.grounds == [run.found_ucr], run.books.name
        assert run.found_ucr > 0 and run.told, run.books.name


@pytest.mark.spec("P-4", "P-24")
def test_every_micro_credit_is_due_held_or_forfeited_and_both_sides_say_which(runs: list[Run]) -> None:
    for run in runs:
        books, ((channel, signed),) = run.books, run.books.vouchers.items()
        here, there = signed[-1], books.latest[channel]
        assert (here.due_ucr, here.held, here.forfeited_ucr) == (there.due_ucr, there.held, there.forfeited_ucr)
        assert here.forfeited_ucr == run.found_ucr, books.name
        assert here.due_ucr + total_ucr(here.held) + here.forfeited_ucr == sum(books.answered.values()), books.name
        assert all(follows(later, earlier) for earlier, later in pairwise(signed)), books.name
        assert books.contradictions == 0


@pytest.mark.spec("P-16")
def test_both_sides_come_to_the_same_debt_less_what_was_forfeited(runs: list[Run]) -> None:
    for run in runs:
        earned = run.books.earned
        left_ucr = sum(run.books.answered.values()) - run.found_ucr
        assert run.owed == {OWNER_KEY: left_ucr}, run.books.name
        assert run.promised == [left_ucr] == [sum(row.paid_ucr for row in earned)], run.books.name
        assert sum(row.forfeited_ucr for row in earned) == run.found_ucr, run.books.name
        assert run.due == [left_ucr], run.books.name


def test_the_channel_is_of_use_afterwards(runs: list[Run]) -> None:
    """A voucher that forfeits is refused until the ground is known (P-11): it may not stay so."""
    for run in runs:
        books, ((channel, signed),) = run.books, run.books.vouchers.items()
        assert books.kept <= set(books.answered) | {signed[-1].receipt}, books.name
        assert books.received == {channel: signed[-1].promised_ucr}, books.name


@pytest.mark.parametrize("runs", ["decided"], indirect=True)
def test_the_fee_is_owed_once_and_set_off_and_each_judge_is_owed_its_part(runs: list[Run]) -> None:
    for run in runs:
        fee = reference_of(run.matter)
        ours = sorted((each.reference, each.theirs_ucr, each.ours_ucr) for each in run.of_client)
        assert ours == sorted((each.reference, each.ours_ucr, each.theirs_ucr) for each in run.of_node), run.books.name
        assert [each.ours_ucr for each in run.of_client if each.reference == fee] == [FEE_UCR], run.books.name
        assert sum(each.ours_ucr for each in run.of_client) == 0, run.books.name
        assert run.to_judges == [(0, share_ucr(FEE_UCR))] * len(SEATS), run.books.name
