"""How many connections and streams this node holds, by what it is for. The protocol's own bounds stand in `seam`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["server", "client"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one node."""

    connections_max: int
    """Standing ones, each with a few tasks. Beyond it the one idle for longest makes place for another."""
    inbound_max: int
    """Of these, so many that others opened: the rest is kept for those that this node opens itself."""
    unread_bytes_max: int
    """What all peers together may have sent that nobody has read. Beside it, each connection has one frame under way."""
    address_max: int
    """Inbound from one address: a household, or a carrier that has put thousands of subscribers behind it."""
    arriving_max: int = 256
    """Connections that have not proven who they are. Each costs a socket and some 10 KB until it says something."""
    handshakes_max: int = 32
    """Of these, so many in the costly part at a time; 32 take a second of one core."""
    handshakes_address_max: int = 16
    """And of one address."""


LIMITS: Final[dict[Role, Limits]] = {
    "server": Limits(connections_max=256, inbound_max=192, unread_bytes_max=128 * 1024 * 1024, address_max=96),
    "client": Limits(connections_max=160, inbound_max=32, unread_bytes_max=64 * 1024 * 1024, address_max=16),
}
"""Both fit, with their workers and files, in the 1,024 descriptors that a process has by default. One peer at its bound
(`BUFFERED_CONNECTION_MAX`) leaves half of a client's memory, and three quarters of a node's, to the others."""

CONNECTIONS_PEER_MAX: Final = 4
"""To one peer: two that dialled each other at once have two for a moment, and a relayed one may stand beside."""

STREAMS_IN_MAX: Final = 128
"""Open streams that the other side of one connection began. Twice `STREAMS_PER_PEER_MAX`, for the table's and libp2p's."""

STREAMS_OUT_MAX: Final = 256
"""Open streams that this side began on one connection."""

STREAMS_IN_SEC: Final = 256.0
STREAMS_IN_BURST: Final = 512.0
"""Streams that the other side may begin, each of which costs a task and a negotiation. A busy client begins 120 a
second; what is beyond is reset for the price of one frame."""

BUFFERED_CONNECTION_MAX: Final = 32 * 1024 * 1024
"""Bytes of one peer that nobody has read yet, of all its streams: two of them full."""
