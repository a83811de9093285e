"""A running job as the daemon sees it: what the caller takes pieces from, and what the keeper puts them into."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import trio

from ...protocol.errors import Code, EngineError, RemoteProtocolError
from ...protocol.limits import JOB_MS_MAX, MESSAGE_BYTES_MAX
from .messages import AHEAD_PIECES_MAX, EngineJob, EnginePiece

_GRANT: Final = AHEAD_PIECES_MAX // 4
"""Credit is given back in such lots: an eighth of the messages of one by one, and the worker never runs dry."""

HELD_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 1024**2
"""What may wait to be taken of one job: the largest piece, of which every answer has one at most, and a window of small ones.
So all jobs together hold a worker's slots times this, 20 MiB of four."""

_VALUE_BYTES: Final = 40
"""A number and its place in a tuple."""

PIECE_S_MAX: Final = JOB_MS_MAX / 1000
"""From job to piece, or from one to the next: no stream waits longer for the whole answer."""

CANCEL_S_MAX: Final = 60.0
"""A cancelled job is dropped between two steps, whatever the worker says of others meanwhile."""


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
        self.held_bytes = 0
        """Of the pieces that wait."""
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
        self.held_bytes -= size_bytes(piece)
        self._taken += 1
        if self._taken == _GRANT:
            self._taken = 0
            self._grant(_GRANT)
        return piece


class OpenJob:
    """One job that the worker has, and its answer."""

    def __init__(self, job: EngineJob, area: int, grant: Callable[[int], None]) -> None:
        self.bundle = job.bundle
        self.area = area
        """Of shared memory."""
        self.beats = job.input_tokens + job.calls
        """Steps without a piece that the job may need at most."""
        # One place more than credit, so that an error always finds room behind the pieces.
        self._into, incoming = trio.open_memory_channel[EnginePiece | EngineError](AHEAD_PIECES_MAX + 1)
        self.answer = Answer(incoming, self._granted)
        self.cancelled = False
        self._tell_worker = grant
        self._credit = AHEAD_PIECES_MAX
        self._index = 0
        self._due = trio.current_time() + PIECE_S_MAX

    def add_untrusted(self, piece: EnginePiece) -> None:
        """The piece waits to be taken. Raises `RemoteProtocolError` if it is not the next, more than was allowed, or says of
        other than its own tokens what it says of them."""
        if piece.index != self._index or not self._credit:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"Piece {piece.index} came too early or out of order.")
        said = {len(piece.values_micro), len(piece.gaps_micro) or piece.tokens, len(piece.masses_ppm) or piece.tokens}
        if said != {piece.tokens}:
            raise RemoteProtocolError(Code.BAD_RECORD, f"A piece of {piece.tokens} tokens has values of others.")
        self._index += 1
        self._credit -= 1
        if self.cancelled:
            return
        self._due = trio.current_time() + PIECE_S_MAX
        self.answer.held_bytes += size_bytes(piece)
        if self.answer.held_bytes > HELD_BYTES_MAX:
            raise RemoteProtocolError(Code.TOO_LARGE, f"{self.answer.held_bytes} bytes of one answer wait to be taken.")
        self._into.send_nowait(piece)
        if piece.end:
            self._into.close()

    @property
    def awaits_word(self) -> bool:
        """Whether the worker has to say something about it: a piece that it may make, or that it has stopped."""
        return self.cancelled or self._credit > 0

    @property
    def due(self) -> float:
        """When that is late, in trio's time."""
        return self._due if self.awaits_word else inf

    def postpone(self, seconds: float) -> None:
        """Nothing could be done for it so long."""
        self._due += seconds

    def fail(self, error: EngineError) -> None:
        """The answer ends with `error`, unless it was cancelled."""
        if not self.cancelled:
            self._into.send_nowait(error)
            self._into.close()

    def cancel(self) -> None:
        """The answer ends after what is already in it."""
        self.cancelled = True
        self._due = trio.current_time() + CANCEL_S_MAX
        self._into.close()

    def _granted(self, pieces: int) -> None:
        if not self._credit:
            self._due = trio.current_time() + PIECE_S_MAX
        self._credit += pieces
        self._tell_worker(pieces)


def size_bytes(piece: EnginePiece) -> int:
    """What it takes of memory, about."""
    return len(piece.sealed) + _VALUE_BYTES * (len(piece.values_micro) + len(piece.gaps_micro) + len(piece.masses_ppm))
