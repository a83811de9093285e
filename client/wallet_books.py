"""What a client's wallet says that it owes: for its ledger of mutual debts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..node.machine import wall_ms
from ..node.rails.ledger import Books, Entry, channel_reference
from .wallet_file import dues


def wallet_books(wallet: Path, payer: bytes) -> Books:
    """The books of the wallet, as far as they are this payer's. Reading them raises `StoreError`; no wallet has nothing to
    say."""

    def books(party: bytes | None) -> Iterator[Entry]:
        for channel, payee, ucr in dues(wallet, payer, party, wall_ms()):
            yield Entry(payee, channel_reference(channel), theirs_ucr=ucr, grows=True)

    return books
