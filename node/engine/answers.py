"""A running job as the daemon sees it: what the caller takes pieces from, and what the keeper puts them into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ...protocol.errors import Code, EngineError, RemoteProtocolError
from .messages import AHEAD_PIECES_MAX, EnginePiece

_GRANT: Final = AHEAD_PIECES_MAX // 4
"""Credit is given back in such lots: an eighth of the messages of one by one, and the worker never runs dry."""


class Answer:
    """The pieces of one job in order: `async for piece in answer`.

    Iteration ends after the last piece (the one with an `end`) or after `cancel`. It raises `EngineError` when the job
    failed, after the pieces that came before: `input_mismatch`, `input_too_long`, `unknown_entry`, `bad_record`
    (parameters that do not fit the entry), `worker_failed` (the computation broke), `worker_died`. A piece that is not
    taken holds the worker back: it runs at most `AHEAD_PIECES_MAX` ahead.
    """

    def __init__(self, incoming: trio.MemoryReceiveChannel[EnginePiece | EngineError], grant: Callable[[int], None]):
        self._incoming = incoming
        self._grant = grant
        self._taken = 0
        self._error: EngineError | None = None

    def __aiter__(self) -> Answer:
        return self

    @property
    def waiting(self) -> int:
        """Pieces that are there to be taken."""
        return self._incoming.statistics().current_buffer_used

    async def __anext__(self) -> EnginePiece:
        if self._error:
            raise self._error
        try:
            piece = await self._incoming.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if isinstance(piece, EngineError):
            self._error = piece
            raise piece
        self._taken += 1
        if self._taken == _GRANT:
            self._taken = 0
            self._grant(_GRANT)
        return piece


class OpenJob:
    """One job that the worker has, and its answer."""

    def __init__(self, bundle: bytes, area: int, grant: Callable[[int], None]) -> None:
        self.bundle = bundle
        self.area = area
        """Of shared memory."""
        # One place more than credit, so that an error always finds room behind the pieces.
        self._into, incoming = trio.open_memory_channel[EnginePiece | EngineError](AHEAD_PIECES_MAX + 1)
        self.answer = Answer(incoming, self._granted)
        self.cancelled = False
        self._tell_worker = grant
        self._credit = AHEAD_PIECES_MAX
        self._index = 0

    def add_untrusted(self, piece: EnginePiece) -> None:
        """The piece waits to be taken. Raises `RemoteProtocolError` if it is not the next, or more than was allowed."""
        if piece.index != self._index or not self._credit:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"Piece {piece.index} came too early or out of order.")
        self._index += 1
        self._credit -= 1
        if self.cancelled:
            return
        self._into.send_nowait(piece)
        if piece.end:
            self._into.close()

    @property
    def awaits_word(self) -> bool:
        """Whether the worker has to say something about it: a piece that it may make, or that it has stopped."""
        return self.cancelled or self._credit > 0

    def fail(self, error: EngineError) -> None:
        """The answer ends with `error`, unless it was cancelled."""
        if not self.cancelled:
            self._into.send_nowait(error)
            self._into.close()

    def cancel(self) -> None:
        """The answer ends after what is already in it."""
        self.cancelled = True
        self._into.close()

    def _granted(self, pieces: int) -> None:
        self._credit += pieces
        self._tell_worker(pieces)
