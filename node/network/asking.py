"""The asker's side of control streams: one for each peer, opened at the first question and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from weakref import WeakSet

import trio
from libp2p.peer.id import ID

from ...protocol.errors import Code, NetworkError, RemoteProtocolError
from ...protocol.streams import CONTROL_PROTOCOL
from .boundary import Tasks
from .control import ANSWER_BYTES_MAX, NUMBER_MAX, OPEN_MAX, QUESTION_BYTES_MAX, Ask, Cancel, Part, Reason, Refused
from .control import decode_untrusted as decode_word_untrusted
from .control import encode as encode_word
from .dialling import Dialler
from .identity import Multiaddr, bare_addresses, id_of
from .idle import IDLE_S
from .muxer import Muxer
from .outbox import Outbox
from .standing import Fault
from .streams import FrameStream


class Asking:
    """The questions of one host."""

    def __init__(self, dialler: Dialler, tasks: Tasks) -> None:
        self._dialler = dialler
        self._tasks = tasks
        self._askers: dict[ID, Asker] = {}
        self._opening: dict[ID, trio.Lock] = {}
        self._without: WeakSet[Muxer] = WeakSet()
        """Connections to peers that know no control streams."""

    async def request(
        self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = (), *, passing: bool = False
    ) -> bytes:
        """See `Network.request`."""
        known = id_of(peer)
        where = bare_addresses(known, addresses)
        if (answered := await self.over_control(known, protocol, frame, where)) is not None:
            answer, muxed = answered
            if not passing:
                muxed.keep_s = IDLE_S
            return answer
        return await self._over_its_own_stream(known, protocol, frame, where, passing=passing)

    async def over_control(
        self,
        peer: ID,
        protocol: str,
        frame: bytes,
        addresses: Sequence[Multiaddr],
        brief: Callable[[Muxer], bytes | None] = lambda connection: None,
    ) -> tuple[bytes, Muxer] | None:
        """The answer and the connection on which it came; None if it needs a stream of its own. Raises as `request`.

        `brief` says it in fewer words to whoever has heard the rest on this very connection.
        """
        again = True
        while len(frame) <= QUESTION_BYTES_MAX and (asker := await self._asker(peer, addresses)):
            if await asker.has_room():
                try:
                    return await asker.ask(protocol, brief(asker.connection) or frame), asker.connection
                except NetworkError:
                    if asker.connected or not again:
                        raise
                again = False  # a connection that turns out to be dead is replaced, once
        return None

    def leave(self, peer: ID) -> None:
        """The next question goes over a control stream of its own making."""
        self._askers.pop(peer, None)

    async def _asker(self, peer: ID, addresses: Sequence[Multiaddr]) -> Asker | None:
        """The peer's control stream; None if it knows none."""
        if (asker := self._askers.get(peer)) and asker.usable:
            return asker
        await self._dialler.connect(peer, addresses)
        lock = self._opening.setdefault(peer, trio.Lock())
        try:
            async with lock:
                if (asker := self._askers.get(peer)) and asker.usable:
                    return asker
                return await self._open(peer, addresses)
        finally:
            if not lock.statistics().tasks_waiting:
                self._opening.pop(peer, None)

    async def _open(self, peer: ID, addresses: Sequence[Multiaddr]) -> Asker | None:
        if not self._without.isdisjoint(self._dialler.standing(peer)):
            return None
        try:
            stream = await self._dialler.open(peer, CONTROL_PROTOCOL, addresses)
        except NetworkError as error:
            if error.code is not Code.PROTOCOL_UNSUPPORTED:
                raise
            self._without.update(self._dialler.standing(peer))
            return None
        framed = FrameStream(stream, self._tasks)
        self._tasks.spawn(framed.pump)
        asker = self._askers[peer] = Asker(framed)
        self._tasks.spawn(partial(self._run, peer, asker))
        return asker

    async def _run(self, peer: ID, asker: Asker) -> None:
        try:
            await asker.run()
        finally:
            if self._askers.get(peer) is asker:
                del self._askers[peer]

    async def _over_its_own_stream(
        self, peer: ID, protocol: str, frame: bytes, addresses: Sequence[Multiaddr], *, passing: bool
    ) -> bytes:
        stream = FrameStream(await self._dialler.open(peer, protocol, addresses), self._tasks)
        if not passing:
            stream.connection.keep_s = IDLE_S
        self._tasks.spawn(stream.pump)
        try:
            await stream.send(frame)
            answer = await stream.receive()
        except BaseException:
            self._tasks.spawn(stream.reset)
            raise
        await stream.close()
        return answer


