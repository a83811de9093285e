"""The books of both sides, compared: what nodes wrote down as earned, and what clients promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from ..client import Mesh
from ..node.earnings import earnings
from .local import Testnet

LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Payouts:
    """Micro-credits by owner (public key in hex)."""

    earned_ucr: Mapping[str, int]
    """By the nodes' journals: what vouchers cover of their receipts."""
    unpaid_ucr: Mapping[str, int]
    """What no voucher covers."""
    promised_ucr: Mapping[str, int]
    """By the clients' wallets: every voucher that was signed."""
    receipts: Mapping[str, int]
    """How many were issued."""

    @classmethod
    async def read(cls, testnet: Testnet, *clients: Mesh) -> Payouts:
        """The books as they are now, of nodes that run and of those that do not."""
        earned: Counter[str] = Counter()
        unpaid: Counter[str] = Counter()
        promised: Counter[str] = Counter()
        receipts: Counter[str] = Counter()
        for node in testnet.nodes:
            for row in await trio.to_thread.run_sync(earnings, node.folder):
                earned[node.owner] += row.paid_ucr
                unpaid[node.owner] += row.owed_ucr - row.paid_ucr
                receipts[node.owner] += 1
        for client in clients:
            promised.update(client.owed_by_owner())
        return cls(+earned, +unpaid, +promised, receipts)

    @property
    def balanced(self) -> bool:
        """Every owner earned exactly what was promised to them."""
        return dict(self.earned_ucr) == dict(self.promised_ucr)

    @property
    def total_ucr(self) -> int:
        return sum(self.earned_ucr.values())


async def balanced(testnet: Testnet, within_s: float, *clients: Mesh) -> Payouts:
    """The books once they agree, or as they are when the time is over: the last voucher of a job is on its way when the client
    already has the answer, and clients try checkers beside what they are asked."""
    with trio.move_on_after(within_s):
        for client in clients:
            await client.rest()
        while not (books := await Payouts.read(testnet, *clients)).balanced:  # noqa: ASYNC110  # others' journals
            await trio.sleep(LOOK_AGAIN_S)
        return books
    return await Payouts.read(testnet, *clients)
