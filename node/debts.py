"""What each payer owes by the journal, has promised and has paid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .earnings import Earning, earnings
from .paid import fees, payments


@dataclass(frozen=True, slots=True)
class Debt:
    """One payer, over all its channels with this node."""

    payer: bytes
    receipts: int
    owed_ucr: int
    """Of all receipts, less what was forfeited, and the fees that judges say it owes."""
    promised_ucr: int
    """Of that, what vouchers cover, whether it is due or held, and the fees."""
    settled_ucr: int

    @property
    def open_ucr(self) -> int:
        """Promised and not paid; less than nothing if paid ahead."""
        return self.promised_ucr - self.settled_ucr


def debts(state: Path, now_ms: int | None = None) -> list[Debt]:
    """Every payer of the state directory, who owes most first. Reads only, also while the node runs."""
    rows, settled, owed = earnings(state, now_ms), Counter[bytes](), Counter[bytes]()
    for fee in fees(state):
        owed[fee.party] += max(0, fee.ucr)
    for payment in payments(state):
        settled[payment.payer] += payment.ucr
    found: dict[bytes, list[Earning]] = {payer: [] for payer in (*settled, *(+owed))}
    for row in rows:
        found.setdefault(row.payer, []).append(row)
    debts = [
        Debt(
            payer,
            len(own),
            sum(row.owed_ucr - row.forfeited_ucr for row in own) + owed[payer],
            sum(row.paid_ucr for row in own) + owed[payer],
            settled[payer],
        )
        for payer, own in found.items()
    ]
    return sorted(debts, key=lambda debt: (-debt.open_ucr, debt.payer))
