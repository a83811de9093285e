"""What an index node keeps for others: values, and who provides what. Pure: time and chance are arguments.

Whoever takes most of the room gives way first: of the networks that entries came from, the one with the most; in it, the
peer with the most; of its entries, those farthest from this node's own place, which others are to keep. So a flood from
one key or one network displaces itself. Nothing here needs to survive a restart: every entry is put again in minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address, ip_network
from random import Random
from typing import Final, Generic, TypeVar

from ...protocol.limits import ADDRESSES_MAX, PROFILE_MS_MAX, SKEW_MS

T = TypeVar("T")

VALUE_S: Final = (PROFILE_MS_MAX + SKEW_MS) / 1000
"""A profile is put again long before; after this it is not even a hint."""
VALUES_MAX: Final = 8192
VALUES_BYTES_MAX: Final = 16 * 1024 * 1024
"""At 2 KB a profile: an index node of a million nodes, of which a tenth are index nodes, keeps 200."""
VALUES_SENDER_MAX: Final = 16
"""A node puts one, its own."""

PROVIDED_S: Final = 30 * 60.0
"""Three times as long as nodes take to say it again: two of them may get lost."""
PROVIDED_MAX: Final = 32_768
PROVIDED_BYTES_MAX: Final = 8 * 1024 * 1024
PROVIDED_SENDER_MAX: Final = 512
"""Each of 64 bundles under two regions, at two depths of shards, and as much again while its depth changes."""
PROVIDED_KEY_MAX: Final = 256
"""Of one key; where there are more providers, they spread over shards long before."""
PROVIDER_BYTES_MAX: Final = 1024
"""The addresses of one: four through relays have 500."""
NAMED_MAX: Final = 64
"""In one answer; 64 have 10 KB. Each of the key's twenty index nodes names others of them, as chance has it."""

ADDRESS_BYTES_MAX: Final = 256
"""A way through a relay with IPv6 has 110."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom an entry came from: the key that it proved, and the network that it sent from."""

    peer: bytes
    network: str


def network_of(address: str) -> str:
    """What one operator tends to have together: 256 addresses of IPv4, or a site's of IPv6. Empty for what is no IP
    address."""
    try:
        wide = 24 if ip_address(address).version == 4 else 48
    except ValueError:
        return ""
    return str(ip_network(f"{address}/{wide}", strict=False))


def place_of(name: bytes) -> int:
    """Where a key or a peer lies in Kademlia's space."""
    return int.from_bytes(sha256(name).digest())


@dataclass(slots=True)
class _Entry(Generic[T]):
    content: T
    length_bytes: int
    sender: Sender
    distance: int
    since_s: float
    expires_s: float


