"""`/fallow/blob/1`: manifests and chunks of the bundles that this node has and may share, by their hashes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

from ..protocol.errors import Code, StoreError
from ..protocol.limits import CHUNK_BYTES, NAMED_MAX
from ..protocol.messages.discovery import BlobReply, BlobRequest
from ..protocol.messages.refusals import RefuseMessage
from .log import EventLog
from .machine import beside, chance
from .network.seam import Stream
from .pace import Meter, Pace, Traffic
from .places import Places, Turns
from .questions import answer_each

AT_ONCE: Final = 1
"""Chunks read at the same time: a millisecond each from memory, and sharing must not slow the jobs. Were it more, whoever
has many streams would have all the turns that are under way while another's next question comes."""
BESIDE_JOBS_BYTES_SEC: Final = 8_000_000
"""For all askers together while a job runs: beside so much, a small exchange still takes 2 ms (5 at the 99th percentile);
beside unpaced transfers it takes up to 600."""
ANSWER_S: Final = 45.0
"""An answer that the owner's rate would keep back longer is that it is not here: askers wait for 60 s, and others have it."""
BLOBS_MAX: Final = 4096
"""On one stream."""
PEERS_MAX: Final = 16
"""Given to at once, from a question until its answer was taken: at 100 Mbit/s each of them has a chunk in 1.4 s. Were it more,
all would wait for longer than it takes to find another source (`swarm.STEAL_S`)."""
ANSWERS_EACH_MAX: Final = 4
"""Contents of one peer that were read and not taken yet, a MiB each; its further questions wait for that. Four fetches beside
each other have as many, and peers that take nothing hold 64 MiB together."""
TURN_S: Final = 30.0
"""A place is kept for so long while others have none: as many chunks as a fetch has questions on the way, on a slow link."""
BUSY_MS: Final = 5_000
"""After so long, whoever had no place may ask again: others have had some chunks by then, and one of them may be done."""


class Holding(Protocol):
    """A bundle, or what has come of one."""

    def chunk(self, wanted: bytes) -> bytes | None:
        """The content of that hash, checked; None if it is not here."""

    def others(self, wanted: bytes) -> Sequence[bytes]:
        """The chunks that are here, if `wanted` is one of the same bundle that is not; else none."""


class Blobs:
    """The content that this node shares, at the rate that its owner allows, with each asker in turn."""

    def __init__(
        self,
        shared: Callable[[], Sequence[Holding]],
        log: EventLog,
        *,
        bytes_per_s: int = 0,
        traffic: Traffic | None = None,
        lent: Callable[[], bool] = lambda: True,
        works: Callable[[], bool] = lambda: False,
    ) -> None:
        """`shared` is what there is of bundles as of now; `lent` says whether the machine is, `works` whether a job runs."""
        self._shared = shared
        self._log = log
        self._traffic = traffic
        self._lent = lent
        self._works = works
        self._pace = Pace(bytes_per_s)
        self._beside_jobs = Pace(BESIDE_JOBS_BYTES_SEC)
        self._turns = Turns(AT_ONCE)
        self._places = Places(PEERS_MAX, ANSWERS_EACH_MAX, TURN_S, BUSY_MS / 1000)

    async def answer(self, stream: Stream) -> None:
        """Each request has got its content, or word that it is not here, until the asker ends the stream."""

        meter = Meter(self._traffic, lambda: stream.sent_bytes)

        async def reply(request: BlobRequest) -> BlobReply:
            if not self._has_time():
                return BlobReply(None)
            async with self._turns.turn(stream.peer):
                content, others = await self._found(request.hash)
                if content is not None and not await self._may_send(len(content), meter):
                    content = None
            # By chance: of several who ask at once, each is to get something else.
            named = tuple(chance().sample(others, min(len(others), NAMED_MAX)))
            return BlobReply(content, named or None)

        try:
            await answer_each(stream, BlobRequest, reply, BLOBS_MAX, partial(self._place, stream.peer))
        finally:
            meter.settle()

    @asynccontextmanager
    async def _place(self, asker: bytes) -> AsyncIterator[RefuseMessage | None]:
        async with self._places.place(asker) as given:
            why = f"This node gives to {PEERS_MAX} other peers now, as many as it takes."
            yield None if given else RefuseMessage(Code.BUSY.value, why, BUSY_MS)

    def _has_time(self) -> bool:
        """Whether one more asker gets an answer while it still waits, and the owner does not need the machine."""
        return self._lent() and self._pace.wait_s((self._turns.waiting + 1) * CHUNK_BYTES) <= ANSWER_S

    async def _may_send(self, length_bytes: int, meter: Meter) -> bool:
        """False if the days' allowance is used up: others may have it."""
        if not meter.try_take(length_bytes):
            return False
        await self._pace.take(length_bytes)
        if self._works():
            await self._beside_jobs.take(length_bytes)
        return True

    async def _found(self, wanted: bytes) -> tuple[bytes | None, Sequence[bytes]]:
        """The content, or what else is here of its bundle."""
        try:
            return await beside(lambda: self._read(wanted))
        except StoreError as error:
            self._log.write("chunk_corrupt", why=error.message)
            return None, ()

    def _read(self, wanted: bytes) -> tuple[bytes | None, Sequence[bytes]]:
        shared = self._shared()
        if (content := next((found for each in shared if (found := each.chunk(wanted)) is not None), None)) is not None:
            return content, ()
        return None, next((others for each in shared if (others := each.others(wanted))), ())
