"""Killed at any write of either side's disk, and started again: no micro-credit is lost, and none is counted twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from fallow.node.earnings import Earning, earnings
from fallow.node.journal_file import JOURNAL
from fallow.protocol.envelope import verify_untrusted
from fallow.protocol.holding import total_ucr
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.payment import Voucher, follows

from .crashes import ONE_JOB_UCR
from .pair import CLIENT_KEY, PRICE

PROGRAM = Path(__file__).with_name("crashes.py")
WINDOW_UCR = WINDOW_TOKENS * PRICE.output_token_ucr + 3 * PRICE.input_token_ucr
"""The most that one window of these jobs comes to."""


@dataclass(frozen=True)
class Books:
    """What both sides have on disk after one run."""

    name: str
    kept: set[bytes]
    """Receipts in the wallet that were not refused."""
    answered: dict[bytes, int]
    """By the wallet's vouchers: what each adds for its receipt."""
    channels: set[bytes]
    """All that the wallet has opened: nothing may have been promised on one in which a job was lost."""
    vouchers: dict[bytes, list[Voucher]]
    """By channel, in the order in which they were signed."""
    received: dict[bytes, int]
    """By channel: the most that a voucher in the journal promises."""
    latest: dict[bytes, Voucher]
    """By channel: of those in the journal, the one that promises that."""
    earned: list[Earning]
    contradictions: int


@pytest.fixture(scope="module", params=["", "held", "roll"], ids=["all-due", "held", "roll"])
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Books]:
    folder, how = tmp_path_factory.mktemp("crashes"), [request.param] if request.param else []
    subprocess.run([sys.executable, str(PROGRAM), str(folder), *how], check=True, timeout=550)
    return [books_of(path) for path in sorted(folder.iterdir())]


def books_of(folder: Path) -> Books:
    with (
        closing(sqlite3.connect(folder / "wallet.db")) as wallet,
        closing(sqlite3.connect(folder / "node" / JOURNAL)) as node,
    ):
        vouchers: dict[bytes, list[Voucher]] = {}
        for channel, envelope in wallet.execute("SELECT channel, envelope FROM vouchers ORDER BY number"):
            vouchers.setdefault(channel, []).append(verify_untrusted(Voucher, envelope, signer=CLIENT_KEY).record)
        return Books(
            folder.name,
            {id for (id,) in wallet.execute("SELECT id FROM receipts WHERE NOT refused")},
            dict(wallet.execute("SELECT receipt, added_ucr FROM vouchers WHERE NOT restated")),
            {id for (id,) in wallet.execute("SELECT id FROM channels")},
            vouchers,
            dict(
                node.execute("SELECT channel, max(due_ucr + held_ucr + forfeited_ucr) FROM vouchers GROUP BY channel")
            ),
            {
                channel: verify_untrusted(Voucher, envelope, signer=CLIENT_KEY).record
                for channel, envelope in node.execute(
                    "SELECT channel, envelope FROM vouchers ORDER BY due_ucr + held_ucr + forfeited_ucr"
                )
            },
            earnings(folder / "node"),
            node.execute("SELECT count(*) FROM contradictions").fetchone()[0],
        )


@pytest.mark.parametrize("runs", ["", "held"], indirect=True)
def test_every_write_of_either_side_was_a_place_to_die(runs: list[Books]) -> None:
    places = [books.name.rpartition("-")[0] for books in runs]
    for victim, least in (("client", 20), ("node", 15)):
        assert len({place for place in places if place.startswith(victim)}) > least


@pytest.mark.spec("P-4", "P-24")
def test_what_was_promised_has_arrived_to_the_last_micro_credit(runs: list[Books]) -> None:
    for books in runs:
        assert books.received == {channel: latest[-1].promised_ucr for channel, latest in books.vouchers.items()}, (
            books.name
        )


@pytest.mark.parametrize("runs", ["held"], indirect=True)
def test_what_is_held_is_the_same_parts_on_both_sides(runs: list[Books]) -> None:
    """With a release each: half of each receipt's pay, whoever died where."""
    for books in runs:
        for channel, signed in books.vouchers.items():
            here, there = signed[-1], books.latest[channel]
            assert (here.due_ucr, here.held, here.forfeited_ucr) == (there.due_ucr, there.held, there.forfeited_ucr)
            assert total_ucr(here.held) == sum(added // 2 for added in books.answered.values()) > 0, books.name
        held = {row.receipt: row.held_ucr for row in books.earned if row.receipt in books.answered}
        assert sum(held.values()) == sum(total_ucr(signed[-1].held) for signed in books.vouchers.values()), books.name


@pytest.mark.spec("P-4", "P-3")
def test_each_receipt_was_answered_once_and_no_voucher_takes_anything_back(runs: list[Books]) -> None:
    for books in runs:
        assert books.kept == set(books.answered), books.name
        assert books.contradictions == 0
        for signed in books.vouchers.values():
            assert all(follows(later, earlier) for earlier, later in pairwise(signed)), books.name
        promised = sum(signed[-1].promised_ucr for signed in books.vouchers.values())
        assert promised == sum(books.answered.values()), books.name


@pytest.mark.spec("P-16")
def test_both_sides_count_the_same_for_the_same_receipts(runs: list[Books]) -> None:
    for books in runs:
        owed = {row.receipt: row.owed_ucr for row in books.earned}
        paid = {row.receipt: row.paid_ucr for row in books.earned}
        assert {receipt: owed[receipt] for receipt in books.answered} == books.answered, books.name
        assert {receipt: paid[receipt] for receipt in books.answered} == books.answered, books.name
        assert sum(paid.values()) == sum(books.received.values()), books.name


@pytest.mark.spec("J-29")
def test_what_nobody_was_told_of_is_two_windows_at_most(runs: list[Books]) -> None:
    """Receipts that their node wrote and that the client had not on disk when one of the two died."""
    for books in runs:
        untold = [row for row in books.earned if row.receipt not in books.kept]
        assert sum(row.owed_ucr for row in untold) <= 2 * WINDOW_UCR, books.name
        assert all(row.paid_ucr == 0 for row in untold), books.name


@pytest.mark.parametrize("runs", ["", "held"], indirect=True)
def test_a_client_goes_on_with_the_channel_that_its_predecessor_left(runs: list[Books]) -> None:
    for books in runs:
        assert len(books.vouchers) == 1, books.name


@pytest.mark.spec("P-5")
@pytest.mark.parametrize("runs", ["roll"], indirect=True)
def test_a_channel_that_is_spent_is_left_for_a_new_one_and_none_promises_more_than_its_limit(runs: list[Books]) -> None:
    """Whoever died where: before the new one was on disk, with the old one's last voucher on its way, or in between."""
    for books in runs:
        assert len(books.channels) > 1, books.name
        assert all(signed[-1].promised_ucr <= ONE_JOB_UCR for signed in books.vouchers.values()), books.name
