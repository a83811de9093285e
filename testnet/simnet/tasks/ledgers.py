"""What payers and payees have on disk of one another, channel by channel, when a simulation is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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


def _payee(path: Path, channel: bytes, payer: bytes) -> tuple[int, int, int]:
    with closing(_opened(path)) as journal:
        (claimed,) = journal.execute(
            "SELECT coalesce(sum(owed_ucr), 0) FROM receipts WHERE channel = ?", (channel,)
        ).fetchone()
        envelopes = journal.execute("SELECT envelope FROM vouchers WHERE channel = ?", (channel,)).fetchall()
    vouchers = [verify_untrusted(Voucher, envelope, signer=payer).record for (envelope,) in envelopes]
    named: dict[bytes, set[int]] = {}
    for voucher in vouchers:
        named.setdefault(voucher.receipt, set()).add(voucher.promised_ucr)
    twice = sum(len(amounts) > 1 for amounts in named.values())
    return max((voucher.promised_ucr for voucher in vouchers), default=0), claimed, twice


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
