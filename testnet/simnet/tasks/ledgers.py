"""What payers and payees have on disk of one another, channel by channel, when a simulation is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ....node.journal_file import JOURNAL
from ....protocol.envelope import verify_untrusted
from ....protocol.payment import Voucher
from .clients import WALLET

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
    given_up_ucr: int
    """Of what was held, forfeited as the payee has it: by what judges signed. It may not have been told yet."""
    forfeited_ucr: int
    """The same as the payer has it."""


_NAMED = "id IN (SELECT receipt FROM vouchers WHERE channel = ?)"
_COVERED: Final = f"SELECT sum(owed_ucr) FROM receipts WHERE channel = ? AND {_NAMED}"
_UNPAID: Final = f"""
SELECT max(count) FROM (
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
                forfeited = _sum(wallet, "SELECT sum(ucr) FROM forfeits WHERE channel = ?", channel)
                path = folder / f"node-{numbers[payee]}" / JOURNAL
                theirs = _payee(path, channel, payer)
                yield Ledger(client.place.number, numbers[payee], channel, promised, count, *theirs, forfeited)


def _payee(path: Path, channel: bytes, payer: bytes) -> tuple[int, int, int, int, int, int, int]:
    with closing(_opened(path)) as journal:
        claimed = _sum(journal, "SELECT sum(owed_ucr) FROM receipts WHERE channel = ?", channel)
        dearest = _sum(journal, "SELECT max(owed_ucr) FROM receipts WHERE channel = ?", channel)
        given_up = _sum(journal, "SELECT sum(ucr) FROM grounds WHERE channel = ?", channel)
        covered = _sum(journal, _COVERED, channel, channel)
        unpaid = _sum(journal, _UNPAID, channel, channel)
        envelopes = journal.execute("SELECT envelope FROM vouchers WHERE channel = ?", (channel,)).fetchall()
    vouchers = [verify_untrusted(Voucher, envelope, signer=payer).record for (envelope,) in envelopes]
    named: dict[bytes, set[int]] = {}
    for voucher in vouchers:
        named.setdefault(voucher.receipt, set()).add(voucher.promised_ucr)
    twice = sum(len(amounts) > 1 for amounts in named.values())
    honoured = max((voucher.promised_ucr for voucher in vouchers), default=0)
    return honoured, claimed, twice, covered, unpaid, dearest, given_up


def _sum(database: sqlite3.Connection, question: str, *channel: bytes) -> int:
    """0 where there is nothing to add up."""
    return int(database.execute(question, channel).fetchone()[0] or 0)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
