"""What this client has seen of whom: checked results in a row, faults, and work that was taken unchecked. In SQLite.

It is read where it lies, so that several processes of one home see the same, and written before anything follows from it:
a process that is killed has lost nothing that it acted on. What is lost with the power (some seconds) is at worst a node's
last good results, which are then checked once more.

The wallet is another file, and no write is in both. So a result is kept before it counts, and counts before it is paid; and a
fault is here before the wallet refuses to deal with the node, which follows from it whenever a client begins (`Auditor`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..node.private import database, folder
from ..node.transaction import transaction
from ..protocol.errors import Code, StoreError
from ..protocol.identity import EXECUTOR
from ..protocol.limits import HOLD_MS_MAX

HISTORY: Final = "history.sqlite"
BUSY_S: Final = 5.0
"""Another process's write takes milliseconds."""
STANDINGS_MAX: Final = 65_536
"""Nodes by bundle, precision and role, in some megabytes; whose last result is oldest gives way."""
KEPT_MAX: Final = 4096
"""Unchecked results that could still be looked at: what was held of them deters for as long."""
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of them all: prompts and answers of some thousand jobs. The oldest give way, and of what a checker has confirmed first."""
KEPT_MS: Final = HOLD_MS_MAX
"""After a week nothing of a result is held any more; and prompts should not lie around."""
ANCHOR: Final = 50
"""Valid checked results in a row, over all nodes of an owner, that make it somebody to rely on: to get so far it has
computed honestly for as long as some weeks of a newcomer's share of the work."""

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS standings (
    node BLOB NOT NULL, bundle BLOB NOT NULL, precision TEXT NOT NULL, role TEXT NOT NULL, owner BLOB NOT NULL,
    valid INTEGER NOT NULL, checked INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (node, bundle, precision, role)) STRICT;
