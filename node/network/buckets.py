"""Which index nodes this node knows, as Kademlia has it: up to twenty for each length of a common prefix. Pure.

Those that answered stay, however many others come: an old contact is the likeliest to be there tomorrow, and a flood of
fresh keys displaces nobody. One that did not answer is gone at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from ipaddress import ip_address
from typing import Final

from .entries import place_of

BUCKET_MAX: Final = 20
"""Kademlia's k."""

SPARE_MAX: Final = 8
"""Waiting for a place in each full bucket."""

NETWORK_MAX: Final = 4
"""Of one bucket from one public network: keys are free, networks are not. A fleet that shares an address still gets in;
index nodes can be dialled, and so are not behind one."""


@dataclass(slots=True)
class Contact:
    """An index node: its libp2p id, and where it says to be, in binary multiaddrs and in a record that it signed."""

    peer: bytes
    addresses: tuple[bytes, ...]
    record: bytes = b""
    network: str = ""
    proven: bool = False
    """It answered a question of ours."""
    place: int = field(init=False)

    def __post_init__(self) -> None:
        self.place = place_of(self.peer)


class Buckets:
    """The contacts of the node whose libp2p id is `own`."""

    def __init__(self, own: bytes) -> None:
        self._own = place_of(own)
        self._contacts: dict[bytes, Contact] = {}
        self._buckets: dict[int, list[Contact]] = {}
        self._spare: dict[int, list[Contact]] = {}

    def __len__(self) -> int:
        return len(self._contacts)

    def get(self, peer: bytes) -> Contact | None:
        return self._contacts.get(peer)

    def add(self, contact: Contact) -> None:
        """The peer is known, if there is room for it. One that is not proven makes place for one that is."""
        peer, network = contact.peer, contact.network
        if known := self._contacts.get(peer):
            known.addresses, known.record = contact.addresses, contact.record
            known.network = network
            known.proven = known.proven or contact.proven
            return
        if contact.place == self._own:
            return
        index = (contact.place ^ self._own).bit_length()
        bucket = self._buckets.setdefault(index, [])
        if _is_public(network) and sum(each.network == network for each in bucket) >= NETWORK_MAX:
            return
        unproven = next((each for each in reversed(bucket) if not each.proven), None)
        if len(bucket) >= BUCKET_MAX and contact.proven and unproven is not None:
            bucket.remove(unproven)
            del self._contacts[unproven.peer]
        if len(bucket) < BUCKET_MAX:
            bucket.append(contact)
            self._contacts[peer] = contact
        else:
            spare = [each for each in self._spare.get(index, ()) if each.peer != peer]
            self._spare[index] = [*spare, contact][-SPARE_MAX:]

    def remove(self, peer: bytes) -> None:
        """The peer is not known any more; one that waited has its place."""
        if contact := self._contacts.pop(peer, None):
            index = (contact.place ^ self._own).bit_length()
            self._buckets[index].remove(contact)
            if spare := self._spare.get(index):
                heir = spare.pop()
                self._buckets[index].append(heir)
                self._contacts[heir.peer] = heir

    def closest(self, target: bytes, count: int = BUCKET_MAX) -> list[bytes]:
        """The peers known closest to the target, closest first."""
        place = place_of(target)
        near = nsmallest(count, self._contacts.values(), key=lambda contact: contact.place ^ place)
        return [contact.peer for contact in near]

    def peers(self) -> list[bytes]:
        """All that are known."""
        return list(self._contacts)


def _is_public(network: str) -> bool:
    return bool(network) and ip_address(network.partition("/")[0]).is_global
