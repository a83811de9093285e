"""The node's journal on disk: what it agreed to, what it claims, and what it was promised.

When a method returns, what it wrote survives a crash and a power cut. Evidence (orders with their receipts, each receipt's
first and latest voucher) is never deleted; orders that came to nothing go once no clock would take them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..protocol.channel import Ground
from ..protocol.claims import Claim
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, Voucher
from ..protocol.receipts import Receipt
from .credit import HOUR_MS
from .journal_file import explained, reading
from .paid import Paid
from .transaction import transaction
from .voucher_rows import FIRST, LATEST_FIRST, held_column, rank_column

UNCLAIMED_MS: Final = 6 * HOUR_MS
"""Longer than an order may run without a receipt: a window of 32 tokens, each ten minutes after the one before."""
SWEEP_MS: Final = 60_000


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


class Journal(Paid):
    """The journal of one state directory. Methods block for a disk sync, and belong in one writer thread at a time."""

    def __init__(self, state: Path) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)` for a damaged file or another version."""
        super().__init__(state)
        self._swept_ms = 0
        """Orders made before this have come to something, or are not there."""

    def channel(self, channel: bytes) -> ChannelRow:
        """What is on disk of the channel; nothing is no error."""
        with explained(self.path):
            (claimed,) = self._db.execute(
                "SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel = ?", (channel,)
            ).fetchone()
            named = self._db.execute(
                """SELECT id, owed_ucr, held_ucr_max, hold_until_ms FROM receipts
                   WHERE id IN (SELECT receipt FROM vouchers WHERE channel = ?)""",
                (channel,),
            ).fetchall()
            latest = self._db.execute(
                f"SELECT envelope FROM vouchers WHERE channel = ? ORDER BY {LATEST_FIRST} LIMIT 1", (channel,)
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
        with explained(self.path), transaction(self._db):
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
        with explained(self.path):
            self._db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def claim(self, receipt: bytes, channel: bytes) -> Claim | None:
        """What the receipt claims; None if this node did not issue it on the channel."""
        with explained(self.path):
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
            held_column(record.held), rank_column(record), now_ms, voucher.envelope,
        )  # fmt: skip
        named = (record.channel, record.receipt)
        with explained(self.path), transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO vouchers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._db.execute(
                f"""DELETE FROM vouchers WHERE channel = ? AND receipt = ?
                    AND id IS NOT (SELECT id FROM vouchers WHERE channel = ? AND receipt = ? ORDER BY {FIRST} LIMIT 1)
                    AND id IS NOT
                        (SELECT id FROM vouchers WHERE channel = ? AND receipt = ? ORDER BY {LATEST_FIRST} LIMIT 1)""",
                named * 3,
            )

    def add_contradiction(self, voucher: Signed[Voucher]) -> None:
        """The voucher, which contradicts the channel's latest, is on disk; the first of a channel is proof enough."""
        with explained(self.path):
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
        with explained(self.path):
            self._db.execute("INSERT OR IGNORE INTO grounds VALUES (?, ?, ?, ?, ?)", row)

    def issued(self, receipt: bytes) -> bool:
        """Whether a receipt of this id was written."""
        with explained(self.path):
            return self._db.execute("SELECT 1 FROM receipts WHERE id = ?", (receipt,)).fetchone() is not None

    def add_decided(
        self, channel: bytes, ground: Ground, ucr: int, matter: bytes, dues: Mapping[bytes, int], now_ms: int
    ) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """The forfeit, if any, and what each party owes us for the matter are on disk, or neither is. What was said of the
        matter before stands, whole. Gives what of it is new, and what is said now."""
        with explained(self.path), transaction(self._db):
            if ucr:
                row = (ground.id, ground.kind, channel, ucr, now_ms)
                self._db.execute("INSERT OR IGNORE INTO grounds VALUES (?, ?, ?, ?, ?)", row)
            if before := self.fees_of(matter):
                return {}, before
            rows = [(matter, party, due_ucr, now_ms) for party, due_ucr in dues.items()]
            self._db.executemany("INSERT INTO fees VALUES (?, ?, ?, ?)", rows)
        return dict(dues), dict(dues)

    def _sweep(self, now_ms: int) -> None:
        """Orders that came to nothing are gone, with channels on which nothing else was ordered; each is looked at once."""
        before_ms = now_ms - UNCLAIMED_MS
        if before_ms < self._swept_ms + SWEEP_MS:
            return
        with explained(self.path), transaction(self._db):
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


def of_receipt(state: Path, receipt: bytes) -> list[bytes]:
    """Envelopes of the receipt's channel and order, of the order's receipts and of the channel's latest voucher; none if it is
    not this node's. Reads only, also while the node runs."""
    with reading(state) as db:
        found = db.execute("SELECT order_id, channel FROM receipts WHERE id = ?", (receipt,)).fetchone() if db else None
        if db is None or found is None:
            return []
        order, channel = found
        rows = db.execute("SELECT envelope FROM channels WHERE id = ?", (channel,)).fetchall()
        rows += db.execute("SELECT envelope FROM orders WHERE id = ?", (order,)).fetchall()
        rows += db.execute("SELECT envelope FROM receipts WHERE order_id = ?", (order,)).fetchall()
        rows += db.execute(
            f"SELECT envelope FROM vouchers WHERE channel = ? ORDER BY {LATEST_FIRST} LIMIT 1", (channel,)
        ).fetchall()
    return [bytes(row[0]) for row in rows]
