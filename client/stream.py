"""A text as it comes: chunks for who iterates, and the work behind them in a task of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from ..protocol.limits import OUTPUT_TOKENS_MAX
from .answers import Answer, Chunk
from .ungrouping import ungrouped


class TextWork(Protocol):
    """A text under way, as `TextJob` is."""

    async def run(self) -> Answer:
        """The finished answer."""

    def abandon(self) -> None:
        """The reader has left."""


class TextStream:
    """Chunks as they come, then `answer`. Iterate it once; left early, `aclose` it, or use it as a context manager."""

    def __init__(self, begin: Callable[[Callable[[Chunk], None]], Awaitable[TextWork]], nursery: trio.Nursery) -> None:
        self._begin = begin
        self._job: TextWork | None = None
        self._left = False
        self._nursery: trio.Nursery | None = nursery
        # Bounded by the answer's own length: one chunk for each token, and rewrites.
        self._send, self._chunks = trio.open_memory_channel[Chunk](8 * OUTPUT_TOKENS_MAX)
        self._answer: Answer | None = None
        self._failure: Exception | None = None
        self.done = trio.Event()
        """Everything is judged and paid."""

    @property
    def answer(self) -> Answer:
        """The finished answer, once the iteration has ended."""
        if self._answer is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._answer

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk. Raises the `FallowError` that says why there is no answer."""
        if self._nursery is not None:
            self._nursery.start_soon(self._work)
            self._nursery = None
        try:
            return await self._chunks.receive()
        except trio.EndOfChannel:
            if self._failure:
                raise self._failure from None
            raise StopAsyncIteration from None

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing more is asked for. What was delivered by then is judged and paid in the background."""
        self._left = True
        if self._job is not None:
            self._job.abandon()
        if self._nursery is not None:  # never begun
            self._nursery = None
            self._send.close()
            self.done.set()
        await trio.lowlevel.checkpoint()

    async def _work(self) -> None:
        with self._send:
            try:
                self._job = await self._begin(self._send.send_nowait)
                if not self._left:
                    self._answer = await self._job.run()
            except Exception as error:  # noqa: BLE001 - a job's own task: its reader gets it, the other jobs go on
                self._failure = ungrouped(error)
            finally:
                self.done.set()
