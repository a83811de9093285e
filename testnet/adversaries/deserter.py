"""A node that takes work and soon gives it back, as if its owner wanted the machine: to be paid a little, or to be in the way.

    python -m fallow.testnet.adversaries.deserter soon|at-once --config node.toml

Nobody can know whether an owner has come home, and all that it signs is true: no fault is ever proven. Bounded by the price of
a yielded job, its tokens and its start in proportion to those ordered: for nothing, nothing. The client goes on elsewhere, and
counts each text as failed by the share that was left undone: others come first the next time (`client.scheduler`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...node.delivery import Session
from ...node.engine.answers import Answer
from ...node.engine.messages import EnginePiece
from ...protocol.receipts import YIELDED

SOON: Final = 4
"""Pieces: enough to be paid something, and fewer than a client learns a rate from."""


class Leaving(Session):
    """It yields before its first piece."""

    pieces: int = 0
    """Delivered before it does."""

    async def _next(self, answer: Answer) -> EnginePiece | None:
        if self.delivery.pieces >= self.pieces:
            self.stop(YIELDED)
        return await super()._next(answer)


class LeavingSoon(Leaving):
    """It yields after a few pieces."""

    pieces = SOON


MODES: Final[Mapping[str, type[Session]]] = {"soon": LeavingSoon, "at-once": Leaving}

if __name__ == "__main__":
    from ...node import serving
    from .seats import chosen, exchange, serve_node

    exchange(serving, "Session", chosen(MODES))
    serve_node()
