"""Which relays a node that cannot be dialled, or does not want to be, keeps: pure, and time is an argument.

It wants two, so that the end of one is no end of anything, in different networks if it can choose, and others than those
that failed it lately. Of equals it takes any: were they ranked, all nodes would crowd at the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

WANTED: Final = 2
CANDIDATES_MAX: Final = 64
"""Remembered: enough to choose from; of a larger crowd, those heard of last."""
RETRY_S: Final = 5.0
RETRY_S_MAX: Final = 600.0
"""After a failure, doubling: a relay that restarts is there in seconds, one that is full stays full for long."""
SEARCH_S: Final = 2.0
SEARCH_S_MAX: Final = 120.0
"""Between searches of the table, doubling, for as long as too few candidates are known."""
LINK_S: Final = 60.0
"""All relays lost within so long have not failed: the way out of here was cut, as it is when a machine moves. They are asked
again before others, so that the ways to this node stay the same, and tell nobody that it moved."""
RENEW_S_MAX: Final = 1200.0
"""Not even a long reservation is left alone for longer: so that one that the relay has forgotten is made again."""


@dataclass(frozen=True, slots=True)
class Search:
    """The table is to be asked for relays."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """A relay is to be asked for a reservation, or for a longer one."""

    relay: bytes
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Candidate:
    addresses: tuple[str, ...]
    failures: int = 0
    not_before_s: float = 0.0
    asking: bool = False


@dataclass(slots=True)
class _Held:
    addresses: tuple[str, ...]
    renew_s: float
    expires_s: float
    asking: bool = False


@dataclass(slots=True)
class Relays:
    """What is known and held. Every method that changes something is told the time, in seconds of a steady clock."""

    random: Random
    wanted: int = WANTED
    _candidates: dict[bytes, _Candidate] = field(default_factory=dict)
    _held: dict[bytes, _Held] = field(default_factory=dict)
    _lost: dict[bytes, float] = field(default_factory=dict)
    """When each relay that may be asked again was lost."""
    _search_s: float = 0.0
    _search_gap_s: float = SEARCH_S
    _searching: bool = False

    @property
    def held(self) -> tuple[bytes, ...]:
        """The relays through which this node can be reached."""
        return tuple(self._held)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The ways to this node, through each of them."""
        return tuple(address for each in self._held.values() for address in each.addresses)

    def next(self, now_s: float) -> list[Search | Reserve]:
        """What is to be done now; each is reported back by `found`, `granted` or `failed`."""
        for relay in [relay for relay, held in self._held.items() if held.expires_s <= now_s]:
            self.lost(relay, now_s)
        actions: list[Search | Reserve] = []
        for relay, held in self._held.items():
            if held.renew_s <= now_s and not held.asking:
                held.asking = True
                actions.append(Reserve(relay, ()))
        missing = self.wanted - len(self._held) - sum(each.asking for each in self._candidates.values())
        for _ in range(missing):
            chosen = self._choose(now_s)
            if chosen is None:
                break
            self._candidates[chosen].asking = True
            actions.append(Reserve(chosen, self._candidates[chosen].addresses))
            missing -= 1
        if missing > 0 and self._search_s <= now_s and not self._searching:
            self._searching = True
            actions.append(Search())
        return actions

    def deadline_s(self, now_s: float) -> float:
        """When `next` may have something new at the latest, if nothing is reported before."""
        times = [t for held in self._held.values() for t in (held.expires_s, held.renew_s) if not held.asking]
        if len(self._held) < self.wanted:
            times += [each.not_before_s for each in self._candidates.values() if not each.asking]
            times += [] if self._searching else [self._search_s]
        return min((t for t in times if t > now_s), default=now_s + SEARCH_S_MAX)

    def found(self, relays: Sequence[tuple[bytes, tuple[str, ...]]], now_s: float) -> None:
        """The search's answer; empty if it failed."""
        self._searching = False
        fresh = [relay for relay, addresses in relays if addresses and relay not in self._candidates]
        for relay, addresses in relays:
            if addresses:
                self._candidates.setdefault(relay, _Candidate(addresses)).addresses = addresses
        while len(self._candidates) > CANDIDATES_MAX:
            del self._candidates[next(iter(self._candidates))]
        self._search_gap_s = SEARCH_S if fresh else min(2 * self._search_gap_s, SEARCH_S_MAX)
        self._search_s = now_s + self._search_gap_s

    def granted(self, relay: bytes, addresses: tuple[str, ...], lasts_s: float, now_s: float) -> None:
        """The relay brings connections for so long from now on. It is renewed at half time, while it can still fail twice."""
        if candidate := self._candidates.get(relay):
            candidate.asking, candidate.failures = False, 0
        if not addresses or lasts_s <= 0:
            self._held.pop(relay, None)
            return self._postpone(relay, now_s)
        self._held[relay] = _Held(addresses, now_s + min(lasts_s / 2, RENEW_S_MAX), now_s + lasts_s)

    def failed(self, relay: bytes, now_s: float) -> None:
        """It refused, or did not answer. What it granted before stands until it ends, but others are looked for."""
        self._lost.pop(relay, None)
        self._postpone(relay, now_s)
        if held := self._held.get(relay):
            held.asking = False
            held.renew_s = now_s + (held.expires_s - now_s) / 2

    def lost(self, relay: bytes, now_s: float) -> None:
        """The connection to it has ended, and its reservation with that."""
        if self._held.pop(relay, None):
            self._postpone(relay, now_s)
            self._lost = {each: at for each, at in self._lost.items() if now_s - at <= LINK_S} | {relay: now_s}
            if not self._held and len(self._lost) > 1:
                for each in self._lost:
                    if candidate := self._candidates.get(each):
                        candidate.failures, candidate.not_before_s = 0, now_s
            self._search_s, self._search_gap_s = now_s, SEARCH_S

    def _postpone(self, relay: bytes, now_s: float) -> None:
        if candidate := self._candidates.get(relay):
            candidate.asking = False
            candidate.not_before_s = now_s + min(RETRY_S * 2**candidate.failures, RETRY_S_MAX)
            candidate.failures += 1

    def _choose(self, now_s: float) -> bytes | None:
        free = [
            relay
            for relay, each in self._candidates.items()
            if relay not in self._held and not each.asking and each.not_before_s <= now_s
        ]
        if not free:
            return None
        taken = {_network(address) for address in self.addresses}
        taken |= {_network(a) for each in self._candidates.values() if each.asking for a in each.addresses}

        def rank(relay: bytes) -> tuple[int, bool, bool]:
            each = self._candidates[relay]
            return each.failures, relay not in self._lost, not taken.isdisjoint(map(_network, each.addresses))

        best = min(map(rank, free))
        return self.random.choice([relay for relay in free if rank(relay) == best])


def _network(address: str) -> str:
    """What one operator tends to have together: 65,536 addresses of IPv4, or a site's of IPv6."""
    if found := re.match(r"/ip4/(\d+\.\d+)\.", address):
        return found[1]
    if found := re.match(r"/ip6/([0-9a-f]*:[0-9a-f]*:[0-9a-f]*)", address):
        return found[1]
    return address.split("/tcp/")[0]
