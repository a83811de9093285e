"""How well this node is connected, as it measures itself: small requests to a few peers, timed by our own clock.

libp2p's own ping gives whole milliseconds only. The first exchange on a stream includes opening it, and is
not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import trio

from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.messages import PROFILE_PROTOCOL, ProfileReply, ProfileRequest, decode_message_untrusted, encode_message
from .network.seam import Network, Stream

PEERS_MAX: Final = 5
PROBES: Final = 6
"""Exchanges with each peer, the first of them not counted."""
ANSWER_S: Final = 2.0
"""Later than this, an answer counts as lost: a person has given up on it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the probes to `peers` others came to."""

    peers: int
    rtt_p50_us: int
    rtt_p95_us: int
    jitter_us: int
    """Mean difference of one peer's consecutive round trips."""
    loss_ppm: int


@dataclass(frozen=True, slots=True)
class Vantage:
    """What one round of probes learned."""

    measured: Measured | None
    """None if no peer answered."""
    answered: frozenset[bytes]
    """The peers that are nodes: they answered with a profile."""


async def measure(network: Network, peers: Sequence[bytes]) -> Vantage:
    """Up to `PEERS_MAX` of the peers were probed, all at once."""
    rounds: dict[bytes, list[float | None]] = {}
    answered: set[bytes] = set()

    async def probe(peer: bytes) -> None:
        times: list[float | None] = []
        try:
            with trio.move_on_after(ANSWER_S * PROBES):
                stream = await network.open(peer, PROFILE_PROTOCOL)
                try:
                    await _exchange_untrusted(stream)
                    answered.add(peer)
                    await _time(stream, times)
                finally:
                    with trio.CancelScope(shield=True), trio.move_on_after(1):
                        await stream.close()
        except (NetworkError, RemoteProtocolError):
            pass  # a client, or a peer that has left: no vantage point
        if times:
            rounds[peer] = times

    async with trio.open_nursery() as nursery:
        for peer in peers[:PEERS_MAX]:
            nursery.start_soon(probe, peer)
    return Vantage(summary(rounds.values()), frozenset(answered))


def summary(rounds: Collection[Sequence[float | None]]) -> Measured | None:
    """The figures of several peers' round trips in seconds, None for a lost one. None if every one was lost."""
    kept = [[time for time in times if time is not None] for times in rounds]
    lost = sum(time is None for times in rounds for time in times)
    times = sorted(time for peer in kept for time in peer)
    if not times:
        return None
    steps = [abs(after - before) for peer in kept for before, after in pairwise(peer)]
    return Measured(
        peers=sum(map(bool, kept)),
        rtt_p50_us=_us(times[len(times) // 2]),
        rtt_p95_us=_us(times[min(len(times) - 1, len(times) * 95 // 100)]),
        jitter_us=_us(sum(steps) / len(steps)) if steps else 0,
        loss_ppm=lost * 1_000_000 // (len(times) + lost),
    )


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


async def _time(stream: Stream, times: list[float | None]) -> None:
    for _ in range(PROBES - 1):
        began = trio.current_time()
        with trio.move_on_after(ANSWER_S) as limit:
            await _exchange_untrusted(stream)
        times.append(None if limit.cancelled_caught else trio.current_time() - began)
        if limit.cancelled_caught:
            return  # its answer may still come, and would be taken for the next one's


async def _exchange_untrusted(stream: Stream) -> None:
    await stream.send(encode_message(ProfileRequest()))
    if not isinstance(decode_message_untrusted(await stream.receive()), ProfileReply):
        raise RemoteProtocolError(Code.BAD_ENCODING, "The peer answered something else than its profile.")
