"""How often something may be done in a minute, for one and for many: what strangers ask, and what is done for them."""

from __future__ import annotations


class Allowance:
    """So many in a minute, and no more at once."""

    def __init__(self, most: int) -> None:
        self._most = self._left = float(most)
        self._as_of = -float("inf")

    def take(self, now: float, count: int = 1) -> bool:
        """Whether so many more are within it; if so, they count."""
        if now > self._as_of:
            self._left = min(self._most, self._left + (now - self._as_of) * self._most / 60)
            self._as_of = now
        if self._left < count:
            return False
        self._left -= count
        return True

    def give_back(self, count: int) -> None:
        """So many of those that were taken have not happened after all."""
        self._left = min(self._most, self._left + count)


class Allowances:
    """One for each peer; of more than `peers_max` of them, whoever was not there for longest is forgotten."""

    def __init__(self, most: int, peers_max: int) -> None:
        self._most = most
        self._peers_max = peers_max
        self._peers: dict[bytes, Allowance] = {}

    def take(self, peer: bytes, now: float) -> bool:
        """Whether one more is within the peer's; if so, it counts."""
        found = self._peers[peer] = self._peers.pop(peer) if peer in self._peers else Allowance(self._most)
        if len(self._peers) > self._peers_max:
            del self._peers[next(iter(self._peers))]
        return found.take(now)
