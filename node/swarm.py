"""Content by its hashes from many peers at once: who is asked for what, and who is asked no more.

    known --open--> asked --gives----------------------------> asked
                      |--wrong content-----------------------> never asked again
                      |--has it not--------------------------> asked for something else, first for what it says that it has
                      |--has no place for us-----------------> asked again when it says
                      '--silent for CHUNK_S, left, has nothing-> asked again after a while

Each source has a standing stream with a few questions on the way, so that no round trip is waited for. When all that is
wanted has been asked for, a source without work asks for what another has not given in `STEAL_S`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from ..protocol.errors import Code, FallowError, NetworkError, Refused, RemoteProtocolError
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.discovery import BlobReply, BlobRequest
from ..protocol.messages.refusals import RefuseMessage, code_of
from ..protocol.streams import BLOB_PROTOCOL
from .causes import leaves
from .machine import beside
from .network.seam import Network, Provider, Stream
from .pace import Budget

SOURCES_MAX: Final = 8
"""Asked at once: with `PIPELINE` chunks each, 32 MiB on the way at most. One or two saturate a core with libp2p."""
PIPELINE: Final = 4
"""Questions on the way to one source: 4 MiB cover 100 Mbit/s at 300 ms. Unread frames are bounded at four times that."""
LACKS_S: Final = 10.0
"""What a source has not, it is not asked for again for so long: whoever fetches has a percent more by then, or ten."""
LACKS_MAX: Final = 16
"""So many in a row that it has not: it gives nothing, or too little, and is left for a while."""
KNOWN_MAX: Final = 1024
"""Possible sources that are remembered: more than one search of the table names, and strangers may name any number."""
OPEN_S: Final = 10.0
"""To reach a source and open a stream: two round trips on a bad link, and a dead address before the good one."""
CHUNK_S: Final = 60.0
"""For each next chunk of 1 MiB from one source: its owner may give as little as 23 kB/s to all who ask (`blobs.ANSWER_S`).
Nobody waits so long for it at the end: what is late is asked of others."""
STEAL_S: Final = 2.0
"""A chunk that somebody has not given for so long is asked of a second one, if nothing else is left to ask for."""
ASKED_MAX: Final = 2
"""Sources that one chunk is asked of at a time."""
RETRY_S: Final = 30.0
"""A source that failed is asked again so much later, and twice as much after each further failure."""
FAILURES_MAX: Final = 6
"""Doublings of that: about half an hour."""
LOOK_S: Final = 15.0
"""Between two searches for more sources, while there are fewer than could be used."""
ALONE_S: Final = 2.0
"""The same while nobody at all gives anything; and until a source is asked again that gave something, and then ended the
stream or had no more to give for now."""
PATIENCE_S: Final = 150.0
"""Without a single chunk, with nobody busy, and the wait not our own: then nobody is there who has it."""
BUSY_S: Final = 960.0
"""The same while a source says that it is busy. It is there, and gives to others: whoever is last in its line has a turn after
half of that (`places.LINE_MAX`)."""

Keep = Callable[[bytes, bytes], bool]
"""Takes hash and content, in a thread: False if this is not the content of that hash, and then nothing was kept."""


@dataclass
class _Source:
    provider: Provider
    failures: int = 0
    not_before: float = -float("inf")
    active: bool = False
    busy: bool = False
    """It had no place for us when it was last asked."""
    lacks: dict[bytes, float] = field(default_factory=dict)
    """What it said that it has not, and when: it may be fetching, too."""
    named: dict[bytes, None] = field(default_factory=dict)
    """What it said that it has, of what is wanted, and was not asked for yet; a dict because it keeps their order."""

    def may_have(self, wanted: bytes) -> bool:
        return trio.current_time() - self.lacks.get(wanted, -LACKS_S) >= LACKS_S

    def take_names(self, has: Iterable[bytes]) -> None:
        """It is asked for these next, whatever it lacked before: it may have got it meanwhile."""
        for each in has:
            self.named[each] = None
            self.lacks.pop(each, None)


class Swarm:
    """Whoever may have what is wanted, and what they have shown of themselves."""

    def __init__(
        self,
        network: Network,
        find: Callable[[], Awaitable[Sequence[Provider]]],
        budgets: Sequence[Budget] = (),
        patience_s: float = PATIENCE_S,
        wrong: Counter[bytes] | None = None,
        busy_s: float = BUSY_S,
    ) -> None:
        """`wrong` is what is known, and comes to be known, of peers that sent wrong contents."""
        self._network = network
        self._find = find
        self._budgets = budgets
        self._patience_s = patience_s
        self._busy_s = busy_s
        self._known: dict[bytes, _Source] = {}
        self._fresh: dict[bytes, int] = {}
        """Asked of nobody, with their lengths; a dict because it keeps their order."""
        self._asked: dict[bytes, dict[bytes, float]] = {}
        """On the way: of whom, and since when."""
        self._lengths: Mapping[bytes, int] = {}
        self._news = trio.Event()
        self._gained_at = self._searched_at = -float("inf")
        self._busy_at = -float("inf")
        """When a source was last known to be busy."""
        self._paying = self._keeping = 0
        self.gave: Counter[bytes] = Counter()
        """Bytes that were kept, by peer."""
        self.wrong: Counter[bytes] = Counter() if wrong is None else wrong
        """Wrong contents, by peer."""

    @property
    def sources(self) -> int:
        """How many are being asked."""
        return sum(source.active for source in self._known.values())

    @property
    def busy(self) -> int:
        """How many had no place for us when they were last asked."""
        return sum(source.busy for source in self._known.values())

    async def gather(self, wanted: Mapping[bytes, int], keep: Keep, on_kept: Callable[[int], None]) -> None:
        """`keep` has had every content that is wanted; lengths in bytes are what the budgets are asked for. `on_kept` is told
        of each that was kept, and of 0 when another number of sources is `busy`.

        Raises `NetworkError` when nobody gives anything: `peer_unreachable` after `patience_s` in which none was busy, `busy`
        after `busy_s` if one is; and what `keep` raises.
        """
        self._lengths, self._fresh, self._asked = wanted, dict(wanted), {}
        self._gained_at = self._busy_at = trio.current_time()
        busy = 0
        with _one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look, nursery, keep, on_kept)
                while self._fresh or self._asked or self._keeping:
                    self._give_up_in_time()
                    with trio.move_on_after(STEAL_S):
                        await self._news.wait()
                    if busy != self.busy:
                        busy = self.busy
                        on_kept(0)
                nursery.cancel_scope.cancel()

    def _give_up_in_time(self) -> None:
        """Raises `NetworkError` if it has been waited for long enough: for as long as somebody is busy, and then for as long as
        for anybody, since whoever had us in its line may begin with what it has not, or be reached at the second try."""
        now = trio.current_time()
        if self._paying:
            self._gained_at = now
        if self.busy:
            self._busy_at = now
        longest_s = max(self._busy_s, self._patience_s)
        waited_s = now - self._gained_at
        if self._keeping or (waited_s <= longest_s and now - max(self._gained_at, self._busy_at) <= self._patience_s):
            return
        known = len(self._known)
        if not known:
            raise NetworkError(Code.PEER_UNREACHABLE, "Nobody was found who has the bundle.")
        busy = f" (busy with others: {self.busy})" if self.busy else ""
        raise NetworkError(
            Code.BUSY if self.busy else Code.PEER_UNREACHABLE,
            f"Of {known} possible sources{busy} none gave anything for {waited_s:.0f} s; what came before is kept.",
        )

    async def _look(self, nursery: trio.Nursery, keep: Keep, on_kept: Callable[[int], None]) -> None:
        """Every source that may be asked is being asked, up to the bound; more are searched for while there is room."""
        while True:
            for source in self._known.values():
                if self.sources < SOURCES_MAX and not source.active and self._may_ask(source):
                    source.active = True
                    nursery.start_soon(self._draw, source, keep, on_kept)
            if self.sources < SOURCES_MAX and self._search_is_due():
                self._searched_at = trio.current_time()
                nursery.start_soon(self._search)
            with trio.move_on_after(STEAL_S):
                await self._news.wait()

    def _search_is_due(self) -> bool:
        return trio.current_time() - self._searched_at >= (LOOK_S if self.sources else ALONE_S)

    async def _search(self) -> None:
        for provider in await self._find():
            if provider.peer in self._known or len(self._known) < KNOWN_MAX:
                self._known.setdefault(provider.peer, _Source(provider)).provider = provider
        self._searched_at = trio.current_time()
        self._tell()

    def _may_ask(self, source: _Source) -> bool:
        return source.provider.peer not in self.wrong and trio.current_time() >= source.not_before

    async def _draw(self, source: _Source, keep: Keep, on_kept: Callable[[int], None]) -> None:
        """Contents come from one source, until it fails."""
        peer = source.provider.peer
        gave_before = self.gave[peer]
        try:
            with trio.fail_after(OPEN_S):
                stream = await self._network.open(peer, BLOB_PROTOCOL, source.provider.addresses)
            try:
                await self._exchange(source, stream, keep, on_kept)
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await stream.reset()
        except* Refused as refusals:
            source.not_before = trio.current_time() + max(map(_again_s, leaves(refusals)))
            source.busy = any(refusal.code is Code.BUSY for refusal in leaves(refusals))
        except* (NetworkError, RemoteProtocolError, trio.TooSlowError):
            source.busy = False
            gained = self.gave[peer] > gave_before
            source.not_before = trio.current_time() + (ALONE_S if gained else RETRY_S * 2**source.failures)
            source.failures = 0 if gained else min(source.failures + 1, FAILURES_MAX)
        finally:
            source.active = False
            source.named.clear()
            for wanted in [wanted for wanted, askers in self._asked.items() if peer in askers]:
                self._take_back(wanted, peer)
            self._tell()

    async def _exchange(self, source: _Source, stream: Stream, keep: Keep, on_kept: Callable[[int], None]) -> None:
        put, on_the_way = trio.open_memory_channel[bytes](PIPELINE)
        async with trio.open_nursery() as nursery:
            room, lacked = trio.Semaphore(PIPELINE), 0
            nursery.start_soon(self._ask, source, stream, room, put)
            async for wanted in on_the_way:
                with trio.fail_after(CHUNK_S):
                    frame = await stream.receive()
                room.release()
                content, is_there = self._content_untrusted(source, wanted, frame)
                source.busy = False
                lacked = 0 if is_there else lacked + 1
                if lacked > LACKS_MAX:
                    raise NetworkError(Code.PEER_UNREACHABLE, "The source does not have it, or does not give it now.")
                if not is_there:
                    source.lacks[wanted] = trio.current_time()
                    self._take_back(wanted, source.provider.peer)
                elif content is not None:
                    await self._keep(source, wanted, content, keep)
                    on_kept(len(content))

    async def _ask(
        self, source: _Source, stream: Stream, room: trio.Semaphore, put: trio.MemorySendChannel[bytes]
    ) -> None:
        """One question after another, as many on the way as there is room for."""
        while True:
            await room.acquire()
            wanted = await self._next(source)
            await self._pay(self._lengths[wanted])
            if (askers := self._asked.get(wanted)) is not None:
                askers[source.provider.peer] = trio.current_time()
            with trio.fail_after(CHUNK_S):
                await stream.send(encode_message(BlobRequest(wanted)))
            put.send_nowait(wanted)

    async def _pay(self, length_bytes: int) -> None:
        self._paying += 1
        try:
            for budget in self._budgets:
                await budget.take(length_bytes)
        finally:
            self._paying -= 1

    async def _next(self, source: _Source) -> bytes:
        """What to ask this source for, once there is something. Raises `NetworkError` if it lacks
        all that nobody is asked for."""
        peer = source.provider.peer
        while True:
            wanted = next((each for each in source.named if each in self._fresh), None)
            if wanted is None:
                wanted = next(filter(source.may_have, self._fresh), None) or self._late(source)
            if wanted is None and self._fresh and not any(peer in askers for askers in self._asked.values()):
                raise NetworkError(Code.PEER_UNREACHABLE, "The source has nothing that is wanted, or does not give it.")
            if wanted is not None:
                self._fresh.pop(wanted, None)
                source.named.pop(wanted, None)
                self._asked.setdefault(wanted, {})[peer] = float("inf")  # until the question has been paid for
                return wanted
            with trio.move_on_after(STEAL_S / 4):
                await self._news.wait()

    def _late(self, source: _Source) -> bytes | None:
        """What others have kept us waiting for longest, if it is long enough."""
        since = trio.current_time() - STEAL_S
        late = [
            (min(askers.values()), wanted)
            for wanted, askers in self._asked.items()
            if source.provider.peer not in askers and len(askers) < ASKED_MAX and source.may_have(wanted)
        ]
        asked_at, wanted = min(late, default=(float("inf"), b""))
        return wanted if asked_at <= since else None

    def _content_untrusted(self, source: _Source, wanted: bytes, frame: bytes) -> tuple[bytes | None, bool]:
        """What the source gave, not yet checked, or None if somebody else was faster; and whether it has it.

        Raises `Refused`, `NetworkError` or `RemoteProtocolError` if the source is to be left.
        """
        peer = source.provider.peer
        try:
            reply = decode_message_untrusted(frame)
            if isinstance(reply, RefuseMessage):
                raise Refused(code_of(reply.code), "The source gives nothing now.", reply.retry_after_ms)
            if not isinstance(reply, BlobReply):
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That is no answer to what was asked.")
        except RemoteProtocolError:
            self.wrong[peer] += 1
            raise
        if reply.content is None:
            source.take_names(each for each in reply.opt_has or () if each in self._lengths)
            return None, False
        return (reply.content if wanted in self._asked or wanted in self._fresh else None), True

    async def _keep(self, source: _Source, wanted: bytes, content: bytes, keep: Keep) -> None:
        """The content was checked and kept. Raises `RemoteProtocolError` if it is another, and who sent it is known."""
        peer = source.provider.peer
        self._asked.pop(wanted, None)
        self._fresh.pop(wanted, None)
        self._keeping += 1
        try:
            kept = await beside(lambda: keep(wanted, content))
        finally:
            self._keeping -= 1
        if not kept:
            self.wrong[peer] += 1
            self._fresh[wanted] = self._lengths[wanted]
            raise RemoteProtocolError(Code.CORRUPT_CHUNK, "The source gave another content than it was asked for.")
        self.gave[peer] += len(content)
        self._gained_at = trio.current_time()
        self._tell()

    def _take_back(self, wanted: bytes, peer: bytes) -> None:
        """The peer is not waited for; if nobody else is, the content is to be asked for anew."""
        askers = self._asked.get(wanted, {})
        askers.pop(peer, None)
        if not askers and self._asked.pop(wanted, None) is not None:
            self._fresh[wanted] = self._lengths[wanted]
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def _again_s(refused: Refused) -> float:
    """After what time a source is asked again that had no place for us."""
    return min(max(refused.retry_after_ms / 1000, ALONE_S), RETRY_S)


@contextmanager
def _one_error() -> Iterator[None]:
    """Of what several tasks raise together, the first error of ours leaves alone."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours: BaseException | None = group.subgroup(FallowError)
        if ours is None:
            raise
        while isinstance(ours, BaseExceptionGroup):
            ours = ours.exceptions[0]
        raise ours from None
