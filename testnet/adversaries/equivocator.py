"""A node that signs two receipts for one window: one for the client, and one that says that it earned more.

    python -m fallow.testnet.adversaries.equivocator --config node.toml

Here both go to the client, who is the one that could show them. Caught twice: the second does not say what was delivered,
which breaks the job; and two different receipts of one order and sequence prove the fault to anybody who has them
(`protocol.evidence.prove`), without a vote. What the first receipt stands for was done, and is paid once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...node.delivery import Session
from ...protocol.envelope import sign
from ...protocol.messages.codec import encode_message
from ...protocol.messages.jobs import ReceiptMessage

MORE_UCR: Final = 1_000
"""By which the second receipt says more."""


class Equivocating(Session):
    """After each true receipt comes another one of the same sequence."""

    async def _issue(self, end: str) -> None:
        await super()._issue(end)
        true = self.delivery.receipts[-1].record
        other = sign(replace(true, amount_ucr=true.amount_ucr + MORE_UCR), self._key)
        async with self._writing:
            await self._stream.send(encode_message(ReceiptMessage(other.envelope)))


if __name__ == "__main__":
    from ...node import serving
    from .seats import exchange, serve_node

    exchange(serving, "Session", Equivocating)
    serve_node()