CREATE INDEX IF NOT EXISTS standings_owner ON standings (owner);
CREATE INDEX IF NOT EXISTS standings_at ON standings (at_ms);
CREATE TABLE IF NOT EXISTS faults (
    owner BLOB NOT NULL, node BLOB NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS faults_owner ON faults (owner);
CREATE TABLE IF NOT EXISTS kept (
    receipt BLOB PRIMARY KEY, node BLOB NOT NULL, owner BLOB NOT NULL, bundle BLOB NOT NULL, precision TEXT NOT NULL,
    entry TEXT NOT NULL, envelope BLOB NOT NULL, parameters BLOB NOT NULL, work BLOB NOT NULL, piece BLOB NOT NULL,
    policy TEXT NOT NULL, nonce BLOB NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS kept_owner ON kept (owner);
CREATE INDEX IF NOT EXISTS kept_at ON kept (at_ms);
CREATE TABLE IF NOT EXISTS vouched (receipt BLOB PRIMARY KEY, owner BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS vouched_owner ON vouched (owner);
CREATE TABLE IF NOT EXISTS wrong (receipt BLOB PRIMARY KEY) STRICT;
"""
_COUNT = """
INSERT INTO standings VALUES (:node, :bundle, :precision, :role, :owner, :results, :results, :at_ms)
ON CONFLICT (node, bundle, precision, role) DO UPDATE SET
    valid = iif(owner = excluded.owner, valid, 0) + :results, checked = checked + :results,
    owner = excluded.owner, at_ms = excluded.at_ms
"""
_RESTS = "coalesce((SELECT owner FROM vouched WHERE vouched.receipt = kept.receipt), kept.owner)"
"""Whose word a kept result rests on: its executor's, or that of the one checker who confirmed it."""
_GIVE_WAY = """
DELETE FROM kept WHERE receipt IN (
    SELECT receipt FROM (
        SELECT receipt, row_number() OVER recent AS place, sum(length(work) + length(piece) + length(envelope)) OVER recent
            AS bytes FROM kept WINDOW recent AS (
            ORDER BY receipt IN (SELECT receipt FROM vouched), at_ms DESC, receipt)
    ) WHERE place > ? OR bytes > ?)
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose results are counted together: one node's, of one bundle, in one precision."""

    node: bytes
    owner: bytes
    bundle: bytes
    precision: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A result that rests on one owner's word, with all that it takes to check it still."""

    subject: Subject
    entry: str
    receipt: bytes
    """Envelope of the executor's receipt."""
    parameters: bytes
    work: bytes
    """As a checker would be given it, encoded."""
    piece: bytes
    """Of a call, the result that was taken, encoded; of a text, nothing: the receipt has the figures."""
    policy: str
    nonce: bytes
    """What its orders committed to: a later check belongs to the same work."""
    at_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What one node's record in one role comes to."""

    subject: Subject
    role: str
    valid: int
    """Checked results in a row that were borne out."""
    checked: int
    """All that were borne out, ever."""


def precision_of(numerics_class: str) -> str:
    """The first word of a class: what the weights were rounded to."""
    return numerics_class.partition("/")[0]


class History:
    """Made for one home or, without a path, for one process."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises `StoreError(corrupt_store)` for a file that cannot be used: to forget faults would be to trust anew."""
        try:
            if path is not None:
                folder(path.parent)
            self._db = database(path, BUSY_S)  # prompts lie in it
            self._db.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, OSError) as error:
            raise StoreError(
                Code.CORRUPT_STORE,
                f"The history {path} cannot be read ({error}); it was left as it is. Move it away to begin a new one:"
                " every node then counts as a newcomer.",
            ) from None

    def close(self) -> None:
        """What was written stays."""
        self._db.close()

    def valid(self, subject: Subject, role: str = EXECUTOR) -> int:
        """Consecutive valid checked results (CV); 0 for whoever is not known, or works for another owner by now."""
        row = self._one(
            "SELECT valid FROM standings WHERE (node, bundle, precision, role, owner) = (?, ?, ?, ?, ?)",
            subject.node, subject.bundle, subject.precision, role, subject.owner,
        )  # fmt: skip
        return int(row[0]) if row else 0

    def passed(self, subject: Subject, role: str, now_ms: int, results: int = 1) -> None:
        """So many more results were checked, and borne out."""
        values = {
            "node": subject.node, "bundle": subject.bundle, "precision": subject.precision, "role": role,
            "owner": subject.owner, "results": results, "at_ms": now_ms,
        }  # fmt: skip
        with self._whole():
            self._write(_COUNT, values)
            self._write(
                "DELETE FROM standings WHERE rowid IN (SELECT rowid FROM standings ORDER BY at_ms DESC LIMIT -1 OFFSET ?)",
                (STANDINGS_MAX,),
            )

    def failed(self, owner: bytes, node: bytes, reason: str, now_ms: int, receipt: bytes | None = None) -> None:
        """A fault was proven: every node of this owner is a newcomer again. `receipt`: the kept result that has proven it. It
        stays until it was `looked_at`, for whoever asks judges about it, and proves nothing a second time."""
        with self._whole():
            self._write("INSERT INTO faults VALUES (?, ?, ?, ?)", (owner, node, reason, now_ms))
            self._write("UPDATE standings SET valid = 0 WHERE owner = ?", (owner,))
            if receipt is not None:
                self._write("INSERT OR IGNORE INTO wrong VALUES (?)", (receipt,))

    def is_wrong(self, receipt: bytes) -> bool:
        """Whether the kept result has proven a fault already."""
        return self._one("SELECT 1 FROM wrong WHERE receipt = ?", receipt) is not None

    def at_fault(self, node: bytes, reason: str) -> bool:
        """Whether that was noted of the node."""
        return self._one("SELECT 1 FROM faults WHERE node = ? AND reason = ?", node, reason) is not None

    def faults(self, owner: bytes) -> int:
        """How many were proven of this owner."""
        row = self._one("SELECT count(*) FROM faults WHERE owner = ?", owner)
        return int(row[0]) if row else 0

    def all_faults(self) -> list[tuple[bytes, bytes, str, int]]:
        """Owner, node, reason and time of each, the newest first."""
        rows = self._all("SELECT owner, node, reason, at_ms FROM faults ORDER BY at_ms DESC, node")
        return [(row[0], row[1], str(row[2]), int(row[3])) for row in rows]

    def proven(self, bundle: bytes, newcomer: int) -> frozenset[bytes]:
        """Nodes that are no newcomers any more as executors of this bundle."""
        rows = self._all(
            "SELECT node FROM standings WHERE bundle = ? AND role = ? AND valid >= ?", bundle, EXECUTOR, newcomer
        )
        return frozenset(row[0] for row in rows)

    def anchors(self) -> frozenset[bytes]:
        """Owners to rely on by what was seen here: results enough in a row, and never a fault."""
        rows = self._all(
            "SELECT owner FROM standings WHERE owner NOT IN (SELECT owner FROM faults)"
            " GROUP BY owner HAVING sum(valid) >= ?",
            ANCHOR,
        )
        return frozenset(row[0] for row in rows)

    def standings(self) -> list[Standing]:
        """All that are known, whose last result is newest first."""
        rows = self._all(
            "SELECT node, owner, bundle, precision, role, valid, checked FROM standings ORDER BY at_ms DESC, node"
        )
        return [Standing(Subject(*row[:4]), *row[4:]) for row in rows]

    def keep(self, kept: Kept, receipt: bytes, vouched_by: bytes | None = None) -> None:
        """The result under this receipt's id can be looked at later. `vouched_by`: owner of the one checker who has confirmed
        it; None: it was taken unchecked."""
        subject = kept.subject
        row = (
            receipt, subject.node, subject.owner, subject.bundle, subject.precision, kept.entry, kept.receipt,
            kept.parameters, kept.work, kept.piece, kept.policy, kept.nonce, kept.at_ms,
        )  # fmt: skip
        with self._whole():
            if vouched_by is not None:
                self._write("INSERT OR REPLACE INTO vouched VALUES (?, ?)", (receipt, vouched_by))
            self._write("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._write("DELETE FROM kept WHERE at_ms < ?", (kept.at_ms - KEPT_MS,))
            self._write(_GIVE_WAY, (KEPT_MAX, KEPT_BYTES_MAX))
            for table in ("vouched", "wrong"):
                self._write(f"DELETE FROM {table} WHERE receipt NOT IN (SELECT receipt FROM kept)", ())

    def kept(self, owner: bytes, now_ms: int) -> list[tuple[bytes, Kept]]:
        """What rests on this owner's word, by the receipt's id: the newest first, for audits go backwards. Its nodes wrote it
        and it was taken unchecked, or one of them alone confirmed it."""
        rows = self._all(
            "SELECT receipt, node, owner, bundle, precision, entry, envelope, parameters, work, piece, policy, nonce, at_ms"
            f" FROM kept WHERE {_RESTS} = ? AND at_ms >= ? ORDER BY at_ms DESC, receipt",
            owner, now_ms - KEPT_MS,
        )  # fmt: skip
        return [(row[0], Kept(Subject(*row[1:5]), *row[5:])) for row in rows]

    def looked_at(self, receipt: bytes) -> None:
        """The result has been checked by now, or cannot be any more."""
        with self._whole():
            self._forget(receipt)

    def owners_at_fault(self, now_ms: int) -> list[bytes]:
        """Owners with a proven fault on whose word something rests that is still to be looked at, as after a crash."""
        rows = self._all(
            f"SELECT DISTINCT {_RESTS} AS rests FROM kept WHERE at_ms >= ? AND rests IN (SELECT owner FROM faults)",
            now_ms - KEPT_MS,
        )
        return [row[0] for row in rows]

    def _forget(self, receipt: bytes) -> None:
        self._write("DELETE FROM kept WHERE receipt = ?", (receipt,))
        self._write("DELETE FROM vouched WHERE receipt = ?", (receipt,))
        self._write("DELETE FROM wrong WHERE receipt = ?", (receipt,))

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """All that is written inside is on disk, or none of it is, wherever the process ends."""
        try:
            with transaction(self._db):
                yield
        except sqlite3.DatabaseError as error:
            raise _broken(error) from None

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._all(statement, *values)
        return rows[0] if rows else None

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with closing(self._db.execute(statement, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.DatabaseError as error:
            raise _broken(error) from None

    def _write(self, statement: str, values: object) -> None:
        try:
            self._db.execute(statement, values)  # type: ignore[arg-type]  # a sequence, or names and values
        except sqlite3.DatabaseError as error:
            raise _broken(error) from None


def _broken(error: sqlite3.DatabaseError) -> StoreError:
    return StoreError(
        Code.CORRUPT_STORE, f"The history of checked work cannot be used ({error}); what it held is kept."
    )
