"""What the wallet keeps for judges: what opens this client's orders, and what it has answered to disputes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from ..protocol.disputes import Plea
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.limits import HOLD_MS_MAX
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from .wallet_disk import Statement

ANSWERABLE_MS: Final = 2 * HOLD_MS_MAX
"""An order may be taken before judges for a week, and the answer be asked for another one."""
PLEAS_MAX: Final = 256
"""Kept at once, each with up to 4 MiB of what it shows: a gigabyte of disk. Honest judges have a few at most for each order."""


@dataclass(frozen=True, slots=True)
class Answerable:
    """What opens an order that may be taken before judges."""

    nonce: bytes | None
    policy: str | None
    """To which it is committed, if they are to be shown."""
    opening: bytes
    """Encoded."""
    order: Signed[JobOrder] | None
    """None where a wallet of an older version has kept it."""


def answer_kept(
    order: Signed[JobOrder], opening: Opening, opens: tuple[bytes, str] | None, now_ms: int
) -> tuple[Statement, ...]:
    """What opens the order is on disk; what nobody can ask for any more is not. `opens` as in `Answerable`."""
    nonce, policy = opens or (b"", "")
    row = (order.id, nonce, policy, opening.encode(), now_ms, order.envelope)
    return (
        ("DELETE FROM answers WHERE at_ms < ?", (now_ms - ANSWERABLE_MS,)),
        ("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row),
    )


def answer_to(database: sqlite3.Connection, order: bytes, client: bytes) -> Answerable | None:
    """What opens the order, which this client has signed; None if it is not kept."""
    row = database.execute("SELECT nonce, policy, opening, job FROM answers WHERE order_id = ?", (order,)).fetchone()
    if row is None:
        return None
    job = verify_untrusted(JobOrder, row[3], signer=client) if row[3] else None
    return Answerable(row[0] or None, row[1] or None, row[2], job)


def plea_kept(plea: Signed[Plea], proof: bytes, now_ms: int) -> tuple[Statement, ...]:
    """The first plea to its dispute is on disk, unless as many are as there may be."""
    return (
        ("DELETE FROM pleas WHERE at_ms < ?", (now_ms - ANSWERABLE_MS,)),
        (
            "INSERT OR IGNORE INTO pleas SELECT ?, ?, ?, ? WHERE (SELECT count(*) FROM pleas) < ?",
            (plea.record.dispute, plea.envelope, proof, now_ms, PLEAS_MAX),
        ),
    )


def plea_to(database: sqlite3.Connection, dispute: bytes) -> tuple[bytes, bytes] | None:
    """What was answered to the dispute, plea and proof; None if nothing was."""
    row = database.execute("SELECT plea, proof FROM pleas WHERE dispute = ?", (dispute,)).fetchone()
    return (bytes(row[0]), bytes(row[1])) if row else None