class _Question:
    """One that has no end yet."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.answer = bytearray()
        self.length = 0
        self.failure: NetworkError | None = None
        self.given_up = False
        """Its asker was cancelled: what still comes is not kept, and the other side has to say that it ends."""


class Asker:
    """Questions on one control stream. `run` must run for as long as it is used."""

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream
        self._outbox = Outbox(stream)
        self._open: dict[int, _Question] = {}
        self._newest = 0
        self._fewer = trio.Event()
        self._end: NetworkError | None = None
        stream.set_working(False)

    @property
    def connection(self) -> Muxer:
        """The one below."""
        return self._stream.connection

    @property
    def connected(self) -> bool:
        """Whether the connection below stands."""
        return self._stream.connected

    @property
    def usable(self) -> bool:
        """Whether a question can be asked on it."""
        return self._end is None and self._newest < NUMBER_MAX and self.connected

    async def has_room(self) -> bool:
        """One more question may be asked now. False if none can be any more: another stream is needed."""
        while len(self._open) >= OPEN_MAX and self.usable:
            if all(each.given_up for each in self._open.values()):
                self._finish(NetworkError(Code.STREAM_CLOSED, "the peer ends no question that it is asked"))
            else:
                await self._fewer.wait()
        return self.usable

    async def ask(self, protocol: str, question: bytes) -> bytes:
        """The answer; there has to be room. Raises `protocol_unsupported`, or `stream_closed` where there will be none.

        Cancelled, the peer is told so.
        """
        self._newest = number = self._newest + 1
        asked = self._open[number] = _Question()
        self._stream.set_working(True, watched=True)
        self._outbox.say(encode_word(Ask(number, protocol, question)))
        try:
            await asked.ended.wait()
        finally:
            if not asked.ended.is_set():
                self._give_up(number, asked)
        if asked.failure is not None:
            raise asked.failure
        return bytes(asked.answer)

    def _give_up(self, number: int, asked: _Question) -> None:
        asked.given_up = True
        self._let_go(asked)
        self._outbox.say(encode_word(Cancel(number)))
        self._rest()

    async def run(self) -> None:
        """Every question has its end, the last ones by that of the stream."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._listen()
                nursery.cancel_scope.cancel()
        finally:
            self._finish(NetworkError(Code.STREAM_CLOSED, "the network was closed"))
            await self._stream.reset()

    async def _write(self) -> None:
        with suppress(NetworkError):  # the listener hears of the end, too
            await self._outbox.run()

    async def _listen(self) -> None:
        try:
            while self._end is None:
                self._take(await self._stream.receive())
        except NetworkError as error:
            self._finish(error)
        except RemoteProtocolError as error:
            self._stream.blame(Fault.BAD_FRAME)
            self._finish(NetworkError(error.code, f"the peer broke the rules of control streams: {error.message}"))

    def _take(self, frame: bytes) -> None:
        word = decode_word_untrusted(frame)
        if not isinstance(word, Part | Refused):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "Whoever answers a control stream asks nothing on it.")
        asked = self._open.get(word.number)
        if asked is None:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"Question {word.number} is not open.")
        if isinstance(word, Refused):
            asked.failure = _refused(word.reason)
            return self._close(word.number, asked)
        asked.length += len(word.content)
        if asked.length > ANSWER_BYTES_MAX:
            raise RemoteProtocolError(Code.TOO_LARGE, f"An answer has at most {ANSWER_BYTES_MAX} bytes.")
        if not asked.given_up:
            asked.answer += word.content
            self._stream.keep(len(word.content))
        if word.last:
            self._close(word.number, asked)

    def _close(self, number: int, asked: _Question) -> None:
        del self._open[number]
        self._stream.keep(-len(asked.answer))
        asked.ended.set()
        self._fewer.set()
        self._fewer = trio.Event()
        self._rest()

    def _let_go(self, asked: _Question) -> None:
        self._stream.keep(-len(asked.answer))
        asked.answer.clear()

    def _rest(self) -> None:
        """Without a question that somebody waits for, the stream is no use of its connection, nor watched."""
        if all(each.given_up for each in self._open.values()):
            self._stream.set_working(False)

    def _finish(self, end: NetworkError) -> None:
        """Nothing more comes; the first end counts."""
        if self._end is None:
            self._end = end
            self._stream.cease()
        for number, asked in list(self._open.items()):
            self._let_go(asked)
            asked.failure = NetworkError(self._end.code, self._end.message)
            self._close(number, asked)


def _refused(reason: Reason) -> NetworkError:
    if reason is Reason.UNSUPPORTED:
        return NetworkError(Code.PROTOCOL_UNSUPPORTED, "the peer answers nothing under that protocol")
    if reason is Reason.BUSY:
        return NetworkError(Code.STREAM_CLOSED, "the peer has too much to answer: ask again later")
    return NetworkError(Code.STREAM_CLOSED, "the peer did not answer")
