"""New faults, told to whom they may be news: to a few peers at once, and for ten minutes to a few more in each round.

A peer is told no more than it would read, and nobody from whom it came. Faults can be made up without end, so all that is told
shares one allowance in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final

import trio

from ..protocol.envelope import Signed
from ..protocol.errors import FallowError
from ..protocol.evidence import Evidence
from ..protocol.messages.assurance import EvidenceMessage
from ..protocol.messages.codec import encode_message
from ..protocol.streams import EVIDENCE_PROTOCOL
from .allowances import Allowance, Allowances
from .network.seam import Network

FANOUT: Final = 8
"""Peers to whom a new fault is passed on at once: in a network of random acquaintances most have it in a few steps."""
ROUND_S: Final = 5.0
"""After which it is passed on to as many more, who have neither told it here nor been told: whoever has three links, to peers
of two hundred each, would be missed by all of them eight times in nine."""
SPREAD_S: Final = 600.0
"""For so long: then who was cut off, or has come since, has heard of it, too."""
TRIES_MAX: Final = 3
"""With one peer; it may be busy."""
AGAIN_S: Final = 60.0
"""Between two of them: what a peer takes in a minute was used up."""
TELLINGS_MAX: Final = 256
"""Of one fault, by one peer: as many as a node has links."""
TELL_MIN: Final = 10
"""One peer is told of in a minute: of what comes faster than it reads (`gossip`), it would hold each against us."""
TELL_BYTES_MIN: Final = 1 << 20
"""All that is passed on in a minute: strangers' news get 17 kB/s of this link at most."""
METERED_BYTES_MIN: Final = 1 << 17
"""The same while the link is metered."""
QUEUE_MAX: Final = 64
"""Being passed on; the oldest gives way."""
PEERS_MAX: Final = 1024
PASS_S: Final = 5.0
"""For one peer to take it."""


@dataclass
class _News:
    """A fault that is being passed on."""

    evidence: Signed[Evidence]
    until_s: float
    next_at_s: float = -inf
    """Not told to more before."""
    tellings: int = 0
    taken: bool = False
    """By somebody whom it was told from here."""
    tries: dict[bytes, tuple[int, float]] = field(default_factory=dict)
    """By peer, and when it may be tried again; as many as there may be with one that has it."""

    def has(self, peer: bytes) -> None:
        """It need not be told."""
        if peer in self.tries or len(self.tries) < PEERS_MAX:
            self.tries[peer] = (TRIES_MAX, inf)

    def may_tell(self, peer: bytes, now: float) -> bool:
        tries, not_before_s = self.tries.get(peer, (0, -inf))
        return tries < TRIES_MAX and not_before_s <= now


class Spreading:
    """What is being passed on by one process."""

    def __init__(
        self, network: Network, rng: Random, metered: Callable[[], bool], has_said: Callable[[bytes, bytes], bool]
    ) -> None:
        """`has_said`: whether the peer has brought the evidence of that id. `metered`: whether what is sent costs money."""
        self._network = network
        self._rng = rng
        self._metered = metered
        self._has_said = has_said
        self._told = Allowances(TELL_MIN, PEERS_MAX)
        self._sending = Allowance(TELL_BYTES_MIN)
        self._sparing = Allowance(METERED_BYTES_MIN)
        self._queue: dict[bytes, _News] = {}
        """By the id of the evidence, the oldest first."""
        self._passing = 0
        self._passed = trio.Event()
        self._fresh = trio.Event()

    def add(self, evidence: Signed[Evidence]) -> None:
        """It is passed on from now on."""
        if len(self._queue) >= QUEUE_MAX:
            del self._queue[next(iter(self._queue))]
        self._queue[evidence.id] = _News(evidence, trio.current_time() + SPREAD_S)
        self._fresh.set()

    def has(self, peer: bytes, evidence: bytes) -> None:
        """The peer need not be told of it."""
        if (news := self._queue.get(evidence)) is not None:
            news.has(peer)

    async def run(self) -> None:
        """Passes on what is new, until cancelled."""
        while True:
            self._fresh = trio.Event()
            now = trio.current_time()
            self._queue = {id: news for id, news in self._queue.items() if news.until_s > now}
            await self._tell([news for news in self._queue.values() if news.next_at_s <= now])
            with trio.move_on_at(min((news.next_at_s for news in self._queue.values()), default=inf)):
                await self._fresh.wait()

    async def drain(self) -> None:
        """What nobody has taken yet was said to whoever is there, as far as they answer: this process is about to end."""
        await self._tell([news for news in self._queue.values() if not news.taken])
        while self._passing and not all(news.taken for news in self._queue.values()):
            await self._passed.wait()

    async def _tell(self, due: Sequence[_News]) -> None:
        """A round: of what fewest have been told first, as far as the allowances reach."""
        async with trio.open_nursery() as nursery:
            for news in sorted(due, key=lambda news: len(news.tries)):
                news.next_at_s = trio.current_time() + ROUND_S
                for peer in self._next(news):
                    nursery.start_soon(self._pass_on, peer, news)

    def _next(self, news: _News) -> list[bytes]:
        """Who is told now: some of those that, for all that is known here, have not heard of it."""
        id, now = news.evidence.id, trio.current_time()
        peers = [peer for peer in self._network.peers() if news.may_tell(peer, now) and not self._has_said(peer, id)]
        chosen = self._rng.sample(peers, min(FANOUT, len(peers), TELLINGS_MAX - news.tellings))
        told = [
            peer for peer in chosen if self._told.take(peer, now) and self._may_send(len(news.evidence.envelope), now)
        ]
        for peer in told:
            news.tellings += 1
            news.tries[peer] = (news.tries.get(peer, (0, 0.0))[0] + 1, now + AGAIN_S)
        return told

    def _may_send(self, length_bytes: int, now: float) -> bool:
        return (not self._metered() or self._sparing.take(now, length_bytes)) and self._sending.take(now, length_bytes)

    async def _pass_on(self, peer: bytes, news: _News) -> None:
        message = encode_message(EvidenceMessage(news.evidence.envelope))
        self._passing += 1
        try:
            with trio.move_on_after(PASS_S):
                await self._network.request(peer, EVIDENCE_PROTOCOL, message, passing=True)
                news.taken = True
                news.has(peer)
        except FallowError:
            pass  # others tell it, or it does not care
        finally:
            self._passing -= 1
            self._passed.set()
            self._passed = trio.Event()
