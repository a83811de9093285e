"""What payers have really paid, what judges say who owes whom, and what either comes to for one payer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .credit import DAY_MS, HOUR_MS, Debtor
from .journal_file import JournalFile, explained, reading
from .transaction import transaction


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


class Paid(JournalFile):
    """That part of a journal."""

    def add_payment(self, payment: Payment) -> bool:
        """The payment is on disk; False if it was before, whatever is said of it now."""
        row = (
            payment.id, payment.payer, payment.rail, payment.ucr, payment.fee_ucr, payment.reference, payment.taken_ms,
        )  # fmt: skip
        with explained(self.path):
            return self._db.execute("INSERT OR IGNORE INTO payments VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount > 0

    def add_fees(self, matter: bytes, dues: Mapping[bytes, int], now_ms: int) -> dict[bytes, int]:
        """What each party owes us for the matter, or we owe it, is on disk; what was said before stands. Those that are new."""
        new = {}
        with explained(self.path), transaction(self._db):
            for party, ucr in dues.items():
                row = (matter, party, ucr, now_ms)
                if self._db.execute("INSERT OR IGNORE INTO fees VALUES (?, ?, ?, ?)", row).rowcount:
                    new[party] = ucr
        return new

    def fees_of(self, matter: bytes) -> dict[bytes, int]:
        """What each party owes us for the matter, or we owe it; nothing if nothing was said of it yet."""
        with explained(self.path):
            return dict(self._db.execute("SELECT party, ucr FROM fees WHERE matter = ?", (matter,)).fetchall())

    def fees_ucr(self, party: bytes) -> int:
        """What the party owes us in fees, paid or not."""
        with explained(self.path):
            row = self._db.execute(
                "SELECT coalesce(sum(ucr), 0) FROM fees WHERE party = ? AND ucr > 0", (party,)
            ).fetchone()
        return int(row[0])

    def debtor(self, payer: bytes, now_ms: int) -> Debtor:
        """What the payer owes over all its channels, and has settled."""
        with explained(self.path):
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
        with explained(self.path):
            row = self._db.execute("SELECT coalesce(sum(ucr), 0) FROM payments WHERE payer = ?", (payer,)).fetchone()
        return int(row[0])

    def debtors(self, now_ms: int) -> dict[bytes, Debtor]:
        """All who were issued a receipt within a day."""
        with explained(self.path):
            payers = self._db.execute(
                "SELECT DISTINCT c.payer FROM receipts r JOIN channels c ON c.id = r.channel WHERE r.issued_ms > ?",
                (now_ms - DAY_MS,),
            ).fetchall()
        return {payer: self.debtor(payer, now_ms) for (payer,) in payers}


def payments(state: Path, payer: bytes | None = None) -> list[Payment]:
    """Every payment that was written down, or those of one payer, oldest first. Reads only, also while the node runs."""
    with reading(state) as db:
        if db is None or not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'payments'").fetchone():
            return []  # a journal of version 2, whose node was not started since
        where, of = ("", ()) if payer is None else ("WHERE payer = ?", (payer,))
        rows = db.execute(f"SELECT * FROM payments {where} ORDER BY taken_ms, id", of).fetchall()
    return [Payment(*row) for row in rows]


def fees(state: Path, party: bytes | None = None) -> list[Fee]:
    """What judges have said who owes whom, or what of it is with one party, oldest first. Reads only, also while the node
    runs."""
    with reading(state) as db:
        if db is None or not db.execute("SELECT 1 FROM pragma_table_info('fees') WHERE name = 'party'").fetchone():
            return []  # a journal of an older version, whose node was not started since
        where, of = ("", ()) if party is None else ("WHERE party = ?", (party,))
        rows = db.execute(f"SELECT * FROM fees {where} ORDER BY told_ms, matter, party", of).fetchall()
    return [Fee(*row) for row in rows]
