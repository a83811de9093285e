"""A node that accepts work and keeps it: it stops after some tokens, or gives each as late as it may.

    python -m fallow.testnet.adversaries.staller stops|slow --config node.toml

Heartbeats go on, so silence does not give it away. Caught by the order's own bounds (`first_chunk_ms_max`, `gap_ms_max`):
the client's clock breaks the job, unpaid beyond the windows that it was given, and the text goes on elsewhere. Within the
bounds nothing is broken; the client then remembers the rate, and prefers others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from ...node.delivery import Session
from ...node.engine.answers import Answer
from ...node.engine.messages import EnginePiece

STOPS_AFTER: Final = 3
"""Pieces: enough for the client to take it for alive."""
PACE_S: Final = 10.0
"""Within the 15 s that clients allow between two chunks."""


class Stopping(Session):
    """Delivers a little, and then nothing."""

    async def _next(self, answer: Answer) -> EnginePiece | None:
        if self.delivery.pieces >= STOPS_AFTER:
            await trio.sleep_forever()  # until the client has had enough and breaks the stream
        return await super()._next(answer)


class Slow(Session):
    """Delivers each piece after a while, and stops when it is told to."""

    async def _next(self, answer: Answer) -> EnginePiece | None:
        with trio.move_on_after(PACE_S):
            while self._stop is None:
                await self._changed()
        return await super()._next(answer)


MODES: Final[Mapping[str, type[Session]]] = {"stops": Stopping, "slow": Slow}

if __name__ == "__main__":
    from ...node import serving
    from .seats import chosen, exchange, serve_node

    exchange(serving, "Session", chosen(MODES))
    serve_node()
