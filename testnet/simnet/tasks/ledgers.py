"""What payers and payees have on disk of one another, channel by channel, when a simulation is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ....node.store import JOURNAL
from ....protocol.envelope import verify_untrusted
from ....protocol.payment import Voucher
from .machines import WALLET

if TYPE_CHECKING:
    from .simulation import Run


@dataclass(frozen=True, slots=True)
class Ledger:
    """One channel, as both sides have it. Amounts are micro-credits."""

    client: int
    node: int
    channel: bytes
    promised_ucr: int
    """By all vouchers that the payer ever signed on it."""
    paid_for: int
    """Receipts that they name."""
    honoured_ucr: int
    """By the payee's latest voucher."""
    claimed_ucr: int
    """By all receipts that the payee ever signed on it."""
    named_twice: int
    """Receipts that vouchers of different amounts name, at the payee."""
    covered_ucr: int
    """By all receipts that a voucher names which the payee took: what counts as paid there."""
    unpaid_windows: int
    """Receipts with tokens that no voucher names, of the order that has the most of them."""
    dearest_ucr: int
    """By the receipt that claims the most."""


_NAMED = "id IN (SELECT receipt FROM vouchers WHERE channel = ?)"
_COVERED: Final = f"SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel = ? AND {_NAMED}"
_UNPAID: Final = f"""
SELECT coalesce(max(count), 0) FROM (
    SELECT count(*) AS count FROM receipts WHERE channel = ? AND tokens > 0 AND NOT {_NAMED} GROUP BY order_id)
"""


def ledgers(run: Run) -> Iterator[Ledger]:
    """Every channel of every client."""
    folder = run.world.folder
    numbers = {node.place.key: node.place.number for node in run.nodes}
    for client in run.clients:
        payer = bytes(client.key.verify_key)
        with closing(_opened(folder / f"client-{client.place.number}" / WALLET)) as wallet:
            channels = wallet.execute("SELECT id, payee FROM channels ORDER BY id").fetchall()
            for channel, payee in channels:
                promised, count = wallet.execute(
                    "SELECT coalesce(sum(added_ucr), 0), count(*) FROM vouchers WHERE channel = ?", (channel,)
                ).fetchone()
                path = folder / f"node-{numbers[payee]}" / JOURNAL
                yield Ledger(
                    client.place.number, numbers[payee], channel, promised, count, *_payee(path, channel, payer)
                )


def _payee(path: Path, channel: bytes, payer: bytes) -> tuple[int, int, int, int, int, int]:
    with closing(_opened(path)) as journal:
        (claimed,) = journal.execute(
            "SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel = ?", (channel,)
        ).fetchone()
        (covered,) = journal.execute(_COVERED, (channel, channel)).fetchone()
        (unpaid,) = journal.execute(_UNPAID, (channel, channel)).fetchone()
        (dearest,) = journal.execute(
            "SELECT coalesce(max(owed_ucr), 0) FROM receipts WHERE channel = ?", (channel,)
        ).fetchone()
        envelopes = journal.execute("SELECT envelope FROM vouchers WHERE channel = ?", (channel,)).fetchall()
    vouchers = [verify_untrusted(Voucher, envelope, signer=payer).record for (envelope,) in envelopes]
    named: dict[bytes, set[int]] = {}
    for voucher in vouchers:
        named.setdefault(voucher.receipt, set()).add(voucher.promised_ucr)
    twice = sum(len(amounts) > 1 for amounts in named.values())
    honoured = max((voucher.promised_ucr for voucher in vouchers), default=0)
    return honoured, claimed, twice, covered, unpaid, dearest


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
