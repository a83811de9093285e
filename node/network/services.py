"""What this node serves, whichever way it is asked: over a stream of its own, or as a question of a control stream."""

from __future__ import annotations

import logging
from collections import Counter

from ...protocol.errors import FallowError
from .seam import STREAMS_PER_PEER_MAX, Handler, Stream


class Service:
    """One protocol, and whom it serves now."""

    def __init__(self, handler: Handler, *, watched: bool = False, per_peer_max: int = STREAMS_PER_PEER_MAX) -> None:
        self.watched = watched
        """Its streams are: they live by their heartbeats, and are no questions with one answer."""
        self._handler = handler
        self._per_peer_max = per_peer_max
        self._serving: Counter[bytes] = Counter()

    def admit(self, peer: bytes) -> bool:
        """Whether the peer may have one more stream or question of this protocol; if so, it counts until `run` returns."""
        if self._serving[peer] >= self._per_peer_max:
            return False
        self._serving[peer] += 1
        return True

    async def run(self, stream: Stream) -> None:
        """The handler has run for a stream that was admitted, which was closed then; whatever it raised reset the stream."""
        peer = stream.peer
        try:
            await self._handler(stream)
        except Exception as error:
            if not _expected(error):
                logging.getLogger(__name__).exception("a stream handler failed; its stream was reset")
            await stream.reset()
        else:
            await stream.close()
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]


def _expected(error: BaseException) -> bool:
    """Whether it tells of a peer that left or broke a rule, and not of a bug of ours."""
    if isinstance(error, BaseExceptionGroup):
        return all(_expected(inner) for inner in error.exceptions)
    return isinstance(error, FallowError)
