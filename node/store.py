"""The node's journal on disk: what it agreed to, what it claims, and what it was promised.

SQLite in WAL mode with full syncs: when a method returns, what it wrote survives a crash and a power cut. Evidence
(orders with their receipts, each receipt's first and latest voucher) is never deleted; orders that came to nothing go once
no clock would take them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..protocol.channel import Ground, forfeited_of, held_of
from ..protocol.claims import Claim
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused, StoreError
from ..protocol.limits import SKEW_MS
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, Voucher
from ..protocol.receipts import Receipt
from .credit import DAY_MS, HOUR_MS, Debtor
from .log import wall_ms
from .transaction import is_full, read_only, transaction

JOURNAL = "journal.sqlite"
VERSION: Final = 5
BUSY_S: Final = 5.0
"""A reader (`fallow earnings`) holds the file for milliseconds."""
UNCLAIMED_MS: Final = 6 * HOUR_MS
"""Longer than an order may run without a receipt: a window of 32 tokens, each ten minutes after the one before."""
SWEEP_MS: Final = 60_000

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
CREATE TABLE vouchers (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL, receipt BLOB NOT NULL, due_ucr INTEGER NOT NULL,
    held_ucr INTEGER NOT NULL, forfeited_ucr INTEGER NOT NULL, release_at_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT;
CREATE INDEX vouchers_channel ON vouchers (channel);
CREATE INDEX vouchers_receipt ON vouchers (receipt);
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

_LATEST_FIRST = "due_ucr + held_ucr + forfeited_ucr DESC, due_ucr + forfeited_ucr DESC, release_at_ms"
"""Of a channel's vouchers, each follows those after it."""
_FIRST = "rowid"
"""Of a receipt's vouchers, as they came: what a statement once said of a receipt, it says again."""


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
    """What is promised for it and not forfeited: all that it added if a voucher names it. What a channel's latest voucher
    promises beyond the receipts that are named covers the others, oldest first: their own vouchers were lost on the way."""
    held_ucr: int
    """Of that, what has not fallen due. A channel's vouchers say how much is held, not of what: it counts as of the newest."""
    forfeited_ucr: int
    """What was promised, held and forfeited, likewise."""


@dataclass(frozen=True, slots=True)
class Payment:
    """What a payer has really paid, on a rail: it settles what vouchers promise, or is ahead of them."""

    id: bytes
    """By the rail: the same payment taken again has the same."""
    payer: bytes
    rail: str
    ucr: int
    """What it settles."""
    fee_ucr: int
    """Of that, what the rail kept and the owner did not get."""
    reference: str
    """For a person: what stands on the bank's statement, say."""
    taken_ms: int


@dataclass(frozen=True, slots=True)
class Fee:
    """What judges say that one side owes the other for a dispute, or a judge is owed for it."""

    matter: bytes
    """`matter_id` of the dispute."""
    party: bytes
    ucr: int
    """More than nothing: the party owes it to us; less: we owe it."""
    told_ms: int


