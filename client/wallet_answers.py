"""What the wallet keeps for judges: what opens this client's orders, and what it has answered to disputes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from ..protocol.disputes import Plea
from ..protocol.envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from ..protocol.identity import Mandate
from ..protocol.limits import HOLD_MS_MAX
from ..protocol.opening import Opening
from ..protocol.orders import Accept, JobOrder
from .wallet_disk import Statement

ANSWERABLE_MS: Final = 2 * HOLD_MS_MAX
"""An order may be taken before judges for a week, and the answer be asked for another one."""
PLEAS_MAX: Final = 256
"""Kept at once, each with up to 4 MiB of what it shows: a gigabyte of disk. Honest judges have a few at most for each order."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A node's word that it does the work, and whose node it was then."""

    accept: Signed[Accept]
    mandate: Signed[Mandate]


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
    accepted: Accepted | None = None
    """None if its node never accepted it, or likewise."""


def answer_kept(
    order: Signed[JobOrder],
    opening: Opening,
    opens: tuple[bytes, str] | None,
    accepted: Accepted | None,
    now_ms: int,
) -> tuple[Statement, ...]:
    """What opens the order is on disk; what nobody can ask for any more is not. `opens` as in `Answerable`."""
    nonce, policy = opens or (b"", "")
    agreed = (accepted.accept.envelope, accepted.mandate.envelope) if accepted else (None, None)
    row = (order.id, nonce, policy, opening.encode(), now_ms, order.envelope, *agreed)
    return (
        ("DELETE FROM answers WHERE at_ms < ?", (now_ms - ANSWERABLE_MS,)),
        ("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row),
    )


def answer_to(database: sqlite3.Connection, order: bytes, client: bytes) -> Answerable | None:
    """What opens the order, which this client has signed; None if it is not kept."""
    query = "SELECT nonce, policy, opening, job, accept, mandate FROM answers WHERE order_id = ?"
    row = database.execute(query, (order,)).fetchone()
    if row is None:
        return None
    job, accepted = verify_untrusted(JobOrder, row[3], signer=client) if row[3] else None, None
    if job and row[4]:
        accept = verify_untrusted(Accept, row[4], signer=job.record.executor)
        accepted = Accepted(accept, verify_any_signer_untrusted(Mandate, row[5]))
    return Answerable(row[0] or None, row[1] or None, row[2], job, accepted)


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
