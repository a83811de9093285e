"""Where the DHT names this node: the shards of its bundles, and the keys under which it is found otherwise.

What stands in the DHT can be read by anybody, at any time. So nothing in the schedule follows from what the machine does
just now, and one who watches the table cannot tell when its owner comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from ..protocol.errors import NetworkError
from ..protocol.names import provider_key
from ..protocol.shards import next_depth, safe_depth, shard_of, shards_of
from .log import wall_ms
from .network.seam import Network

AT_ONCE: Final = 4
GAP_S: Final = 1.7
"""The first records, and the pause between further ones: other implementations' index nodes take ten in ten seconds from one
peer (as kad_dht/kad_dht.py:313)."""

KEY_S: Final = 15.0
"""For one key: the search for those who keep it, and their confirmations."""

LOOK_ROUNDS: Final = 6
"""Rounds until a node looks again how crowded its shard is: an hour, since that costs as much as fifty provider records;
and at the next round if it has moved, as it may have to move on."""


@dataclass(slots=True)
class _Stand:
    """Where the node stands among those of one bundle and region."""

    depth: int
    look_in: int


class Announcer:
    """The keys of one node, and when each is said."""

    def __init__(self, node: bytes, network: Network) -> None:
        self._node = node
        self._network = network
        self._stands: dict[tuple[bytes, str], _Stand] = {}

    async def say(self, places: Sequence[tuple[bytes, str]], keys: Sequence[str], spread_s: float = 0.0) -> None:
        """The DHT names this node for each bundle and region, and under each of the other keys.

        They are said one after another, spread over so many seconds, or the first few at once and the others soon. What
        fails is said in the next round. Raises the last failure, if nothing could be said.
        """
        self._stands = {place: stand for place, stand in self._stands.items() if place in places}
        failure: NetworkError | None = None
        said = 0
        jobs: list[tuple[bytes, str] | str] = [*places, *keys]
        for number, job in enumerate(jobs):
            if spread_s or number >= AT_ONCE:
                await trio.sleep(max(GAP_S, spread_s / len(jobs)))
            with trio.move_on_after(KEY_S):
                try:
                    if isinstance(job, str):
                        await self._network.provide(job)
                    else:
                        await self._stand(*job)
                    said += 1
                except NetworkError as error:
                    failure = error
        if failure is not None and not said:
            raise failure

    async def _stand(self, bundle: bytes, region: str) -> None:
        """The node stands in its shard, and above it where this hour's lot has put it."""
        stand = await self._looked(bundle, region)
        for shard in shards_of(self._node, stand.depth, wall_ms()):
            await self._network.provide(provider_key(bundle, region, shard))

    async def _looked(self, bundle: bytes, region: str) -> _Stand:
        """Its depth is right for as many as it saw when it last looked: at first at the root, then around itself."""
        stand = self._stands.get((bundle, region))
        if stand is None:
            seen = await self._seen(bundle, region, 0)
            depth = safe_depth(0, {self._node, *seen}, wall_ms())
            stand = self._stands[bundle, region] = _Stand(depth, 1 if depth else LOOK_ROUNDS)
        elif stand.look_in > 0:
            stand.look_in -= 1
        else:
            seen = await self._seen(bundle, region, shard_of(self._node, stand.depth))
            depth = next_depth(self._node, stand.depth, seen, wall_ms())
            stand.look_in = 0 if depth != stand.depth else LOOK_ROUNDS
            stand.depth = depth
        return stand

    async def _seen(self, bundle: bytes, region: str, shard: int) -> set[bytes]:
        with suppress(NetworkError):  # nobody answers: as good as nobody there
            return {found.peer for found in await self._network.find(provider_key(bundle, region, shard))}
        return set()
