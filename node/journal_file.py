"""The journal's file: its tables, how an older one is carried over, and looking into it while the node writes.

SQLite in WAL mode with full syncs: what was written survives a crash and a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..protocol.errors import Code, StoreError
from .private import database
from .transaction import is_full, read_only
from .voucher_rows import held_column_of_5, rank_column_of_5

JOURNAL = "journal.sqlite"
VERSION: Final = 6
BUSY_S: Final = 5.0
"""A reader (`fallow earnings`) holds the file for milliseconds."""

_SCHEMA = """
CREATE TABLE channels (
    id BLOB PRIMARY KEY, payer BLOB NOT NULL, envelope BLOB NOT NULL
) STRICT;
CREATE TABLE orders (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL, created_ms INTEGER NOT NULL, bundle BLOB NOT NULL, entry TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX orders_created ON orders (created_ms);
CREATE TABLE receipts (
    id BLOB PRIMARY KEY, order_id BLOB NOT NULL, channel BLOB NOT NULL, sequence INTEGER NOT NULL,
    first_token INTEGER NOT NULL, tokens INTEGER NOT NULL, owed_ucr INTEGER NOT NULL, held_ucr_max INTEGER NOT NULL,
    hold_until_ms INTEGER NOT NULL, issued_ms INTEGER NOT NULL, envelope BLOB NOT NULL, UNIQUE (order_id, sequence)
) STRICT;
CREATE INDEX receipts_channel ON receipts (channel);
CREATE TABLE contradictions (
    channel BLOB PRIMARY KEY, envelope BLOB NOT NULL
) STRICT;
CREATE TABLE grounds (
    id BLOB NOT NULL, kind TEXT NOT NULL, channel BLOB NOT NULL, ucr INTEGER NOT NULL, told_ms INTEGER NOT NULL,
    PRIMARY KEY (channel, kind, id)
) STRICT;
"""

_PAYMENTS = """
CREATE TABLE payments (
    id BLOB PRIMARY KEY, payer BLOB NOT NULL, rail TEXT NOT NULL, ucr INTEGER NOT NULL, fee_ucr INTEGER NOT NULL,
    reference TEXT NOT NULL, taken_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX payments_payer ON payments (payer);
CREATE INDEX channels_payer ON channels (payer);
CREATE INDEX receipts_issued ON receipts (issued_ms);
"""
"""Version 3 has these beside what version 2 had."""

_FEES = """
CREATE TABLE fees (
    matter BLOB NOT NULL, party BLOB NOT NULL, ucr INTEGER NOT NULL, told_ms INTEGER NOT NULL, PRIMARY KEY (matter, party)
) STRICT;
CREATE INDEX fees_party ON fees (party);
CREATE INDEX orders_channel ON orders (channel);
"""
"""Version 5 has these beside what version 3 had."""

_FROM_4 = f"""
DROP TABLE fees;
{_FEES}
"""
"""In version 4 a fee was known by its decision, not by its matter: kept, it would be booked twice when it is told again. (No
release has written that version.)"""

_VOUCHERS = """
CREATE TABLE vouchers (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL, receipt BLOB NOT NULL, due_ucr INTEGER NOT NULL,
    held_ucr INTEGER NOT NULL, forfeited_ucr INTEGER NOT NULL, held BLOB NOT NULL, rank BLOB NOT NULL,
    received_ms INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT;
CREATE INDEX vouchers_channel ON vouchers (channel);
CREATE INDEX vouchers_receipt ON vouchers (receipt);
"""
_TO_6 = f"""
DROP INDEX vouchers_channel;
DROP INDEX vouchers_receipt;
ALTER TABLE vouchers RENAME TO whole_vouchers;
{_VOUCHERS}
INSERT INTO vouchers SELECT id, channel, receipt, due_ucr, held_ucr, forfeited_ucr, held_of(held_ucr, release_at_ms),
    rank_of(due_ucr, held_ucr, forfeited_ucr, release_at_ms), received_ms, envelope FROM whole_vouchers ORDER BY rowid;
DROP TABLE whole_vouchers;
"""
"""Until version 5 all that a voucher held had one release. What was earned by such vouchers stays in the books; their channels
serve no more, since nobody reads them now."""

_FROM: Final = {2: (_PAYMENTS, _FEES), 3: (_FEES,), 4: (_FROM_4,), 5: ()}
"""What a journal of an older version lacks before it is brought to version 6."""


class JournalFile:
    """The file of one state directory, open for writing. Methods block for a disk sync, and belong in one writer thread at a
    time."""

    def __init__(self, state: Path) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)` for a damaged file or another version."""
        self.path = state / JOURNAL
        with explained(self.path):
            self._db = database(self.path, BUSY_S)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._check()
            except sqlite3.Error:
                self._db.close()
                raise

    def close(self) -> None:
        """Everything is in the one file."""
        self._db.close()

    def _check(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            self._run(_SCHEMA, _VOUCHERS, _PAYMENTS, _FEES)
        elif version in _FROM:
            self._db.create_function("held_of", 2, held_column_of_5)
            self._db.create_function("rank_of", 4, rank_column_of_5)
            self._run(*_FROM[version], _TO_6)
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
        problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)

    def _run(self, *scripts: str) -> None:
        self._db.executescript(f"BEGIN; {' '.join(scripts)} PRAGMA user_version = {VERSION}; COMMIT;")


@contextmanager
def reading(state: Path) -> Iterator[sqlite3.Connection | None]:
    """The journal of the state directory, for reading; None if there is none."""
    path = state / JOURNAL
    if not path.exists():
        yield None
        return
    with explained(path), read_only(path, BUSY_S) as db:
        try:
            yield db
        except sqlite3.Error:
            if db.execute("PRAGMA user_version").fetchone()[0] not in _FROM:
                raise
            message = (
                f"The journal {path} is of an older version: start the node once, which carries it over, and try again."
            )
            raise StoreError(Code.CORRUPT_STORE, message) from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite finds wrong with the file is said as one sentence; the file is left as it is."""
    try:
        yield
    except sqlite3.Error as error:
        message = f"The journal {path} cannot be used: {error}. Nothing in it was changed or removed."
        raise StoreError(Code.STORE_FULL if is_full(error) else Code.CORRUPT_STORE, message) from None
