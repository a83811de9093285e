"""What others have measured of this node and signed: kept for a while, and shown to whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.limits import WITNESSES_MAX
from ..protocol.witness import Witness, check_witness_untrusted

OWNERS_MAX: Final = 64
"""Of whom one statement each is kept; the oldest makes place."""
AGAIN_S: Final = 60.0
"""A further statement of one peer before so long is not read: reading one costs four checks of signatures."""
PEERS_MAX: Final = 1024


class Witnesses:
    """Statements about this node, one of each owner but its own."""

    def __init__(self, node: bytes, owner: bytes, now_ms: Callable[[], int]) -> None:
        self._node = node
        self._owner = owner
        self._now_ms = now_ms
        self._heard: dict[bytes, tuple[Witness, bytes]] = {}
        """By owner, the newest last."""
        self._read_at: dict[bytes, float] = {}

    def take_untrusted(self, envelope: bytes, peer: bytes) -> None:
        """The statement is kept, if it says anything. Raises `RemoteProtocolError` if it does not hold, or is not the peer's
        own."""
        now = trio.current_time()
        if now - self._read_at.get(peer, -AGAIN_S) < AGAIN_S:
            return
        self._read_at.pop(peer, None)
        while len(self._read_at) >= PEERS_MAX:
            del self._read_at[next(iter(self._read_at))]
        self._read_at[peer] = now
        try:
            found = check_witness_untrusted(envelope, self._node, self._now_ms())
        except RemoteProtocolError as error:
            if error.code is Code.EXPIRED:
                return  # a clock that is off is no offence
            raise
        if found.statement.witness != peer:
            raise RemoteProtocolError(Code.BAD_SIGNATURE, "The statement is not that of the peer who brought it.")
        if found.owner == self._owner:
            return
        self._heard.pop(found.owner, None)
        while len(self._heard) >= OWNERS_MAX:
            del self._heard[next(iter(self._heard))]
        self._heard[found.owner] = (found.statement, envelope)

    def shown(self) -> tuple[bytes, ...]:
        """The newest that are still good."""
        now_ms = self._now_ms()
        good = [envelope for statement, envelope in self._heard.values() if now_ms < statement.expires_ms]
        return tuple(good[: -WITNESSES_MAX - 1 : -1])
