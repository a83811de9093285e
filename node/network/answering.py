"""The answerer's side of control streams: every service is there to be asked, but those whose streams are watched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import trio

from ...protocol.errors import Code, NetworkError, RemoteProtocolError
from .control import OPEN_MAX, PART_BYTES, Ask, Cancel, Reason, Refused, decode_untrusted, encode, parts
from .limits import CONNECTIONS_PEER_MAX
from .outbox import Outbox
from .seam import FRAME_BYTES_MAX, Stream
from .services import Service
from .standing import Fault
from .streams import FrameStream

STREAMS_MAX: Final = CONNECTIONS_PEER_MAX
"""Control streams of one peer: one on each connection."""

ANSWERS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Long answers of one stream that wait to be sent, together. Two whole frames, or eight chunks of a bundle."""

WORDS_SEC: Final = 1024.0
WORDS_BURST: Final = 1024.0
"""What is taken from one stream; beyond it, the asker waits. One host answers some 800 questions a second."""


def control(services: Mapping[str, Service]) -> Service:
    """What serves control streams."""

    async def answer(stream: Stream) -> None:
        assert isinstance(stream, FrameStream), "control streams are not asked for on control streams"
        await _Answers(stream, services).run()

    return Service(answer, per_peer_max=STREAMS_MAX)


class _Answers:
    """One control stream."""

    def __init__(self, stream: FrameStream, services: Mapping[str, Service]) -> None:
        self.stream = stream
        self.outbox = Outbox(stream)
        self.waiting_bytes = 0
        """Of long answers."""
        self._services = services
        self._open: dict[int, trio.CancelScope] = {}
        self._newest = 0
        self._may_take, self._may_take_at = WORDS_BURST, trio.current_time()
        stream.set_working(False)

    async def run(self) -> None:
        """Everything was answered that was asked until the stream ended. Raises what ended it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.outbox.run)
            while True:
                await self._pace()
                frame = await self.stream.receive()
                try:
                    self._take(frame, nursery)
                except RemoteProtocolError:
                    self.stream.blame(Fault.BAD_FRAME)
                    raise

    async def _pace(self) -> None:
        """Neither too fast, nor while the asker does not take what was said: meanwhile its bounds hold it back."""
        await self.outbox.at_most(2 * OPEN_MAX)
        now = trio.current_time()
        self._may_take = min(WORDS_BURST, self._may_take + (now - self._may_take_at) * WORDS_SEC) - 1
        self._may_take_at = now
        if self._may_take < 0:
            await trio.sleep(-self._may_take / WORDS_SEC)

    def _take(self, frame: bytes, nursery: trio.Nursery) -> None:
        word = decode_untrusted(frame)
        if isinstance(word, Ask):
            self._begin(word, nursery)
        elif isinstance(word, Cancel) and 0 < word.number <= self._newest:
            if scope := self._open.get(word.number):
                scope.cancel()  # [IGNORE] otherwise: it has met the end on the way
        else:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "An asker asks, and cancels what it has asked.")

    def _begin(self, ask: Ask, nursery: trio.Nursery) -> None:
        if ask.number <= self._newest:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"Question {ask.number} does not come after those before it.")
        self._newest = ask.number
        service = self._services.get(ask.protocol)
        if len(self._open) >= OPEN_MAX:
            self.stream.blame(Fault.REFUSED_STREAM)
            self._refuse(ask.number, Reason.BUSY)
        elif service is None or service.watched:
            self._refuse(ask.number, Reason.UNSUPPORTED)
        elif not service.admit(self.stream.peer):
            self._refuse(ask.number, Reason.BUSY)
        else:
            scope = self._open[ask.number] = trio.CancelScope()
            self.stream.set_working(True)
            nursery.start_soon(self._answer, ask, service, scope)

    async def _answer(self, ask: Ask, service: Service, scope: trio.CancelScope) -> None:
        asked = Asked(self, ask)
        with scope:
            await service.run(asked)
        del self._open[ask.number]
        if not asked.answered:
            self._refuse(ask.number, Reason.CANCELLED if scope.cancelled_caught else asked.reason)
        if not self._open:
            self.stream.set_working(False)

    def _refuse(self, number: int, reason: Reason) -> None:
        self.outbox.say(encode(Refused(number, reason)))


class Asked:
    """A question as the `Stream` that a service is used to: one frame comes, and then the end; one frame goes."""

    def __init__(self, answers: _Answers, ask: Ask) -> None:
        self.peer: Final = answers.stream.peer
        self.connection: Final = answers.stream.connection
        self.answered = False
        """All of the answer is on its way."""
        self.sent_bytes = 0
        self.reason = Reason.FAILED
        """Why there is none, if there is none."""
        self._answers = answers
        self._number = ask.number
        self._question: bytes | None = ask.question
        self._ended = False

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._question is None:
            raise NetworkError(Code.STREAM_CLOSED, "this was the one question")
        question, self._question = self._question, None
        return question

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._ended:
            raise NetworkError(Code.STREAM_CLOSED, "a question has one answer, and it has gone")
        if len(frame) > FRAME_BYTES_MAX:
            raise NetworkError(Code.TOO_LARGE, f"a frame has at most {FRAME_BYTES_MAX} bytes, not {len(frame)}")
        self._ended = True
        if len(frame) <= PART_BYTES:
            for only in self._parts(frame):
                self._answers.outbox.say(only)
        else:
            await self._send_long(frame)
        self.answered = True

    async def _send_long(self, frame: bytes) -> None:
        answers = self._answers
        if answers.waiting_bytes + len(frame) > ANSWERS_BYTES_MAX:
            self.reason = Reason.BUSY
            raise NetworkError(Code.STREAM_CLOSED, f"{answers.waiting_bytes} bytes wait for this peer to take them")
        answers.waiting_bytes += len(frame)
        try:
            await answers.outbox.carry(self._parts(frame))
        finally:
            answers.waiting_bytes -= len(frame)

    def _parts(self, frame: bytes) -> Iterator[bytes]:
        for part in parts(self._number, frame):
            self.sent_bytes += len(part)
            yield part

    async def close(self) -> None:
        await self.reset()

    async def reset(self) -> None:
        self._ended, self._question = True, None
        await trio.lowlevel.checkpoint()
