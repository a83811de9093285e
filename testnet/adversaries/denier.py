"""A node that works and will not be held to it: it signs no receipt, or one that it can disown.

    python -m fallow.testnet.adversaries.denier silent|disowns --config node.toml

Caught by: no receipt, no voucher. A client takes no chunk beyond a full window without a receipt, and no receipt that is
not signed by the very key that it ordered from; either breaks the job, unpaid, and the next node goes on with the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio
from nacl.signing import SigningKey

from ...node.delivery import Session
from ...protocol.receipts import OPEN


class Silent(Session):
    """Goes on as if receipts were for others."""

    async def _issue(self, end: str) -> None:
        if end != OPEN:
            await trio.sleep_forever()  # there is nothing more to deliver; heartbeats go on
        await trio.lowlevel.checkpoint()


class Disowning(Session):
    """Every receipt is signed by a key of the moment, of which nobody can say whose it was."""

    async def _issue(self, end: str) -> None:
        self._key = SigningKey.generate()
        await super()._issue(end)


MODES: Final[Mapping[str, type[Session]]] = {"silent": Silent, "disowns": Disowning}

if __name__ == "__main__":
    from ...node import serving
    from .seats import chosen, exchange, serve_node

    exchange(serving, "Session", chosen(MODES))
    serve_node()
