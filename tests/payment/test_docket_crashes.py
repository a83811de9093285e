"""A judge that is killed at any write of its docket or its books says the same when it is asked again, and is owed for it once.

The decision is on the docket before it is charged for, and charged for before it is told: the charge goes into the books under
the matter's name, and into the ledger under the same, as often as anybody asks. So whoever has heard a decision owes its fee,
and a judge that was killed between the two charges for what stands on the docket, not for what it would decide today.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from fallow.node.paid import Fee, fees
from fallow.node.rails.ledger import Entry
from fallow.protocol.disputes import DISMISSED, UPHELD, Decision, matter_id, reference_of, share_ucr
from fallow.protocol.envelope import verify_untrusted

from ..client.test_tribunal import Bench
from ..verifier.test_disputes import FEE
from .docket_crashes import TOLD, ledger_of

ROOT = Path(__file__).parents[2]
ENDS = {"answered": DISMISSED, "silent": UPHELD}


@dataclass(frozen=True)
class Run:
    """What is on the judge's disk in the end, and what it has said."""

    name: str
    told: set[bytes]
    docket: list[tuple[bytes, bytes, bytes]]
    """Of each dispute: the decision, and what was shown that is still there."""
    fees: list[Fee]
    ledger: list[Entry]
    claimant: bytes
    matter: bytes
    outcome: str


@pytest.fixture(scope="module", params=list(ENDS))
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Run]:
    folder = tmp_path_factory.mktemp("dockets")
    words = [sys.executable, "-m", "tests.payment.docket_crashes", str(folder), request.param]
    subprocess.run(words, check=True, timeout=550, cwd=ROOT)
    bench = Bench(
        tmp_path_factory.mktemp("bench")
    )  # every one of them has the same key, and the same dispute before it
    with closing(bench.docket), closing(bench.journal):
        found = [run_of(bench, path) for path in sorted(folder.iterdir())]
    assert {run.outcome for run in found} == {ENDS[request.param]}
    return found


def run_of(bench: Bench, folder: Path) -> Run:
    told = set(map(bytes.fromhex, (folder / TOLD).read_text().split()))
    with closing(sqlite3.connect(folder / "docket.sqlite")) as db:
        docket = db.execute("SELECT decision, claimed, answered FROM disputes").fetchall()
    claimant = bench.dispute.signer
    with closing(ledger_of(bench, folder)) as ledger:
        entries = ledger.entries(claimant)
    decision = verify_untrusted(Decision, docket[0][0], signer=bytes(bench.key.verify_key)).record
    matter = matter_id(bench.dispute.record)
    return Run(folder.name, told, docket, fees(folder), entries, claimant, matter, decision.outcome)


def test_every_write_was_a_place_to_die(runs: list[Run]) -> None:
    assert len({run.name.partition("-")[0] for run in runs}) > 12


def test_it_says_the_same_whenever_it_is_asked_and_what_was_shown_is_gone(runs: list[Run]) -> None:
    for run in runs:
        ((decision, claimed, answered),) = run.docket
        assert run.told == {decision}, run.name
        assert claimed == answered == b"", run.name


def test_its_part_of_the_fee_is_owed_once_in_its_books_and_in_its_ledger(runs: list[Run]) -> None:
    for run in runs:
        assert [(fee.matter, fee.party, fee.ucr) for fee in run.fees] == [(run.matter, run.claimant, share_ucr(FEE))], (
            run.name
        )
        assert [(each.reference, each.ours_ucr, each.theirs_ucr) for each in run.ledger] == [
            (reference_of(run.matter), share_ucr(FEE), 0)
        ], run.name
