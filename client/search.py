"""The DHT's hints for one bundle: searches of it, one at a time, each of a few shards. Whom it names has yet to be asked."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..node.network.seam import Network
from ..protocol.errors import NetworkError
from ..protocol.names import provider_key
from .inquiry import Inquiry
from .sampling import Sampler

FIND_S = 5.0
"""For the DHT's answer, dead index nodes included."""
LOOKUPS_MAX = 3
"""In one search: a shard, and where everybody meets if there are too few in it."""
SEARCH_S = 2.0
"""Between two searches of the DHT for the same bundle."""


class Search:
    """Of the DHT, for the nodes of one bundle."""

    def __init__(
        self,
        bundle: bytes,
        network: Network,
        now_ms: Callable[[], int],
        sampler: Sampler,
        inquiry: Inquiry,
        ended: Callable[[], None],
    ) -> None:
        """`sampler` says where to look next, `inquiry` is told who was named, and `ended` is called after each search."""
        self._bundle = bundle
        self._network = network
        self._now_ms = now_ms
        self._sampler = sampler
        self._ended = ended
        self._ended_at = -SEARCH_S
        self.inquiry = inquiry
        self.runs = False

    def begin(self, nursery: trio.Nursery) -> None:
        """A search is under way, unless the last one has just ended."""
        if not self.runs and trio.current_time() - self._ended_at >= SEARCH_S:
            self.runs = True
            self.inquiry.begin()
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Everybody whom the DHT names waits to be asked, each as soon as it is named."""
        try:
            with trio.move_on_after(FIND_S):
                for _ in range(LOOKUPS_MAX):
                    shard = self._sampler.shard()
                    found = await self._network.find(provider_key(self._bundle, shard=shard), self.inquiry.add)
                    if self._sampler.saw(shard, {provider.peer for provider in found}, self._now_ms()):
                        break
        except NetworkError:
            pass  # the table has no answer now; whoever is known is asked all the same
        finally:
            self._ended_at = trio.current_time()
            self.runs = False
            self._ended()
