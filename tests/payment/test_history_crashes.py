"""A client that is killed at any write forgets no fault that was proven, counts no result twice, and loses nothing that it has
taken unchecked before that was looked at.

Its history and its wallet are two files: no write is in both. So what is to be looked at is in the history before it is paid;
a result that was confirmed is kept before it counts, and counts before it is paid: who is killed in between has it checked once
more, or pays it when it comes back. A fault is in the history before the wallet's list of those who are not dealt with, which
is made whole from it before anything that was open is paid; and what proved it is off the list of what is still to be looked at
in the same transaction as the fault is on disk. What was received and not judged when the process died is paid, and nobody
looks at it: its text died with the process. What is in memory alone may be lost: which checkers are due for a spot check, which
chance draws anew, and a verdict that no judge has been asked about yet.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fallow.client.history import History
from fallow.node.journal_file import JOURNAL
from fallow.node.log import wall_ms
from fallow.protocol.envelope import verify_untrusted
from fallow.protocol.identity import CHECKER, EXECUTOR
from fallow.protocol.orders import JobOrder
from fallow.protocol.receipts import Receipt

from .history_crashes import COUSIN, FOUND, RECORD
from .village import CLIENT, ERIN, LIE, RESIDENTS

PROGRAM = Path(__file__).with_name("history_crashes.py")
PAYER = bytes(CLIENT.verify_key)


@dataclass(frozen=True)
class Run:
    """What is on disk in the end, and what the successor found."""

    name: str
    taken_over: set[bytes]
    """Receipts that the successor found open, and has paid."""
    at_fault_then: set[bytes]
    distrusted: set[bytes]
    faults: Counter[bytes]
    """By node."""
    kept: set[bytes]
    left: list[bytes]
    """Owners at fault on whose word something rests still."""
    counted: dict[tuple[bytes, str], tuple[int, int]]
    """By node and role: valid in a row, and checked at all."""
    written: dict[bytes, Receipt]
    """Erin's receipts, as the wallet has them."""
    paid: dict[bytes, int]
    open: set[bytes]
    checks: dict[bytes, set[bytes]]
    """By receipt: who has delivered a check of it."""
    delivered: Counter[bytes]
    """By node: how many checks."""
    promised: dict[bytes, int]
    """By node, as the wallet has it."""
    received: dict[bytes, int]
    """By node, as its journal has it."""


@pytest.fixture(scope="module", params=["friends", "liar"])
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Run]:
    folder = tmp_path_factory.mktemp("histories")
    subprocess.run([sys.executable, str(PROGRAM), str(folder), request.param], check=True, timeout=550)
    return [run_of(path) for path in sorted(folder.iterdir())]


def run_of(folder: Path) -> Run:
    found = {name: set(map(bytes.fromhex, ids)) for name, ids in json.loads((folder / FOUND).read_text()).items()}
    with closing(sqlite3.connect(folder / "wallet.db")) as db:
        paid = dict(db.execute("SELECT receipt, added_ucr FROM vouchers"))
        still = {id for (id,) in db.execute("SELECT id FROM receipts WHERE NOT refused")} - paid.keys()
        written = {
            id: verify_untrusted(Receipt, envelope, signer=ERIN.id).record
            for id, envelope in db.execute("SELECT id, envelope FROM receipts WHERE node = ?", (ERIN.id,))
        }
        promised = dict(
            db.execute("SELECT payee, sum(added_ucr) FROM vouchers v JOIN channels c ON c.id = channel GROUP BY payee")
        )
    path = folder / "history.sqlite"
    with closing(sqlite3.connect(path)) as db:
        faults = Counter(node for (node,) in db.execute("SELECT node FROM faults"))
        kept = {receipt for (receipt,) in db.execute("SELECT receipt FROM kept")}
        counted = {
            (node, role): (valid, checked)
            for node, role, valid, checked in db.execute("SELECT node, role, valid, checked FROM standings")
        }
    with closing(History(path)) as history:
        left = history.owners_at_fault(wall_ms())
    checks, delivered = dict[bytes, set[bytes]](), Counter[bytes]()
    received: dict[bytes, int] = {}
    for number, resident in enumerate(RESIDENTS):
        with closing(sqlite3.connect(folder / f"node-{number}" / JOURNAL)) as db:
            for checked in _checked(db):
                checks.setdefault(checked, set()).add(resident.id)
                delivered[resident.id] += 1
            query = "SELECT max(due_ucr + held_ucr + forfeited_ucr) FROM vouchers GROUP BY channel"
            if ucr := sum(most for (most,) in db.execute(query)):
                received[resident.id] = ucr
    return Run(
        folder.name, found["open"] & paid.keys(), found["at_fault"], found["distrusted"], faults, kept, left, counted,
        written, paid, still, checks, delivered, promised, received,
    )  # fmt: skip


