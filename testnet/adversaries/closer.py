"""A node that signs a text as whole after its first window, with not one token more: its start is then due in full.

    python -m fallow.testnet.adversaries.closer --config node.toml

It says of no token that it is the model's end, so it need not lie in any. Caught by the text itself: one that has neither an
end token nor as many tokens as were ordered has not ended, whatever its last receipt says. The client pays the first window,
refuses the rest, and goes on elsewhere.
"""

from __future__ import annotations

from ...node.delivery import Session
from ...node.engine.answers import Answer
from ...node.engine.messages import EnginePiece
from ...protocol.receipts import FINAL


class Closing(Session):
    """Its second receipt is the last one."""

    async def _next(self, answer: Answer) -> EnginePiece | None:
        if self.delivery.receipts and self._stop is None:
            await self._issue(FINAL)
            return None
        return await super()._next(answer)


if __name__ == "__main__":
    from ...node import serving
    from .seats import exchange, serve_node

    exchange(serving, "Session", Closing)
    serve_node()
