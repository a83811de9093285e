"""The node's journal on disk: what it agreed to, what it claims, and what it was promised.

SQLite in WAL mode with full syncs: when a method returns, what it wrote survives a crash and a power cut. Evidence
(orders with their receipts, vouchers) is never deleted; orders that came to nothing go once no clock would take them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused, StoreError
from ..protocol.limits import SKEW_MS
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, Voucher
from ..protocol.receipts import Receipt

JOURNAL = "journal.sqlite"
VERSION: Final = 1
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
    first_token INTEGER NOT NULL, tokens INTEGER NOT NULL, owed_ucr INTEGER NOT NULL, issued_ms INTEGER NOT NULL,
    envelope BLOB NOT NULL, UNIQUE (order_id, sequence)
) STRICT;
CREATE INDEX receipts_channel ON receipts (channel);
CREATE TABLE vouchers (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL, receipt BLOB NOT NULL, due_ucr INTEGER NOT NULL,
    held_ucr INTEGER NOT NULL, received_ms INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT;
CREATE INDEX vouchers_channel ON vouchers (channel);
CREATE INDEX vouchers_receipt ON vouchers (receipt);
"""


@dataclass(frozen=True, slots=True)
class Earning:
    """One receipt, and what vouchers promise for it."""

    issued_ms: int
    payer: bytes
    bundle: bytes
    entry: str
    window: int
    tokens: int
    owed_ucr: int
    """What this window added to the debt."""
    receipt: bytes
    voucher: bytes | None
    """Id of the voucher that names this receipt."""
    paid_ucr: int
    """What is promised for it: all that it added if a voucher names it. What a channel's best voucher promises beyond the
    receipts that are named covers the others, oldest first: their own vouchers were lost on the way."""


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What is on disk of one channel."""

    claimed_ucr: int
    """Of all receipts issued on it, paid or not."""
    named: dict[bytes, int]
    """Receipts that a voucher names, and what each added to the debt."""
    voucher: bytes | None
    """Envelope of the voucher that promises most."""


class Journal:
    """The journal of one state directory. Methods block for a disk sync, and belong in one writer thread at a time."""

    def __init__(self, state: Path) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)` for a damaged file or another version."""
        self.path = state / JOURNAL
        with _explained(self.path):
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
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

    def channel(self, channel: bytes) -> ChannelRow:
        """What is on disk of the channel; nothing is no error."""
        with _explained(self.path):
            (claimed,) = self._db.execute(
                "SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel = ?", (channel,)
            ).fetchone()
            named = self._db.execute(
                "SELECT id, owed_ucr FROM receipts WHERE id IN (SELECT receipt FROM vouchers WHERE channel = ?)",
                (channel,),
            ).fetchall()
            latest = self._db.execute(
                "SELECT envelope FROM vouchers WHERE channel = ? ORDER BY due_ucr + held_ucr DESC LIMIT 1", (channel,)
            ).fetchone()
        return ChannelRow(claimed, dict(named), latest[0] if latest else None)

    def add_order(self, channel: Signed[Channel], order: Signed[JobOrder], now_ms: int) -> None:
        """The order is on disk as accepted, and its channel. Raises `Refused(replayed)` if it was before."""
        record = order.record
        row = (order.id, record.channel, record.created_ms, record.bundle, record.entry, order.envelope)
        with _explained(self.path), self._transaction():
            self._db.execute(
                "DELETE FROM orders WHERE created_ms < ? AND id NOT IN (SELECT order_id FROM receipts)",
                (now_ms - 2 * SKEW_MS,),
            )
            self._db.execute(
                "INSERT OR IGNORE INTO channels VALUES (?, ?, ?)",
                (channel.id, channel.record.payer, channel.envelope),
            )
            try:
                self._db.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise Refused(Code.REPLAYED, "This order was accepted before.") from None

    def add_receipt(self, receipt: Signed[Receipt], channel: bytes, owed_ucr: int, now_ms: int) -> None:
        """The receipt, which raises the debt by `owed_ucr`, is on disk."""
        record = receipt.record
        row = (
            receipt.id, record.order, channel, record.sequence, record.first_token, record.tokens, owed_ucr, now_ms,
            receipt.envelope,
        )  # fmt: skip
        with _explained(self.path):
            self._db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def owed_ucr(self, receipt: bytes, channel: bytes) -> int | None:
        """What the receipt added to the debt; None if this node did not issue it on the channel."""
        with _explained(self.path):
            row = self._db.execute(
                "SELECT owed_ucr FROM receipts WHERE id = ? AND channel = ?", (receipt, channel)
            ).fetchone()
        return row[0] if row else None

    def add_voucher(self, voucher: Signed[Voucher], now_ms: int) -> None:
        """The voucher is on disk; again is no change."""
        record = voucher.record
        row = (voucher.id, record.channel, record.receipt, record.due_ucr, record.held_ucr, now_ms, voucher.envelope)
        with _explained(self.path):
            self._db.execute("INSERT OR IGNORE INTO vouchers VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _check(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
        problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)


def earnings(state: Path) -> list[Earning]:
    """Every receipt of the state directory, oldest first; reads only, also while the node runs.

    Raises `StoreError(corrupt_store)`. A directory without a journal has earned nothing.
    """
    path = state / JOURNAL
    if not path.exists():
        return []
    with (
        _explained(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as db,
    ):
        rows = db.execute(
            """WITH told AS (
                   SELECT r.channel, r.issued_ms, c.payer, o.bundle, o.entry, r.sequence, r.tokens, r.owed_ucr, r.id,
                          (SELECT v.id FROM vouchers v WHERE v.receipt = r.id AND v.channel = r.channel
                           ORDER BY v.received_ms LIMIT 1) AS voucher
                   FROM receipts r JOIN orders o ON o.id = r.order_id JOIN channels c ON c.id = r.channel),
               best AS (SELECT channel, max(due_ucr + held_ucr) AS ucr FROM vouchers GROUP BY channel)
               SELECT coalesce(best.ucr, 0) - sum(iif(voucher IS NULL, 0, owed_ucr)) OVER (PARTITION BY told.channel),
                      told.*
               FROM told LEFT JOIN best ON best.channel = told.channel
               ORDER BY issued_ms, sequence"""
        ).fetchall()
    found = []
    left_ucr: dict[bytes, int] = {}
    for surplus_ucr, channel, *told in rows:
        owed_ucr, _, voucher = told[-3:]
        paid_ucr = owed_ucr if voucher else min(owed_ucr, left_ucr.setdefault(channel, surplus_ucr))
        if not voucher:
            left_ucr[channel] -= paid_ucr
        found.append(Earning(*[*told, paid_ucr]))
    return found


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite finds wrong with the file is said as one sentence; the file is left as it is."""
    try:
        yield
    except sqlite3.Error as error:
        message = f"The journal {path} cannot be used: {error}. Nothing in it was changed or removed."
        raise StoreError(Code.CORRUPT_STORE, message) from None
