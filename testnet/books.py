"""Whether money was conserved: what nodes hold of certain clients' promises, against what those clients promised.

A promise is a signed voucher; a node's journal and a client's wallet each have it on disk before it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ..client.wallet import Wallet
from ..node.earnings import earnings
from ..node.keys import load_or_create
from .record import LocalNode

WALLET: Final = "wallet.db"
CLIENT_KEY: Final = Path("keys", "client")
LOOK_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Books:
    """Micro-credits by owner (public key in hex)."""

    earned_ucr: Mapping[str, int]
    """By the nodes' journals: what vouchers of these clients cover, and is not forfeited."""
    unpaid_ucr: Mapping[str, int]
    """What these clients took, by the nodes' receipts, and no voucher covers: each side can lose a window."""
    promised_ucr: Mapping[str, int]
    """By the clients' wallets."""

    def differences(self) -> dict[str, int]:
        """Owners who hold more than was promised to them (above 0), or less."""
        owners = {*self.earned_ucr, *self.promised_ucr}
        apart = {owner: self.earned_ucr.get(owner, 0) - self.promised_ucr.get(owner, 0) for owner in owners}
        return {owner: ucr for owner, ucr in apart.items() if ucr}

    @property
    def conserved(self) -> bool:
        """Every owner holds exactly what was promised to them."""
        return not self.differences()

    @property
    def total_ucr(self) -> int:
        return sum(self.promised_ucr.values())


def read(nodes: Sequence[LocalNode], clients: Sequence[Path]) -> Books:
    """The books as they are on disk, of nodes that run and of those that do not; `clients` are the clients' homes.

    Raises `StoreError` for a journal or a wallet that cannot be read.
    """
    earned: Counter[str] = Counter()
    unpaid: Counter[str] = Counter()
    promised: Counter[str] = Counter()
    payers = set()
    for home in clients:
        key = load_or_create(home / CLIENT_KEY)
        payers.add(bytes(key.verify_key))
        with closing(Wallet(home / WALLET, key)) as wallet:
            promised.update({owner.hex(): ucr for owner, ucr in wallet.owed_by_owner().items()})
    for node in nodes:
        for row in earnings(node.folder):
            if row.payer in payers:
                earned[node.owner] += row.paid_ucr
                unpaid[node.owner] += row.owed_ucr - row.paid_ucr
    return Books(+earned, +unpaid, +promised)


async def settled(nodes: Sequence[LocalNode], clients: Sequence[Path], wait_s: float) -> Books:
    """The books, once they agree; as they are after `wait_s` at the latest."""
    by = trio.current_time() + wait_s
    while True:
        books = await trio.to_thread.run_sync(read, nodes, clients)
        if books.conserved or trio.current_time() >= by:
            return books
        await trio.sleep(LOOK_AGAIN_S)
