"""A judge's docket: disputes that were brought, what either side has shown, and what was decided. In SQLite.

What was shown holds plaintext. It goes once the decision is there; the decision stays, and what its loser owes for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..node.transaction import transaction
from ..protocol.disputes import Decision, Dispute, Plea
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused, StoreError
from ..protocol.grounds import DRAWN
from ..protocol.limits import DISPUTES_MAX

BUSY_S: Final = 5.0
"""For another process that holds the file, for milliseconds."""
OPEN_MAX: Final = 256
"""Disputes that are open at once, each with up to 4 MiB of what was shown: a gigabyte of disk."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS disputes (
    id BLOB PRIMARY KEY, envelope BLOB NOT NULL, claimant BLOB NOT NULL, accused BLOB NOT NULL, until_ms INTEGER NOT NULL,
    claimed BLOB NOT NULL, plea BLOB, answered BLOB NOT NULL DEFAULT x'', decision BLOB, loser BLOB,
    fee_ucr INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX IF NOT EXISTS disputes_accused ON disputes (accused) WHERE decision IS NULL;
CREATE INDEX IF NOT EXISTS disputes_loser ON disputes (loser);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One dispute, as far as it has come."""

    until_ms: int
    """When the accused's time to answer is over."""
    claimed: bytes
    """What the claimant has shown: an encoded `ProofFile`."""
    plea: bytes | None
    answered: bytes
    decision: bytes | None
    """Envelope of this judge's."""


class Docket:
    """The docket of one verifier. Methods are short, and block for a disk sync."""

    def __init__(self, path: Path) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)`."""
        self._path = path
        with self._explained():
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
                self._db.execute(setting)
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Everything is on disk."""
        self._db.close()

    def entry(self, dispute: bytes) -> Entry | None:
        """The dispute of this id; None if it was never brought."""
        with self._explained():
            row = self._db.execute(
                "SELECT until_ms, claimed, plea, answered, decision FROM disputes WHERE id = ?", (dispute,)
            ).fetchone()
        return Entry(*row) if row else None

    def open(self, dispute: Signed[Dispute], claimed: bytes, now_ms: int) -> Entry:
        """The dispute is on disk; again, by whoever, is no change.

        Raises `Refused(busy)` while as many are open as there may be, in all or against this key.
        """
        record = dispute.record
        if known := self.entry(dispute.id):
            return known
        with self._explained(), transaction(self._db):
            (all_open,) = self._db.execute("SELECT count(*) FROM disputes WHERE decision IS NULL").fetchone()
            (against,) = self._db.execute(
                "SELECT count(*) FROM disputes WHERE decision IS NULL AND accused = ?", (record.accused,)
            ).fetchone()
            if all_open >= OPEN_MAX or against >= DISPUTES_MAX:
                raise Refused(Code.BUSY, "As many disputes are open here as there may be.", record.answer_ms)
            until_ms = now_ms + record.answer_ms
            row = (dispute.id, dispute.envelope, dispute.signer, record.accused, until_ms, claimed)
            self._db.execute(
                "INSERT INTO disputes (id, envelope, claimant, accused, until_ms, claimed) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
        return Entry(until_ms, claimed, None, b"", None)

    def answer(self, plea: Signed[Plea], answered: bytes) -> None:
        """The first plea is on disk; a later one changes nothing."""
        with self._explained():
            self._db.execute(
                "UPDATE disputes SET plea = ?, answered = ? WHERE id = ? AND plea IS NULL AND decision IS NULL",
                (plea.envelope, answered, plea.record.dispute),
            )

    def decide(self, decision: Signed[Decision]) -> None:
        """The decision is on disk, and what was shown is not any more."""
        record = decision.record
        with self._explained():
            self._db.execute(
                """UPDATE disputes SET decision = ?, loser = ?, fee_ucr = ?, claimed = x'', answered = x''
                   WHERE id = ? AND decision IS NULL""",
                (decision.envelope, record.loser, share_ucr(record.fee_ucr), record.dispute),
            )

    def against(self, accused: bytes) -> tuple[bytes, ...]:
        """Envelopes of what this key has to answer, the most urgent first."""
        with self._explained():
            rows = self._db.execute(
                "SELECT envelope FROM disputes WHERE accused = ? AND decision IS NULL AND plea IS NULL"
                " ORDER BY until_ms LIMIT ?",
                (accused, DISPUTES_MAX),
            ).fetchall()
        return tuple(row[0] for row in rows)

    def fees_ucr(self, loser: bytes) -> int:
        """What this judge is owed by a key that has lost here, paid or not."""
        with self._explained():
            row = self._db.execute(
                "SELECT coalesce(sum(fee_ucr), 0) FROM disputes WHERE loser = ?", (loser,)
            ).fetchone()
        return int(row[0])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            message = f"The docket {self._path} cannot be used: {error}. Nothing in it was removed."
            raise StoreError(Code.CORRUPT_STORE, message) from None


def share_ucr(fee_ucr: int) -> int:
    """Of a fee, one judge's part."""
    return fee_ucr // DRAWN
