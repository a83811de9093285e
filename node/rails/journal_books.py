"""What a node's journal, or a judge's, says of its debtors: for the ledger of mutual debts, so that both come to the same.

    the ledger's balance with a party = what its vouchers have made due + its fees - what it has paid, but by set-off

All of it is in the statement of the same journal, line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...protocol.disputes import reference_of
from ..earnings import dues
from ..paid import fees, payments
from .ledger import Books, Entry, Ledger, channel_reference


def journal_books(state: Path) -> Books:
    """The books of the state directory's journal. Reading them raises `StoreError`; no journal has nothing to say."""

    def books(party: bytes | None) -> Iterator[Entry]:
        for channel, payer, ucr in dues(state, party):
            yield Entry(payer, channel_reference(channel), ours_ucr=ucr, grows=True)
        for fee in fees(state, party):
            yield Entry(fee.party, reference_of(fee.matter), ours_ucr=max(0, fee.ucr), theirs_ucr=max(0, -fee.ucr))
        for payment in payments(state, party):
            if payment.rail != Ledger.name:  # a set-off is in the ledger since it was taken there
                yield Entry(payment.payer, payment.id.hex(), ours_ucr=-payment.ucr)

    return books
