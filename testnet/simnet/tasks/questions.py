"""One question and its answer on a connection of the simulated network, as either side has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from ....protocol.errors import Code, NetworkError
from .streams import SMALL_BYTES

if TYPE_CHECKING:
    from .connections import Connection
    from .network import SimNetwork


class Question:
    """One question under way, as its asker sees it."""

    __slots__ = ("answer", "failure", "heard")

    def __init__(self) -> None:
        self.heard = trio.Event()
        self.answer = b""
        self.failure: NetworkError | None = None

    def take(self, answer: bytes) -> None:
        if not self.heard.is_set():
            self.answer = answer
            self.heard.set()

    def fail(self, why: str, code: Code = Code.STREAM_CLOSED) -> None:
        if not self.heard.is_set():
            self.failure = NetworkError(code, why)
            self.heard.set()


class Asked:
    """A question as the `Stream` that a service is used to: one frame comes, and then the end; one frame goes."""

    __slots__ = ("_connection", "_frame", "_here", "_question", "answered", "peer", "sent_bytes")

    def __init__(self, connection: Connection, here: SimNetwork, frame: bytes, question: Question) -> None:
        self.peer: Final = connection.far(here).key
        self.answered = False
        self.sent_bytes = 0
        self._connection = connection
        self._here = here
        self._frame: bytes | None = frame
        self._question = question

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._frame is None:
            raise NetworkError(Code.STREAM_CLOSED, "this was the one question")
        frame, self._frame = self._frame, None
        return frame

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.answered:
            raise NetworkError(Code.STREAM_CLOSED, "a question has one answer, and it has gone")
        self.answered = True
        log, asker, number = self._connection.medium.log, self._connection.far(self._here), self._connection.number

        def arrive() -> None:
            log.frame(asker.place.number, number, frame)
            self._question.take(frame)

        self._connection.carry(self._here, len(frame), arrive)
        self.sent_bytes = len(frame)

    async def close(self) -> None:
        await self.reset()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.answered:
            self.answered = True
            self._connection.carry(self._here, SMALL_BYTES, lambda: self._question.fail("the peer did not answer"))
