"""A judge's docket: disputes that were brought, what either side has shown, and what was decided. In SQLite.

What was shown holds plaintext. It goes once the decision is there; the decision stays for as long as anybody may bring the same
matter again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..node.private import database
from ..node.transaction import transaction
from ..protocol.disputes import Decision, Dispute, Plea, matter_id
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused, StoreError
from ..protocol.limits import DISPUTES_MAX, HOLD_MS_MAX, SKEW_MS

VERSION: Final = 2
BUSY_S: Final = 5.0
"""For another process that holds the file, for milliseconds."""
OPEN_MAX: Final = 256
"""Disputes that are open at once, each with up to 4 MiB of what was shown: a gigabyte of disk."""
STRANGERS_MAX: Final = OPEN_MAX // 2
"""Of those, what all may bring together who have never paid this judge: keys are free, and so are one's own nodes' receipts."""
CLAIMANT_MAX: Final = 8
"""And one claimant."""
KEPT_MS: Final = 2 * (HOLD_MS_MAX + SKEW_MS)
"""What was decided: an order may be taken before judges for a week, and its accused have another one to answer."""
FETCHED_MS: Final = 24 * 3600 * 1000
"""After the accused's time, for the claimant to hear what it comes to. Then it makes place, and may be brought again."""

_SCHEMA = """
CREATE TABLE disputes (
    id BLOB PRIMARY KEY, matter BLOB NOT NULL UNIQUE, envelope BLOB NOT NULL, claimant BLOB NOT NULL, accused BLOB NOT NULL,
    stranger INTEGER NOT NULL, opened_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, claimed BLOB NOT NULL, plea BLOB,
    answered BLOB NOT NULL DEFAULT x'', decision BLOB,
    closed INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX disputes_accused ON disputes (accused) WHERE decision IS NULL;
CREATE INDEX disputes_open ON disputes (claimant) WHERE decision IS NULL;
CREATE INDEX disputes_opened ON disputes (opened_ms);
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
    """The docket of one verifier. Methods are short, and block for a disk sync: for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)`."""
        self._path = path
        with self._explained():
            self._db = database(path, BUSY_S)
            for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
                self._db.execute(setting)
            self._check()

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

    def open(self, dispute: Signed[Dispute], claimed: bytes, now_ms: int, *, stranger: bool) -> Entry:
        """The dispute is on disk; again, by whoever, is no change. `stranger`: the claimant has never paid this judge.

        Raises `Refused`: `replayed` for another one of the same matter; `busy` while as many are open as there may be, in all,
        of strangers, of this claimant, or against this key.
        """
        record = dispute.record
        if known := self.entry(dispute.id):
            return known
        with self._explained(), transaction(self._db):
            self._db.execute("DELETE FROM disputes WHERE opened_ms < ?", (now_ms - KEPT_MS,))
            self._db.execute("DELETE FROM disputes WHERE decision IS NULL AND until_ms < ?", (now_ms - FETCHED_MS,))
            matter = matter_id(record)
            if self._db.execute("SELECT 1 FROM disputes WHERE matter = ?", (matter,)).fetchone():
                raise Refused(Code.REPLAYED, "The order was brought here before, and about this: once is all.")
            self._check_room(dispute, stranger)
            until_ms = now_ms + record.answer_ms
            row = (
                dispute.id, matter, dispute.envelope, dispute.signer, record.accused, int(stranger), now_ms, until_ms, claimed,
            )  # fmt: skip
            self._db.execute(
                "INSERT INTO disputes (id, matter, envelope, claimant, accused, stranger, opened_ms, until_ms, claimed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return Entry(until_ms, claimed, None, b"", None)

    def answer(self, plea: Signed[Plea], answered: bytes) -> None:
        """The first plea is on disk; a later one, or one after the hearing was closed, changes nothing."""
        with self._explained():
            self._db.execute(
                "UPDATE disputes SET plea = ?, answered = ? WHERE id = ? AND plea IS NULL AND decision IS NULL"
                " AND NOT closed",
                (plea.envelope, answered, plea.record.dispute),
            )

    def close_hearing(self, dispute: bytes) -> None:
        """No plea is taken any more: whoever is told that there was none is told so for good."""
        with self._explained():
            self._db.execute("UPDATE disputes SET closed = 1 WHERE id = ? AND NOT closed", (dispute,))

    def decide(self, decision: Signed[Decision], plea: bytes | None) -> None:
        """The decision is on disk, and what was shown is not any more; no change if there was one, or the plea is not this."""
        with self._explained():
            self._db.execute(
                "UPDATE disputes SET decision = ?, claimed = x'', answered = x''"
                " WHERE id = ? AND decision IS NULL AND plea IS ?",
                (decision.envelope, decision.record.dispute, plea),
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

    def _check_room(self, dispute: Signed[Dispute], stranger: bool) -> None:
        record = dispute.record
        (in_all, strangers, own, against) = self._db.execute(
            """SELECT count(*), coalesce(sum(stranger), 0), coalesce(sum(claimant = ?), 0), coalesce(sum(accused = ?), 0)
               FROM disputes WHERE decision IS NULL""",
            (dispute.signer, record.accused),
        ).fetchone()
        if in_all >= OPEN_MAX or own >= CLAIMANT_MAX or against >= DISPUTES_MAX:
            raise Refused(Code.BUSY, "As many disputes are open here as there may be.", record.answer_ms)
        if stranger and strangers >= STRANGERS_MAX:
            message = (
                "As many disputes of strangers are open here as there may be: who has paid this judge before is heard."
            )
            raise Refused(Code.BUSY, message, record.answer_ms)

    def _check(self) -> None:
        """The tables are of this version. What an older one had open can be brought again."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
        self._db.executescript(
            f"BEGIN; DROP TABLE IF EXISTS disputes; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            message = f"The docket {self._path} cannot be used: {error}. Nothing in it was removed."
            raise StoreError(Code.CORRUPT_STORE, message) from None
