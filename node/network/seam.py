"""What the rest of Fallow knows about the network: frames between keys, and a table of hints.

No type, clock or randomness of the implementation shows here, so that the simulator can stand in for libp2p. A peer is
its 32-byte Ed25519 key. Deadlines are the caller's: every call may be cancelled at any time and leaves nothing behind.
Every call raises nothing but `NetworkError`, whose code says what happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ...protocol.limits import MESSAGE_BYTES_MAX, PUBLISHED_BYTES_MAX
from .standing import Fault

FRAME_BYTES_MAX: Final = MESSAGE_BYTES_MAX
"""One frame, either way; the length before it is 4 bytes, big-endian."""

UNREAD_BYTES_MAX: Final = 4 * FRAME_BYTES_MAX
UNREAD_FRAMES_MAX: Final = 4096
"""What one stream may hold unread before it is reset. It is reset rather than paused: the muxer breaks the *sender*
after 5 s of an unread window, and a hostile one ignores the window altogether."""

VALUE_BYTES_MAX: Final = PUBLISHED_BYTES_MAX

KEY_BYTES_MAX: Final = 256
"""A key of the table; provider keys carry a content id, a region and a shard."""

PROVIDERS_MAX: Final = 400
"""Providers returned by one search: more than that and the keys should have been sharded."""

CIRCUIT: Final = "/p2p-circuit"
"""In an address, between a relay's and the peer that it leads to."""

STREAMS_PER_PEER_MAX: Final = 64
"""Inbound streams of one protocol served at once for one peer; its further ones are reset. py-libp2p has no bound of
its own, and a node has 16 slots."""


class Stream(Protocol):
    """An ordered exchange of frames with one authenticated peer."""

    @property
    def peer(self) -> bytes:
        """The Ed25519 key that the other side proved to hold."""

    @property
    def sent_bytes(self) -> int:
        """Of all that was given to `send`, so much is on its way; a frame that was cancelled half-way counts by half."""

    async def send(self, frame: bytes) -> None:
        """The frame is on its way. Cancelled half-way it resets the stream, and only the stream.

        Raises `stream_closed`, or `too_large` for a frame over `FRAME_BYTES_MAX`.
        """

    async def receive(self) -> bytes:
        """The next whole frame. Frames that came before the end are still delivered.

        Raises `stream_closed` at the end or at a reset, `too_large` when the peer broke a bound (the stream is reset).
        """

    async def close(self) -> None:
        """The other side reads the end after what was sent; nothing further is received."""

    async def reset(self) -> None:
        """The stream has ended at once in both directions."""


Handler = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Provider:
    """Who said to have what was searched for, and where they said to be. A hint: nothing here is verified."""

    peer: bytes
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Validator:
    """The rules of the table's values. Both functions are pure and are fed by strangers."""

    validate: Callable[[str, bytes], None]
    """Returns if the value may stand under the key, else raises a `FallowError`."""
    select: Callable[[str, Sequence[bytes]], int]
    """The index of the newest of several valid values."""


@dataclass(frozen=True, slots=True)
class Reachability:
    """How others come to this node."""

    relayed: bool
    """Through relays alone."""
    dialled: bool | None
    """Whether a peer got through to it directly; None if none was asked."""
    relays: tuple[bytes, ...]
    """Those that it holds reservations of."""
    why: str
    """What kept it from having more, last."""
    relays_for: int
    circuits: int
    """As a relay: for how many it holds a reservation, and how many connections it carries."""


class Network(Protocol):
    """One node's place in the network."""

    @property
    def key(self) -> bytes:
        """This node's own Ed25519 key."""

    def addresses(self) -> tuple[str, ...]:
        """Where others can dial this node: full multiaddrs, with `/p2p/`. None while it needs a relay and has none."""

    async def moved(self, known: Sequence[str]) -> None:
        """Returns once `addresses` are others than those `known`."""

    def reachability(self) -> Reachability:
        """How others come to this node, as of now."""

    def go_direct(self, peer: bytes) -> None:
        """If the peer is connected through a relay alone, a direct way to it is being looked for. It learns by that where
        this node is."""

    def peers(self) -> list[bytes]:
        """The peers connected now."""

    def blame(self, peer: bytes, fault: Fault) -> None:
        """The fault counts against the peer; whoever comes to too many is not let in for a while."""

    def whereabouts(self, peer: bytes) -> tuple[str, ...]:
        """Where the peer is or was, as far as this node was told: full multiaddrs. A hint."""

    def drop(self, peer: bytes) -> bool:
        """Connections with the peer that a relay carries, and on which it has fallen silent, are given up: the next call
        looks for a way anew. Whether there were any."""

    def relayed(self, peer: bytes) -> bool:
        """Whether the peer is connected, and through relays alone."""

    async def connect(self, address: str) -> bytes:
        """Connected to the peer at the multiaddr; its key. Raises `peer_unreachable`."""

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = (), *, watched: bool = False) -> Stream:
        """A fresh stream, dialling only if there is no connection: the given addresses first, then those known.

        A watched one ends within two seconds of the peer's last word on any stream, or of its own beginning if that is
        later; others may outlast a bad moment of the link, and end with the connection, within ten.

        Raises `peer_unreachable`, `protocol_unsupported`, or `stream_closed` when the peer is there but will not.
        """

    def serve(self, protocol: str, handler: Handler, *, watched: bool = False) -> None:
        """Inbound streams of the protocol run the handler, each in its own task. A stream left open is closed; whatever
        the handler raises resets its stream. `watched` as in `open`.

        A protocol whose streams are not watched can also be asked for one answer (`request`): its handler then gets a
        stream on which one frame comes and one goes, and is cancelled when the asker does not want the answer any more.
        """

    async def request(
        self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = (), *, passing: bool = False
    ) -> bytes:
        """One frame out, one frame back, beside any number of others to the peer on one standing stream. In `passing`, it is no
        reason to keep a connection that was begun for the table alone.

        It ends within two seconds of the peer's last word. If the connection turns out to be dead, it is asked again, once,
        over another: the peer may have been asked twice, and may have done what was asked though no answer came.
        Raises as `open`, `send` and `receive` do.
        """

    async def put(self, key: str, value: bytes) -> int:
        """So many of the peers closest to the key keep the value. It expires within half an hour: put a newer one in time.

        0 is no error when nobody else is there. Raises `too_large` or what the validator raises.
        """

    async def get(self, key: str) -> bytes | None:
        """The newest valid value that the closest peers hold, or none. A hint, never the truth."""

    async def provide(self, key: str) -> int:
        """So many of the peers closest to the key will name this node as a provider, for half an hour."""

    async def find(self, key: str, tell: Callable[[Provider], None] | None = None) -> list[Provider]:
        """Who provides the key, as the closest peers have it; each once, this node left out.

        `tell` is called with each as soon as it is named: the first answers come in a tenth of the time of all.
        """