@dataclass(slots=True)
class Shelf(Generic[T]):
    """Entries by name, of bounded number and size, each until it expires. `own` is this node's place."""

    own: int
    lasts_s: float
    entries_max: int
    bytes_max: int
    sender_max: int
    length_bytes: int = 0
    _entries: dict[Hashable, _Entry[T]] = field(default_factory=dict)
    _of_sender: Counter[bytes] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, name: Hashable, key: bytes, content: T, length_bytes: int, sender: Sender, now_s: float) -> bool:
        """Whether the entry is kept. One of the same name keeps its seniority and gets the new content and sender."""
        before = self._entries.get(name)
        taken = self._of_sender[sender.peer] - (before is not None and before.sender.peer == sender.peer)
        if taken >= self.sender_max:
            return False
        self.drop(name)
        since_s = before.since_s if before and before.expires_s > now_s else now_s
        distance = place_of(key) ^ self.own
        self._entries[name] = _Entry(content, length_bytes, sender, distance, since_s, now_s + self.lasts_s)
        self._of_sender[sender.peer] += 1
        self.length_bytes += length_bytes
        if len(self._entries) > self.entries_max or self.length_bytes > self.bytes_max:
            self.sweep(now_s)
        while len(self._entries) > self.entries_max or self.length_bytes > self.bytes_max:
            self._make_room()
        return name in self._entries

    def get(self, name: Hashable, now_s: float) -> T | None:
        """The content; None if there is none, or it has expired."""
        entry = self._entries.get(name)
        return entry.content if entry and entry.expires_s > now_s else None

    def sender(self, name: Hashable) -> Sender:
        return self._entries[name].sender

    def since_s(self, name: Hashable) -> float:
        return self._entries[name].since_s

    def drop(self, name: Hashable) -> None:
        """Nothing is kept under the name."""
        if entry := self._entries.pop(name, None):
            self.length_bytes -= entry.length_bytes
            self._of_sender[entry.sender.peer] -= 1
            if not self._of_sender[entry.sender.peer]:
                del self._of_sender[entry.sender.peer]

    def sweep(self, now_s: float) -> None:
        """What has expired is gone."""
        for name in [name for name, entry in self._entries.items() if entry.expires_s <= now_s]:
            self.drop(name)

    def _make_room(self) -> None:
        """A part of the most crowded network's entries is gone: a few at a time, so that it costs little for each."""
        crowds = Counter(entry.sender.network for entry in self._entries.values()).most_common(2)
        network, count = crowds[0]
        surplus = count - crowds[1][1] if len(crowds) > 1 else count
        few = max(1, self.entries_max // 64, min(surplus, self.entries_max // 16))
        theirs = [(name, entry) for name, entry in self._entries.items() if entry.sender.network == network]
        theirs.sort(key=lambda each: (-self._of_sender[each[1].sender.peer], -each[1].distance, -each[1].since_s))
        for name, _ in theirs[:few]:
            self.drop(name)


Addresses = tuple[bytes, ...]
"""Multiaddrs, in their binary form."""


class Providers:
    """Who provides what, as the providers themselves said."""

    def __init__(self, own: int, random: Random) -> None:
        self._random = random
        self._shelf: Shelf[Addresses] = Shelf(own, PROVIDED_S, PROVIDED_MAX, PROVIDED_BYTES_MAX, PROVIDED_SENDER_MAX)
        self._keys: dict[bytes, dict[bytes, None]] = {}
        """Of each key, the peers in the order in which they came: chance alone decides, and no set's order."""

    def __len__(self) -> int:
        return len(self._shelf)

    def add(self, key: bytes, addresses: Addresses, sender: Sender, now_s: float) -> bool:
        """Whether the sender is named as a provider of the key from now on.

        A crowded key keeps the senior half of its most crowded network; of the others chance decides who gives way, so
        that neither a flood of fresh keys displaces whom everybody relies on, nor the first to come keep out all others.
        """
        fitting: list[bytes] = []
        room = PROVIDER_BYTES_MAX
        for address in addresses[:ADDRESSES_MAX]:
            if len(address) <= min(room, ADDRESS_BYTES_MAX):
                fitting.append(address)
                room -= len(address)
        if not fitting:
            return False
        peers = self._keys.setdefault(key, {})
        length_bytes = len(key) + len(sender.peer) + PROVIDER_BYTES_MAX - room
        name = (key, sender.peer)
        if self._shelf.put(name, key, tuple(fitting), length_bytes, sender, now_s):
            peers[sender.peer] = None
        if len(peers) > PROVIDED_KEY_MAX or not peers:
            self._settle(key, now_s)
        return self._shelf.get(name, now_s) is not None

    def named(self, key: bytes, now_s: float) -> list[tuple[bytes, Addresses]]:
        """At most `NAMED_MAX` of the key's providers, as chance has it, no network's before one of each other."""
        self._settle(key, now_s)
        crowds: dict[str, list[bytes]] = {}
        for peer in self._keys.get(key, ()):
            crowds.setdefault(self._shelf.sender((key, peer)).network, []).append(peer)
        named: list[bytes] = []
        for crowd in crowds.values():
            self._random.shuffle(crowd)
        while crowds and len(named) < NAMED_MAX:
            named += [crowd.pop() for crowd in crowds.values()]
            crowds = {network: crowd for network, crowd in crowds.items() if crowd}
        found = [(peer, self._shelf.get((key, peer), now_s)) for peer in named[:NAMED_MAX]]
        return [(peer, addresses) for peer, addresses in found if addresses]

    def sweep(self, now_s: float) -> None:
        """What has expired is gone."""
        self._shelf.sweep(now_s)
        for key in list(self._keys):
            self._settle(key, now_s)

    def _settle(self, key: bytes, now_s: float) -> None:
        """The key lists exactly those that are kept, at most `PROVIDED_KEY_MAX`."""
        peers = {peer: None for peer in self._keys.pop(key, ()) if self._shelf.get((key, peer), now_s) is not None}
        while len(peers) > PROVIDED_KEY_MAX:
            crowds = Counter(self._shelf.sender((key, peer)).network for peer in peers)
            [(network, _)] = crowds.most_common(1)
            theirs = [peer for peer in peers if self._shelf.sender((key, peer)).network == network]
            theirs.sort(key=lambda peer: (self._shelf.since_s((key, peer)), peer))
            leaving = self._random.choice(theirs[len(theirs) // 2 :])
            self._shelf.drop((key, leaving))
            del peers[leaving]
        if peers:
            self._keys[key] = peers
