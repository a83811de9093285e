"""What the wallet keeps of verdicts that refute an executor, until judges have signed them or will not, or nothing is held."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from ..protocol.limits import HOLD_MS_MAX, MESSAGE_BYTES_MAX
from .wallet_disk import Statement

CASES_MAX: Final = 32
"""Kept at once, each with a proof that fits into one message: 128 MiB of disk at most. Whoever is refuted gets no more work, so
that so many at once are as many liars."""
PROOF_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 1024
"""In one message, with what the question has around it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A verdict that is to be brought before judges."""

    id: bytes
    """The verdict's."""
    verdict: bytes
    """Its envelope."""
    proof: bytes
    """A `ProofFile` with openings, the verdict among its records."""
    channel: bytes
    """One of those on which what it refutes was ordered: whose process has it brings the case."""
    tries: int = 0


def case_kept(case: Case, now_ms: int) -> tuple[Statement, ...]:
    """The case is on disk beside its verdict, unless as many are as there may be."""
    return (
        cases_over(now_ms),
        (
            "INSERT OR IGNORE INTO cases (verdict, channel, at_ms, proof)"
            " SELECT ?, ?, ?, ? WHERE (SELECT count(*) FROM cases) < ?",
            (case.id, case.channel, now_ms, case.proof, CASES_MAX),
        ),
    )


def is_case(database: sqlite3.Connection, verdict: bytes) -> bool:
    """Whether the verdict waits for its judges."""
    return database.execute("SELECT 1 FROM cases WHERE verdict = ?", (verdict,)).fetchone() is not None


def case_noted(case: Case, next_ms: int) -> Statement:
    """It was tried so often, and is brought again then."""
    return "UPDATE cases SET tries = ?, next_ms = ? WHERE verdict = ?", (case.tries, next_ms, case.id)


def case_over(verdict: bytes) -> Statement:
    """Nothing more can come of it."""
    return "DELETE FROM cases WHERE verdict = ?", (verdict,)


def case_due(database: sqlite3.Connection, process: bytes, payer: bytes, now_ms: int) -> Case | None:
    """Of those on the process's channels that are due for a try, the one that was tried least."""
    row = database.execute(
        """SELECT v.id, v.envelope, proof, channel, tries FROM cases JOIN verdicts v ON v.id = verdict
           WHERE next_ms <= ? AND channel IN (SELECT id FROM channels WHERE process = ? AND payer = ?)
           ORDER BY tries, next_ms LIMIT 1""",
        (now_ms, process, payer),
    ).fetchone()
    return Case(*row) if row else None


def cases_over(now_ms: int) -> Statement:
    """For longer than a week nothing is held."""
    return "DELETE FROM cases WHERE at_ms < ?", (now_ms - HOLD_MS_MAX,)
