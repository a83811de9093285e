"""`/fallow/blob/1`: manifests and chunks of the bundles that this node runs, by their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from ..protocol.errors import StoreError
from ..protocol.messages import BlobReply, BlobRequest
from .engine.bundles import Bundle
from .log import EventLog
from .network.seam import Stream
from .questions import answer_each

AT_ONCE: Final = 4
"""Chunks read at the same time: sharing must not slow the jobs."""
BLOBS_MAX: Final = 4096
"""On one stream."""


class Blobs:
    """The content that this node shares."""

    def __init__(self, bundles: Sequence[Bundle], log: EventLog) -> None:
        self._bundles = bundles
        self._log = log
        self._limiter = trio.CapacityLimiter(AT_ONCE)

    async def answer(self, stream: Stream) -> None:
        """Each request has got its content, or word that it is not here, until the asker ends the stream."""

        async def reply(request: BlobRequest) -> BlobReply:
            async with self._limiter:
                return BlobReply(await self._content(request.hash))

        await answer_each(stream, BlobRequest, reply, BLOBS_MAX)

    async def _content(self, wanted: bytes) -> bytes | None:
        try:
            return await trio.to_thread.run_sync(self._read, wanted)
        except StoreError as error:
            self._log.write("chunk_corrupt", why=error.message)
            return None

    def _read(self, wanted: bytes) -> bytes | None:
        return next((found for bundle in self._bundles if (found := bundle.chunk(wanted)) is not None), None)
