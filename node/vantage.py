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

from ..protocol.envelope import verify_untrusted
from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.limits import ADDRESSES_MAX
from ..protocol.messages import PROFILE_PROTOCOL, ProfileReply, ProfileRequest, decode_message_untrusted, encode_message
from ..protocol.profiles import ConnectivityProfile
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


@dataclass(slots=True)
class Vantage:
    """What one round of probes learned."""

    measured: Measured | None
    """None if no peer answered."""
    addresses: dict[bytes, str]
    """One address each of the peers that answered, by their own signed profiles."""


async def measure(network: Network, peers: Sequence[bytes]) -> Vantage:
    """Up to `PEERS_MAX` of the peers were probed, all at once."""
    rounds: dict[bytes, list[float | None]] = {}
    addresses: dict[bytes, str] = {}

    async def probe(peer: bytes) -> None:
        times: list[float | None] = []
        try:
            with trio.move_on_after(ANSWER_S * PROBES):
                stream = await network.open(peer, PROFILE_PROTOCOL)
                try:
                    addresses.update(_address_untrusted(peer, await _exchange(stream)))
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
    return Vantage(summary(rounds.values()), addresses)


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
            await _exchange(stream)
        times.append(None if limit.cancelled_caught else trio.current_time() - began)
        if limit.cancelled_caught:
            return  # its answer may still come, and would be taken for the next one's


async def _exchange(stream: Stream) -> ProfileReply:
    await stream.send(encode_message(ProfileRequest()))
    reply = decode_message_untrusted(await stream.receive())
    if not isinstance(reply, ProfileReply):
        raise RemoteProtocolError(Code.BAD_ENCODING, "The peer answered something else than its profile.")
    return reply


def _address_untrusted(peer: bytes, reply: ProfileReply) -> dict[bytes, str]:
    profile = verify_untrusted(ConnectivityProfile, reply.connectivity, signer=peer).record
    return {peer: profile.addresses[0]} if profile.addresses else {}


def observed(known: dict[bytes, str], asker: bytes) -> tuple[str, ...]:
    """Addresses of other nodes, for one who asks."""
    return tuple(address for peer, address in known.items() if peer != asker)[:ADDRESSES_MAX]