def _checked(journal: Any) -> list[bytes]:
    """Receipts that this node has checked, as often as it did."""
    rows = journal.execute(
        "SELECT envelope FROM orders o WHERE entry = 'score' AND EXISTS (SELECT 1 FROM receipts WHERE order_id = o.id)"
    )
    orders = [verify_untrusted(JobOrder, envelope, signer=PAYER).record for (envelope,) in rows]
    return [order.checks for order in orders if order.checks]


def lies(run: Run) -> set[bytes]:
    """Erin's, but for what was received and not judged when the process died."""
    return {id for id, record in run.written.items() if LIE in record.values_micro} - run.taken_over


def test_there_were_many_places_to_die_and_each_story_has_its_end(runs: list[Run]) -> None:
    assert len(runs) > 20
    assert runs[-1].faults[ERIN.id] > 0 and not runs[-1].taken_over


def test_no_proven_fault_is_forgotten_or_counted_twice(runs: list[Run]) -> None:
    for run in runs:
        assert run.left == [], run.name
        found = [id for id in lies(run) - run.kept if id in run.paid or ERIN.id in run.faults]
        assert run.faults[ERIN.id] == len(found), run.name
        assert run.distrusted >= run.at_fault_then, run.name
        assert set(run.faults) <= {resident.id for resident in RESIDENTS}


def test_a_fault_makes_a_newcomer_of_every_node_of_its_owner(runs: list[Run]) -> None:
    for run in runs:
        for node in run.faults:
            assert all(run.counted.get((node, role), (0, 0))[0] == 0 for role in (EXECUTOR, CHECKER)), run.name
        if (COUSIN, EXECUTOR) in run.counted:
            assert run.counted[COUSIN, EXECUTOR] == (0 if ERIN.id in run.faults else RECORD, RECORD), run.name


def test_what_was_paid_lies_there_to_be_looked_at_until_more_than_one_have_checked_it(runs: list[Run]) -> None:
    for run in runs:
        assert len(run.taken_over & run.written.keys()) <= 1, run.name
        judged = (run.paid.keys() & run.written.keys()) - run.taken_over
        assert all(id in run.kept or len(run.checks.get(id, ())) > 1 for id in judged), run.name


def test_no_checked_result_counts_twice_and_none_that_is_not_kept_as_it_should_be(runs: list[Run]) -> None:
    for run in runs:
        for node in (resident.id for resident in RESIDENTS):
            assert run.counted.get((node, CHECKER), (0, 0))[1] <= run.delivered[node], run.name
        checked = run.written.keys() & run.checks.keys()
        borne_out = [id for id in checked if id in run.kept or len(run.checks[id]) > 1]
        assert run.counted.get((ERIN.id, EXECUTOR), (0, 0))[1] <= len(borne_out), run.name


def test_who_was_at_fault_when_the_process_died_is_not_paid_for_what_was_open(runs: list[Run]) -> None:
    for run in runs:
        if ERIN.id in run.at_fault_then:
            assert not run.taken_over & run.written.keys(), run.name


@pytest.mark.spec("P-4", "P-24")
def test_every_receipt_that_is_not_refused_was_answered_once_and_what_was_promised_has_arrived(runs: list[Run]) -> None:
    for run in runs:
        assert run.open <= run.written.keys(), run.name
        assert not run.open or ERIN.id in run.at_fault_then, run.name
        assert run.received == {node: ucr for node, ucr in run.promised.items() if ucr}, run.name
