"""What a member of a feeder must not forget: the rosters, the leases that it gave, those that it holds. SQLite, fully synced.

Whoever forgets what it lent draws what others draw, too. So a file that is new, or had to be begun anew, says when that was:
until no lease from before can be in force, the member counts all of its share as lent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from nacl.signing import SigningKey

from ...protocol.envelope import claimed_signer_untrusted, verify_untrusted
from ...protocol.errors import Code, RemoteProtocolError, StoreError
from ...protocol.grid import FeederLease
from ...protocol.limits import LEASE_MS_MAX, SKEW_MS
from .. import private
from ..transaction import transaction
from .member import FORGET_MS, Member

LEDGER: Final = "feeder.sqlite"
SET_ASIDE: Final = ".damaged"
BUSY_S: Final = 5.0
FORGOT_MS: Final = LEASE_MS_MAX + 2 * SKEW_MS
"""After the file's beginning: a lease signed a moment before is over by any clock."""
ROSTER, GIVEN, HELD = "roster", "given", "held"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS begun (made_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS records (
    id BLOB PRIMARY KEY, kind TEXT NOT NULL, feeder TEXT NOT NULL, until_ms INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT;
"""


class Ledger:
    """One open file, for any thread: one at a time. Every method may raise `StoreError`."""

    def __init__(self, path: Path, now_ms: int) -> None:
        """The file is there. One that cannot be read is set aside, and another begun."""
        self.path = path
        self._turn = Lock()
        try:
            self._db = _opened(path, now_ms)
        except sqlite3.DatabaseError:
            with suppress(OSError):
                path.replace(path.with_name(path.name + SET_ASIDE))
            with self._told():
                self._db = _opened(path, now_ms)

    def close(self) -> None:
        """It is closed."""
        self._db.close()

    def member(self, key: SigningKey, grid_key: bytes, feeder: str, now_ms: int) -> Member:
        """The member as it was when it last stored anything."""
        with self._told():
            made_ms = self._db.execute("SELECT made_ms FROM begun").fetchone()[0]
            rows = self._db.execute(
                "SELECT kind, envelope FROM records WHERE feeder = ? ORDER BY kind = 'roster' DESC, until_ms, id",
                (feeder,),
            ).fetchall()
        member = Member(key, grid_key, feeder, made_ms + FORGOT_MS)
        for kind, envelope in rows:
            with suppress(RemoteProtocolError):  # it is over, or was proof: what counts is found in the others
                if kind == ROSTER:
                    member.take_roster_untrusted(envelope, now_ms)
                elif kind == GIVEN:
                    member.given.append(verify_untrusted(FeederLease, envelope, signer=member.key))
                else:
                    member.take_lease_untrusted(claimed_signer_untrusted(envelope), envelope, now_ms)
        return member

    def keep(self, kind: str, feeder: str, number: bytes, envelope: bytes, expires_ms: int) -> None:
        """The record survives a crash and a power cut."""
        with self._told(), transaction(self._db):
            row = (number, kind, feeder, expires_ms + FORGET_MS, envelope)
            self._db.execute("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?)", row)

    def forget(self, now_ms: int) -> None:
        """What no clock takes any more is gone."""
        with self._told(), transaction(self._db):
            self._db.execute("DELETE FROM records WHERE until_ms <= ?", (now_ms,))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with self._turn:
                yield
        except sqlite3.Error as error:
            why = f"{self.path} cannot be used: {error}. Nothing more is lent or borrowed until it can."
            raise StoreError(Code.CORRUPT_STORE, why) from None


def _opened(path: Path, now_ms: int) -> sqlite3.Connection:
    database = private.database(path, BUSY_S)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        with transaction(database):
            if database.execute("SELECT count(*) FROM begun").fetchone()[0] == 0:
                database.execute("INSERT INTO begun VALUES (?)", (now_ms,))
    except BaseException:
        database.close()
        raise
    return database
