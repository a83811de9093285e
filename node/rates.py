"""How much gets through, up and down: bounded transfers with a few peers, and what bundles came at anyway.

Each figure is a lower bound that nobody can inflate: bytes count once it is proven that they have come, and time runs from
our question to the end of the answer. Of several peers the median counts: one with a slow link does not make ours slow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from statistics import median_low
from typing import Final

import trio
from blake3 import blake3

from ..protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from ..protocol.limits import RATE_BYTES_MAX
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.discovery import RateReply, RateRequest
from ..protocol.streams import RATE_PROTOCOL
from .network.seam import Network, Stream
from .pace import Meter, Pace, Traffic
from .questions import answer_each

STEPS: Final = (64 * 1024, 256 * 1024, RATE_BYTES_MAX)
"""Lengths in bytes, one after the other, as long as the one before was quick."""
QUICK_S: Final = 0.5
"""For a step, so that the next one, four times as long, is worth it: a slow link is not kept busy."""
TRANSFER_S: Final = 8.0
"""For one transfer: 64 KiB at 64 kbit/s, the slowest rate worth telling."""
PEERS: Final = 3
"""Measured with, one after the other: 2.7 MiB each where the link is fast."""
FIRST_S: Final = 60.0
"""After the start."""
EVERY_S: Final = 6 * 3600.0
"""8 MiB in six hours are 380 bytes a second, in bursts; rates of a link that has not changed do not either."""
RETRY_S: Final = 300.0
"""Where nobody could be measured with."""
FRESH_S: Final = 2 * EVERY_S
KEPT_MAX: Final = 16
"""Peers whose figures are kept."""
FETCHED_BYTES_MIN: Final = 4 * 1024 * 1024
"""A fetch of less says more of its round trips than of the link."""
AGAIN_S: Final = 3600.0
"""The same peer is not served again before."""
SERVED_BYTES_MAX: Final = 32 * 1024 * 1024
"""For all peers together within `AGAIN_S`, both ways."""
PEER_BYTES_MAX: Final = 2 * sum(STEPS)
STREAMS_MAX: Final = 2
"""Of one peer within `AGAIN_S`: whoever only holds the one place would keep the others from it."""
SHARES_MAX: Final = 1024
"""Peers of whom it is known what they have had; beyond, nobody new is served."""
QUESTIONS_MAX: Final = 2 * len(STEPS)


@dataclass(slots=True)
class _Share:
    """What one peer has had since a moment."""

    since_s: float
    length_bytes: int = 0
    streams: int = 0


@dataclass(frozen=True, slots=True)
class _Figure:
    at_s: float
    up_kbit_per_s: int | None
    down_kbit_per_s: int | None


class Rates:
    """What this node has found of its own rates, and its answers to others that look for theirs."""

    def __init__(
        self,
        network: Network,
        vantage_peers: Callable[[], list[bytes]],
        may: Callable[[], bool],
        traffic: Traffic | None = None,
        *,
        bytes_per_s_up: int = 0,
        bytes_per_s_down: int = 0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`may` says whether the owner and the link let anything be moved now. Rates of 0: without bound."""
        self._network = network
        self._vantage_peers = vantage_peers
        self._may = may
        self._traffic = traffic
        self._up, self._down = Pace(bytes_per_s_up), Pace(bytes_per_s_down)
        self._changed = changed
        self._figures: dict[bytes, _Figure] = {}
        self._fetched: tuple[float, int] | None = None
        self._served: dict[bytes, _Share] = {}
        self._serving = False
        self._stale = trio.Event()
        self._random = SystemRandom()

    @property
    def up_kbit_per_s(self) -> int | None:
        """The median over peers; None if not measured."""
        return _median([each.up_kbit_per_s for each in self._fresh()])

    @property
    def down_kbit_per_s(self) -> int | None:
        """The median over peers, or what bundles came at if that is more; None if not measured."""
        found = _median([each.down_kbit_per_s for each in self._fresh()])
        if self._fetched is None or trio.current_time() - self._fetched[0] >= FRESH_S:
            return found
        return max(found or 0, self._fetched[1])

    def fetched(self, length_bytes: int, took_s: float) -> None:
        """A bundle has come, each of its bytes checked, from several peers at once."""
        if length_bytes >= FETCHED_BYTES_MIN and took_s > 0:
            self._fetched = (trio.current_time(), _kbit_per_s(length_bytes, took_s))
            self._changed()

    def link_changed(self) -> None:
        """What was measured was of another link."""
        self._figures.clear()
        self._fetched = None
        self._changed()
        self._stale.set()

    async def run(self) -> None:
        """Measured now and then, until cancelled."""
        wait_s = FIRST_S
        while True:
            self._stale = trio.Event()
            with trio.move_on_after(wait_s):
                await self._stale.wait()
                await trio.sleep(RETRY_S)  # a link that has just come may go again
            wait_s = EVERY_S if await self.measure() else RETRY_S

    async def measure(self) -> bool:
        """Up to `PEERS` peers were measured with; false if nothing came of it."""
        peers = self._vantage_peers()
        found = False
        for peer in self._random.sample(peers, min(PEERS, len(peers))):
            if not self._may():
                break
            if (figure := await self._measure(peer)) is not None:
                found = True
                self._figures.pop(peer, None)
                while len(self._figures) >= KEPT_MAX:
                    del self._figures[next(iter(self._figures))]
                self._figures[peer] = figure
                self._changed()
        return found

    async def _measure(self, peer: bytes) -> _Figure | None:
        best: dict[bool, int] = {}
        with suppress(NetworkError, RemoteProtocolError, Refused, trio.TooSlowError):  # what came before it is kept
            with trio.fail_after(TRANSFER_S):
                stream = await self._network.open(peer, RATE_PROTOCOL)
            try:
                for up in (True,) if self._fetched_lately() else (True, False):
                    for length_bytes in STEPS:
                        took_s = await self._transfer_untrusted(stream, length_bytes, up=up)
                        best[up] = max(best.get(up, 0), _kbit_per_s(length_bytes, took_s))
                        if took_s > QUICK_S:
                            break
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await stream.reset()
        return _Figure(trio.current_time(), best.get(True), best.get(False)) if best else None

    async def _transfer_untrusted(self, stream: Stream, length_bytes: int, *, up: bool) -> float:
        """Seconds until it was proven that so many bytes have come through.

        Raises `RemoteProtocolError` if they have not, `Refused(busy)` if somebody's owner allows no more.
        """
        if not self._may() or (self._traffic is not None and not self._traffic.try_take(length_bytes)):
            raise Refused(Code.BUSY, "No more may be moved now.")
        await (self._up if up else self._down).take(length_bytes)
        nonce = os.urandom(16)
        content = os.urandom(length_bytes) if up else b""
        proof, expected = _named(nonce, content), _yield(nonce, 0 if up else length_bytes)
        question = encode_message(RateRequest(nonce, content, len(expected)))
        began = trio.current_time()
        with trio.fail_after(TRANSFER_S):
            await stream.send(question)
            frame = await stream.receive()
        took_s = trio.current_time() - began
        reply = decode_message_untrusted(frame)
        if not isinstance(reply, RateReply) or reply.received != proof:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The peer does not show that it has what it was sent.")
        if reply.content is None and not up:
            raise Refused(Code.BUSY, "The peer gives no more now.")
        if reply.content not in (None, expected):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The peer sent something else than it was asked for.")
        return took_s

    async def answer(self, stream: Stream) -> None:
        """`/fallow/rate/1`: each question has got what its asker may have, one asker at a time, for a minute at most."""
        share = self._share(stream.peer)
        if self._serving or share.streams >= STREAMS_MAX:
            return
        share.streams += 1
        self._serving = True
        received_bytes = 0
        meter = Meter(self._traffic, lambda: stream.sent_bytes + received_bytes)

        async def reply(request: RateRequest) -> RateReply:
            nonlocal received_bytes
            proof = _named(request.nonce, request.content)
            admitted = self._admit(stream.peer, len(request.content) + request.wanted_bytes, meter)
            received_bytes += len(request.content)
            if not admitted:
                return RateReply(proof, None)
            await self._up.take(len(request.content) + request.wanted_bytes)
            return RateReply(proof, _yield(request.nonce, request.wanted_bytes))

        try:
            with trio.move_on_after(2 * TRANSFER_S * len(STEPS)):
                await answer_each(stream, RateRequest, reply, QUESTIONS_MAX)
        finally:
            meter.settle()
            self._serving = False

    def _share(self, peer: bytes) -> _Share:
        now = trio.current_time()
        self._served = {each: share for each, share in self._served.items() if now - share.since_s < AGAIN_S}
        if len(self._served) >= SHARES_MAX and peer not in self._served:
            return _Share(now, streams=STREAMS_MAX)
        return self._served.setdefault(peer, _Share(now))

    def _admit(self, peer: bytes, length_bytes: int, meter: Meter) -> bool:
        """Whether so much may be moved for the peer; if so, it counts."""
        share = self._share(peer)
        total = sum(each.length_bytes for each in self._served.values())
        if not self._may() or total + length_bytes > SERVED_BYTES_MAX:
            return False
        if share.length_bytes + length_bytes > PEER_BYTES_MAX:
            return False
        if self._up.wait_s(length_bytes) > TRANSFER_S:
            return False
        if not meter.try_take(length_bytes):
            return False
        share.length_bytes += length_bytes
        return True

    def _fetched_lately(self) -> bool:
        return self._fetched is not None and trio.current_time() - self._fetched[0] < FRESH_S

    def _fresh(self) -> list[_Figure]:
        now = trio.current_time()
        return [each for each in self._figures.values() if now - each.at_s < FRESH_S]


def _named(nonce: bytes, content: bytes) -> bytes:
    """What only somebody can know who has both."""
    return blake3(nonce + content).digest()


def _yield(nonce: bytes, length_bytes: int) -> bytes:
    """What nobody can send before the nonce has come, and a link cannot compress."""
    return blake3(nonce).digest(length=length_bytes) if length_bytes else b""


def _kbit_per_s(length_bytes: int, took_s: float) -> int:
    return round(8 * length_bytes / max(took_s, 1e-6) / 1000)


def _median(figures: list[int | None]) -> int | None:
    found = [each for each in figures if each is not None]
    return median_low(found) if found else None