@dataclass(frozen=True, slots=True)
class Debt:
    """One payer, over all its channels with this node."""

    payer: bytes
    receipts: int
    owed_ucr: int
    """Of all receipts, less what was forfeited, and the fees that judges say it owes."""
    promised_ucr: int
    """Of that, what vouchers cover, whether it is due or held, and the fees."""
    settled_ucr: int

    @property
    def open_ucr(self) -> int:
        """Promised and not paid; less than nothing if paid ahead."""
        return self.promised_ucr - self.settled_ucr


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What is on disk of one channel."""

    claimed_ucr: int
    """Of all receipts issued on it, paid or not."""
    named: dict[bytes, Claim]
    """Of the receipts that a voucher names."""
    voucher: bytes | None
    """Envelope of the latest voucher."""
    grounds: dict[Ground, int]
    """What each forfeits, in micro-credits."""


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
        self._swept_ms = 0
        """Orders made before this have come to something, or are not there."""

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
                """SELECT id, owed_ucr, held_ucr_max, hold_until_ms FROM receipts
                   WHERE id IN (SELECT receipt FROM vouchers WHERE channel = ?)""",
                (channel,),
            ).fetchall()
            latest = self._db.execute(
                f"SELECT envelope FROM vouchers WHERE channel = ? ORDER BY {_LATEST_FIRST} LIMIT 1", (channel,)
            ).fetchone()
            grounds = self._db.execute("SELECT kind, id, ucr FROM grounds WHERE channel = ?", (channel,)).fetchall()
        return ChannelRow(
            claimed,
            {receipt: Claim(*claim) for receipt, *claim in named},
            latest[0] if latest else None,
            {Ground(kind, ground): ucr for kind, ground, ucr in grounds},
        )

    def add_order(self, channel: Signed[Channel], order: Signed[JobOrder], now_ms: int) -> None:
        """The order is on disk as accepted, and its channel. Raises `Refused(replayed)` if it was before."""
        record = order.record
        row = (order.id, record.channel, record.created_ms, record.bundle, record.entry, order.envelope)
        self._sweep(now_ms)
        with _explained(self.path), transaction(self._db):
            self._db.execute(
                "INSERT OR IGNORE INTO channels VALUES (?, ?, ?)",
                (channel.id, channel.record.payer, channel.envelope),
            )
            try:
                self._db.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise Refused(Code.REPLAYED, "This order was accepted before.") from None

    def add_receipt(self, receipt: Signed[Receipt], channel: bytes, claim: Claim, now_ms: int) -> None:
        """The receipt and what it claims are on disk."""
        record = receipt.record
        row = (
            receipt.id, record.order, channel, record.sequence, record.first_token, record.tokens, claim.owed_ucr,
            claim.held_ucr_max, claim.hold_until_ms, now_ms, receipt.envelope,
        )  # fmt: skip
        with _explained(self.path):
            self._db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def claim(self, receipt: bytes, channel: bytes) -> Claim | None:
        """What the receipt claims; None if this node did not issue it on the channel."""
        with _explained(self.path):
            row = self._db.execute(
                "SELECT owed_ucr, held_ucr_max, hold_until_ms FROM receipts WHERE id = ? AND channel = ?",
                (receipt, channel),
            ).fetchone()
        return Claim(*row) if row else None

    def add_voucher(self, voucher: Signed[Voucher], now_ms: int) -> None:
        """The voucher is on disk; again is no change. Of those that name its receipt, the first and the latest are kept: a
        payer may sign any number, each for a little more."""
        record = voucher.record
        row = (
            voucher.id, record.channel, record.receipt, record.due_ucr, record.held_ucr, record.forfeited_ucr,
            record.release_at_ms, now_ms, voucher.envelope,
        )  # fmt: skip
        named = (record.channel, record.receipt)
        with _explained(self.path), transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO vouchers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._db.execute(
                f"""DELETE FROM vouchers WHERE channel = ? AND receipt = ?
                    AND id IS NOT (SELECT id FROM vouchers WHERE channel = ? AND receipt = ? ORDER BY {_FIRST} LIMIT 1)
                    AND id IS NOT
                        (SELECT id FROM vouchers WHERE channel = ? AND receipt = ? ORDER BY {_LATEST_FIRST} LIMIT 1)""",
                named * 3,
            )

    def add_contradiction(self, voucher: Signed[Voucher]) -> None:
        """The voucher, which contradicts the channel's latest, is on disk; the first of a channel is proof enough."""
        with _explained(self.path):
            self._db.execute(
                "INSERT OR IGNORE INTO contradictions VALUES (?, ?)", (voucher.record.channel, voucher.envelope)
            )

    def contradictions(self) -> list[tuple[bytes, bytes]]:
        """(channel, envelope) of each voucher that contradicts another of its payer."""
        rows: list[tuple[bytes, bytes]] = self._db.execute("SELECT channel, envelope FROM contradictions").fetchall()
        return rows

    def add_ground(self, channel: bytes, ground: Ground, ucr: int, now_ms: int) -> None:
        """The forfeit is on disk; again is no change."""
        row = (ground.id, ground.kind, channel, ucr, now_ms)
        with _explained(self.path):
            self._db.execute("INSERT OR IGNORE INTO grounds VALUES (?, ?, ?, ?, ?)", row)

    def add_payment(self, payment: Payment) -> bool:
        """The payment is on disk; False if it was before, whatever is said of it now."""
        row = (
            payment.id, payment.payer, payment.rail, payment.ucr, payment.fee_ucr, payment.reference, payment.taken_ms,
        )  # fmt: skip
        with _explained(self.path):
            return self._db.execute("INSERT OR IGNORE INTO payments VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount > 0

    def issued(self, receipt: bytes) -> bool:
        """Whether a receipt of this id was written."""
        with _explained(self.path):
            return self._db.execute("SELECT 1 FROM receipts WHERE id = ?", (receipt,)).fetchone() is not None

    def add_fees(self, matter: bytes, dues: Mapping[bytes, int], now_ms: int) -> dict[bytes, int]:
        """What each party owes us for the matter, or we owe it, is on disk; what was said before stands. Those that are new."""
        new = {}
        with _explained(self.path), transaction(self._db):
            for party, ucr in dues.items():
                row = (matter, party, ucr, now_ms)
                if self._db.execute("INSERT OR IGNORE INTO fees VALUES (?, ?, ?, ?)", row).rowcount:
                    new[party] = ucr
        return new

    def add_decided(
        self, channel: bytes, ground: Ground, ucr: int, matter: bytes, dues: Mapping[bytes, int], now_ms: int
    ) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """The forfeit, if any, and what each party owes us for the matter are on disk, or neither is. What was said of the
        matter before stands, whole. Gives what of it is new, and what is said now."""
        with _explained(self.path), transaction(self._db):
            if ucr:
                row = (ground.id, ground.kind, channel, ucr, now_ms)
                self._db.execute("INSERT OR IGNORE INTO grounds VALUES (?, ?, ?, ?, ?)", row)
            if before := self.fees_of(matter):
                return {}, before
            rows = [(matter, party, due_ucr, now_ms) for party, due_ucr in dues.items()]
            self._db.executemany("INSERT INTO fees VALUES (?, ?, ?, ?)", rows)
        return dict(dues), dict(dues)

    def fees_of(self, matter: bytes) -> dict[bytes, int]:
        """What each party owes us for the matter, or we owe it; nothing if nothing was said of it yet."""
        with _explained(self.path):
            return dict(self._db.execute("SELECT party, ucr FROM fees WHERE matter = ?", (matter,)).fetchall())

    def fees_ucr(self, party: bytes) -> int:
        """What the party owes us in fees, paid or not."""
        with _explained(self.path):
            row = self._db.execute(
                "SELECT coalesce(sum(ucr), 0) FROM fees WHERE party = ? AND ucr > 0", (party,)
            ).fetchone()
        return int(row[0])

    def debtor(self, payer: bytes, now_ms: int) -> Debtor:
        """What the payer owes over all its channels, and has settled."""
        with _explained(self.path):
            (owed,) = self._db.execute(
                "SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel IN (SELECT id FROM channels WHERE payer = ?)",
                (payer,),
            ).fetchone()
            (forfeited,) = self._db.execute(
                "SELECT coalesce(sum(ucr), 0) FROM grounds WHERE channel IN (SELECT id FROM channels WHERE payer = ?)",
                (payer,),
            ).fetchone()
            hours = self._db.execute(
                """SELECT at_ms / ?, sum(ucr) FROM (
                       SELECT r.issued_ms AS at_ms, r.owed_ucr AS ucr FROM receipts r JOIN channels c ON c.id = r.channel
                       WHERE c.payer = ? UNION ALL SELECT told_ms, ucr FROM fees WHERE party = ? AND ucr > 0
                   ) WHERE at_ms > ? GROUP BY 1""",
                (HOUR_MS, payer, payer, now_ms - DAY_MS),
            ).fetchall()
            promised = self._db.execute(
                """SELECT max(due_ucr + held_ucr + forfeited_ucr) FROM vouchers
                   WHERE channel IN (SELECT id FROM channels WHERE payer = ?) GROUP BY channel""",
                (payer,),
            ).fetchall()
        fees = self.fees_ucr(payer)
        promised_ucr = sum(ucr for (ucr,) in promised) + fees - forfeited
        return Debtor(owed + fees - forfeited, promised_ucr, self.settled_ucr(payer), by_hour=dict(hours))

    def settled_ucr(self, payer: bytes) -> int:
        """What the payer has paid in all."""
        with _explained(self.path):
            row = self._db.execute("SELECT coalesce(sum(ucr), 0) FROM payments WHERE payer = ?", (payer,)).fetchone()
        return int(row[0])

    def debtors(self, now_ms: int) -> dict[bytes, Debtor]:
        """All who were issued a receipt within a day."""
        with _explained(self.path):
            payers = self._db.execute(
                "SELECT DISTINCT c.payer FROM receipts r JOIN channels c ON c.id = r.channel WHERE r.issued_ms > ?",
                (now_ms - DAY_MS,),
            ).fetchall()
        return {payer: self.debtor(payer, now_ms) for (payer,) in payers}

    def _check(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            self._db.executescript(f"BEGIN; {_SCHEMA} {_PAYMENTS} {_FEES} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version == 2:
            self._db.executescript(f"BEGIN; {_PAYMENTS} {_FEES} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version in (3, 4):
            made = _FEES if version == 3 else _FROM_4
            self._db.executescript(f"BEGIN; {made} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
        problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)

    def _sweep(self, now_ms: int) -> None:
        """Orders that came to nothing are gone, with channels on which nothing else was ordered; each is looked at once."""
        before_ms = now_ms - UNCLAIMED_MS
        if before_ms < self._swept_ms + SWEEP_MS:
            return
        with _explained(self.path), transaction(self._db):
            idle = self._db.execute(
                """SELECT id, channel FROM orders WHERE created_ms >= ? AND created_ms < ?
                   AND NOT EXISTS (SELECT 1 FROM receipts WHERE order_id = orders.id)""",
                (self._swept_ms, before_ms),
            ).fetchall()
            self._db.executemany("DELETE FROM orders WHERE id = ?", [(order,) for order, _ in idle])
            self._db.executemany(
                "DELETE FROM channels WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM orders WHERE channel = ?1)",
                [(channel,) for channel in {channel for _, channel in idle}],
            )
        self._swept_ms = before_ms


def earnings(state: Path, now_ms: int | None = None, since_ms: int = 0) -> list[Earning]:
    """Every receipt of the state directory that was issued since, oldest first, as of `now_ms` (None: of this moment).

    Reads only, also while the node runs. Raises `StoreError(corrupt_store)`. A directory without a journal has earned
    nothing.
    """
    with _reading(state) as db:
        if db is None:
            return []
        rows = db.execute(
            f"""SELECT r.channel, r.issued_ms, c.payer, o.bundle, o.entry, r.sequence, r.tokens, r.owed_ucr, r.id,
                      (SELECT v.id FROM vouchers v WHERE v.receipt = r.id AND v.channel = r.channel
                       ORDER BY v.{_FIRST} LIMIT 1)
               FROM receipts r JOIN orders o ON o.id = r.order_id JOIN channels c ON c.id = r.channel
               WHERE r.channel IN (SELECT channel FROM receipts WHERE issued_ms >= ?)
               ORDER BY r.issued_ms, r.sequence""",
            (since_ms,),
        ).fetchall()
        channels: dict[bytes, list[tuple[Any, ...]]] = {}
        for channel, *row in rows:
            channels.setdefault(channel, []).append(tuple(row))
        now_ms = wall_ms() if now_ms is None else now_ms
        found = [
            row
            for channel, of_one in channels.items()
            for row in _earned(db, channel, of_one, now_ms)
            if row.issued_ms >= since_ms
        ]
    return sorted(found, key=lambda row: (row.issued_ms, row.window))


def debts(state: Path, now_ms: int | None = None) -> list[Debt]:
    """Every payer of the state directory, who owes most first. Reads only, also while the node runs."""
    rows, settled, owed = earnings(state, now_ms), Counter[bytes](), Counter[bytes]()
    for fee in fees(state):
        owed[fee.party] += max(0, fee.ucr)
    for payment in payments(state):
        settled[payment.payer] += payment.ucr
    found: dict[bytes, list[Earning]] = {payer: [] for payer in (*settled, *(+owed))}
    for row in rows:
        found.setdefault(row.payer, []).append(row)
    debts = [
        Debt(
            payer,
            len(own),
            sum(row.owed_ucr - row.forfeited_ucr for row in own) + owed[payer],
            sum(row.paid_ucr for row in own) + owed[payer],
            settled[payer],
        )
        for payer, own in found.items()
    ]
    return sorted(debts, key=lambda debt: (-debt.open_ucr, debt.payer))


def of_receipt(state: Path, receipt: bytes) -> list[bytes]:
    """Envelopes of the receipt's channel and order, of the order's receipts and of the channel's latest voucher; none if it is
    not this node's. Reads only, also while the node runs."""
    with _reading(state) as db:
        found = db.execute("SELECT order_id, channel FROM receipts WHERE id = ?", (receipt,)).fetchone() if db else None
        if db is None or found is None:
            return []
        order, channel = found
        rows = db.execute("SELECT envelope FROM channels WHERE id = ?", (channel,)).fetchall()
        rows += db.execute("SELECT envelope FROM orders WHERE id = ?", (order,)).fetchall()
        rows += db.execute("SELECT envelope FROM receipts WHERE order_id = ?", (order,)).fetchall()
        rows += db.execute(
            f"SELECT envelope FROM vouchers WHERE channel = ? ORDER BY {_LATEST_FIRST} LIMIT 1", (channel,)
        ).fetchall()
    return [bytes(row[0]) for row in rows]


def payments(state: Path) -> list[Payment]:
    """Every payment that was written down, oldest first. Reads only, also while the node runs."""
    with _reading(state) as db:
        if db is None or not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'payments'").fetchone():
            return []  # a journal of version 2, whose node was not started since
        rows = db.execute("SELECT * FROM payments ORDER BY taken_ms, id").fetchall()
    return [Payment(*row) for row in rows]


def fees(state: Path) -> list[Fee]:
    """What judges have said who owes whom, oldest first. Reads only, also while the node runs."""
    with _reading(state) as db:
        if db is None or not db.execute("SELECT 1 FROM pragma_table_info('fees') WHERE name = 'party'").fetchone():
            return []  # a journal of an older version, whose node was not started since
        rows = db.execute("SELECT * FROM fees ORDER BY told_ms, matter, party").fetchall()
    return [Fee(*row) for row in rows]


def _earned(db: sqlite3.Connection, channel: bytes, rows: list[tuple[Any, ...]], now_ms: int) -> list[Earning]:
    """What one channel's latest voucher comes to, spread over its receipts (oldest first)."""
    latest = db.execute(
        f"""SELECT channel, receipt, due_ucr, held_ucr, forfeited_ucr, release_at_ms FROM vouchers WHERE channel = ?
            ORDER BY {_LATEST_FIRST} LIMIT 1""",
        (channel,),
    ).fetchone()
    voucher = Voucher(*latest) if latest else Voucher(channel, bytes(32), 0, 0, 0, 0)
    (grounds_ucr,) = db.execute("SELECT coalesce(sum(ucr), 0) FROM grounds WHERE channel = ?", (channel,)).fetchone()
    left_ucr = voucher.promised_ucr - sum(owed_ucr for *_, owed_ucr, _, named in rows if named)
    covered: list[int] = []
    for *_, owed_ucr, _, named in rows:
        covered.append(owed_ucr if named else min(owed_ucr, left_ucr))
        left_ucr -= 0 if named else covered[-1]
    held_ucr, forfeited_ucr = held_of(voucher, grounds_ucr, now_ms - SKEW_MS), forfeited_of(voucher, grounds_ucr)
    found = []
    for row, covered_ucr in zip(reversed(rows), reversed(covered), strict=True):
        held = min(covered_ucr, held_ucr)
        forfeited = min(covered_ucr - held, forfeited_ucr)
        held_ucr, forfeited_ucr = held_ucr - held, forfeited_ucr - forfeited
        found.append(Earning(*[*row, covered_ucr - forfeited, held, forfeited]))
    return found[::-1]


@contextmanager
def _reading(state: Path) -> Iterator[sqlite3.Connection | None]:
    """The journal of the state directory, for reading; None if there is none."""
    path = state / JOURNAL
    if not path.exists():
        yield None
        return
    with _explained(path), read_only(path, BUSY_S) as db:
        yield db


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite finds wrong with the file is said as one sentence; the file is left as it is."""
    try:
        yield
    except sqlite3.Error as error:
        message = f"The journal {path} cannot be used: {error}. Nothing in it was changed or removed."
        raise StoreError(Code.STORE_FULL if is_full(error) else Code.CORRUPT_STORE, message) from None
