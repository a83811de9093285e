"""What each receipt of the journal has brought: what vouchers promise for it, and what of that is held, forfeited or due."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..protocol.channel import forfeited_of, held_of
from ..protocol.codec import INTEGER_MAX
from ..protocol.holding import total_ucr
from ..protocol.limits import SKEW_MS
from ..protocol.payment import Voucher
from .journal_file import reading
from .log import wall_ms
from .voucher_rows import FIRST, LATEST_FIRST, held_column, parts_of


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


def earnings(state: Path, now_ms: int | None = None, since_ms: int = 0, known_ms: int = INTEGER_MAX) -> list[Earning]:
    """Every receipt of the state directory that was issued since, oldest first, as of `now_ms` (None: of this moment), by what
    had come until `known_ms`.

    Reads only, also while the node runs. Raises `StoreError(corrupt_store)`. A directory without a journal has earned
    nothing.
    """
    with reading(state) as db:
        if db is None:
            return []
        rows = db.execute(
            f"""SELECT r.channel, r.issued_ms, c.payer, o.bundle, o.entry, r.sequence, r.tokens, r.owed_ucr, r.id,
                      (SELECT v.id FROM vouchers v WHERE v.receipt = r.id AND v.channel = r.channel AND v.received_ms <= ?2
                       ORDER BY v.{FIRST} LIMIT 1)
               FROM receipts r JOIN orders o ON o.id = r.order_id JOIN channels c ON c.id = r.channel
               WHERE r.issued_ms <= ?2 AND r.channel IN (SELECT channel FROM receipts WHERE issued_ms >= ?1)
               ORDER BY r.issued_ms, r.sequence""",
            (since_ms, known_ms),
        ).fetchall()
        channels: dict[bytes, list[tuple[Any, ...]]] = {}
        for channel, *row in rows:
            channels.setdefault(channel, []).append(tuple(row))
        now_ms = wall_ms() if now_ms is None else now_ms
        found = [
            row
            for channel, of_one in channels.items()
            for row in _earned(db, channel, of_one, now_ms, known_ms)
            if row.issued_ms >= since_ms
        ]
    return sorted(found, key=lambda row: (row.issued_ms, row.window))


def dues(state: Path, payer: bytes | None = None, now_ms: int | None = None) -> list[tuple[bytes, bytes, int]]:
    """(channel, payer, micro-credits) of every channel, or of one payer's: what its vouchers have made due by then, as the
    credits of a statement come to. Reads only, also while the node runs."""
    now_ms = wall_ms() if now_ms is None else now_ms
    with reading(state) as db:
        if db is None:
            return []
        query = "SELECT id, payer FROM channels" + ("" if payer is None else " WHERE payer = ?") + " ORDER BY rowid"
        rows = db.execute(query, () if payer is None else (payer,)).fetchall()
        return [(channel, of, _due(db, channel, now_ms)) for channel, of in rows]


def _earned(
    db: sqlite3.Connection, channel: bytes, rows: list[tuple[Any, ...]], now_ms: int, known_ms: int
) -> list[Earning]:
    """What one channel's latest voucher comes to, spread over its receipts (oldest first)."""
    voucher, grounds_ucr = _promised(db, channel, known_ms)
    left_ucr = voucher.promised_ucr - sum(owed_ucr for *_, owed_ucr, _, named in rows if named)
    covered: list[int] = []
    for *_, owed_ucr, _, named in rows:
        covered.append(owed_ucr if named else min(owed_ucr, left_ucr))
        left_ucr -= 0 if named else covered[-1]
    held_ucr = total_ucr(held_of(voucher, grounds_ucr, now_ms - SKEW_MS))
    forfeited_ucr = forfeited_of(voucher, grounds_ucr)
    found = []
    for row, covered_ucr in zip(reversed(rows), reversed(covered), strict=True):
        held = min(covered_ucr, held_ucr)
        forfeited = min(covered_ucr - held, forfeited_ucr)
        held_ucr, forfeited_ucr = held_ucr - held, forfeited_ucr - forfeited
        found.append(Earning(*[*row, covered_ucr - forfeited, held, forfeited]))
    return found[::-1]


def _due(db: sqlite3.Connection, channel: bytes, now_ms: int) -> int:
    """The sum of what `_earned` spreads, without spreading it."""
    voucher, grounds_ucr = _promised(db, channel, INTEGER_MAX)
    (owed_ucr,) = db.execute("SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel = ?", (channel,)).fetchone()
    covered_ucr = min(int(owed_ucr), voucher.promised_ucr)
    held_ucr = min(covered_ucr, total_ucr(held_of(voucher, grounds_ucr, now_ms - SKEW_MS)))
    return covered_ucr - held_ucr - min(covered_ucr - held_ucr, forfeited_of(voucher, grounds_ucr))


def _promised(db: sqlite3.Connection, channel: bytes, known_ms: int) -> tuple[Voucher, int]:
    """The channel's latest voucher of those that had come by `known_ms`, one of nothing if none had, and what grounds that were
    told by then forfeit of it."""
    latest = db.execute(
        f"""SELECT receipt, due_ucr, held, forfeited_ucr FROM vouchers WHERE channel = ? AND received_ms <= ?
            ORDER BY {LATEST_FIRST} LIMIT 1""",
        (channel, known_ms),
    ).fetchone()
    receipt, due_ucr, held, forfeited_ucr = latest or (bytes(32), 0, held_column(()), 0)
    (grounds_ucr,) = db.execute(
        "SELECT coalesce(sum(ucr), 0) FROM grounds WHERE channel = ? AND told_ms <= ?", (channel, known_ms)
    ).fetchone()
    return Voucher(channel, receipt, due_ucr, parts_of(held), forfeited_ucr), int(grounds_ucr)
