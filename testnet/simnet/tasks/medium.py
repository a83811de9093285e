"""What lies between the machines: who can reach whom, and when what is sent arrives.

Streams of the real network run over TCP, so whoever uses one never sees a datagram lost, doubled or out of order: it sees
that things come later. A lost one costs `RESENT_S` and a round trip, one out of its order the time until the rest is there, a
doubled one bandwidth; everything behind it on the connection waits. What does come twice is a question whose connection
broke: `network` asks it again, as the seam says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from ....node.network.standing import Fault
from ....protocol.errors import Code, NetworkError
from ....protocol.identity import peer_id
from ..regions import LINK_MBIT, NATS, one_way_ms
from ..scenario import Faults
from .log import Log
from .virtual import VirtualClock, wake

if TYPE_CHECKING:
    from .network import SimNetwork

HEAD_BYTES: Final = 90
"""Around one frame: IP, TCP, noise and yamux."""
BULK_BYTES: Final = 64 * 1024
"""A frame of more is bulk: a chunk of a bundle, the prompt of a book."""
RESENT_S: Final = 0.2
"""Linux's least time until TCP sends again (RFC 6298 asks for a second, Linux takes 200 ms)."""
RESENDS_MAX: Final = 6
BYTES_S: Final = {model: (up * 125_000, down * 125_000) for model, (up, down) in LINK_MBIT.items()}
"""Up and down."""


@dataclass(slots=True)
class Place:
    """Where one machine is connected. What runs there may end and begin again; the place stays."""

    number: int
    key: bytes
    region: str
    model: str
    nat: str
    ip: str
    relay: bool = False
    """It carries connections for those that nobody can dial."""
    silent: bool = False
    """Nothing comes in or goes out: frozen, without power, or out of reach."""
    slow: float = 1.0
    """Times the latency of its link."""
    loss: float = 0.0
    """Of what goes over its link, so much has to be sent again, beside what the scenario loses."""
    island: str = ""
    """Cut off, together with those of the same name."""
    half: str = ""
    """The same, of one feeder alone."""
    network: SimNetwork | None = None
    """Of the process that runs there now."""
    up_free_s: float = 0.0
    down_free_s: float = 0.0
    bulk_up_free_s: float = 0.0
    bulk_down_free_s: float = 0.0
    """The same for what is bulk: packets of other streams get between those of a large frame."""
    gone_since_s: float | None = None
    """Since when nobody is there; None if somebody is."""
    asked: Counter[int] = field(default_factory=Counter)
    """Questions of the table that it was asked, by the minute."""
    told: Counter[int] = field(default_factory=Counter)
    """Of these, records that it was to keep."""
    turns: list[tuple[float, bool]] = field(default_factory=list)
    """When somebody there could be reached, or could no more."""

    @property
    def dialable(self) -> bool:
        return NATS[self.nat].dialable

    def note(self, now_s: float) -> None:
        """Whether somebody there can be reached now is remembered."""
        can = self.network is not None and not (self.silent or self.island or self.half)
        if can is not (self.turns[-1][1] if self.turns else False):
            self.turns.append((now_s, can))

    def was_there(self, begin_s: float, end_s: float) -> bool:
        """Whether somebody there could be reached throughout."""
        before = [can for at_s, can in self.turns if at_s <= begin_s]
        return bool(before) and before[-1] and not any(begin_s < at_s <= end_s for at_s, _ in self.turns)


class Waiting:
    """Who waits for something on a connection: `fail` ends that, since the connection has ended."""

    __slots__ = ("turn", "why")

    def __init__(self) -> None:
        self.why = ""
        self.turn: list[trio.lowlevel.Task] = []

    def fail(self, why: str) -> None:
        """It does not come."""
        self.why = why
        wake(self.turn)


class Medium:
    """All places, and everything that is on its way between them."""

    def __init__(self, faults: Faults, random: Random, log: Log) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, VirtualClock), "there is a medium in virtual time only"
        self.post = clock.post
        self._park = clock.park
        self._clock = clock
        self.faults = faults
        self.random = random
        self.log = log
        self.places: list[Place] = []
        self.by_key: dict[bytes, Place] = {}
        self.by_address: dict[str, Place] = {}
        self.by_peer_id: dict[str, Place] = {}
        self._connections = 0
        self.named: list[tuple[float, int]] = []
        """Each time that somebody who is gone was named: for how long gone, and who."""
        self.ordered_gone: list[tuple[float, int]] = []
        """The same of orders that were to go to somebody who is gone."""
        self.exchanged: Counter[int] = Counter()
        """Questions of the table that were asked, by their kind."""
        self.finds = 0
        """Searches for providers."""
        self.bans = False
        """Whether peers that break rules are let in no more."""
        self.blamed: list[tuple[int, bytes, Fault]] = []
        """Who held it against whom, and what."""
        self.named_there = 0
        """How often somebody was named who is there."""
        self._base_s: dict[tuple[int, int], float] = {}
        """By the numbers of two places."""

    @property
    def now_s(self) -> float:
        """The time, for notes of what happened."""
        return self._clock.now_s

    def add(self, place: Place) -> None:
        """The place is there."""
        self.places.append(place)
        self.by_key[place.key] = place
        self.by_address[place.ip] = place
        self.by_peer_id[peer_id(place.key)] = place

    def next_connection(self) -> int:
        """A number of its own."""
        self._connections += 1
        return self._connections

    def changed(self) -> None:
        """Places fell silent, or speak again; each network looks who can be reached."""
        for place in self.places:
            place.note(self.now_s)
            if place.network is not None:
                place.network.changed()

    def way_open(self, *places: Place) -> bool:
        """Whether what is sent from the first by way of the others to the last comes through."""
        first = places[0]
        for place in places:  # noqa: SIM110 - asked for each message: `all` of a generator takes three times as long
            if place.silent or place.island != first.island or place.half != first.half:
                return False
        return True

    def one_way_s(self, *places: Place) -> float:
        """The time from the first by way of the others to the last, with nothing else on the way."""
        slow, before, legs_s = places[0].slow, places[0], 0.0
        for place in places[1:]:
            slow, legs_s, before = max(slow, place.slow), legs_s + self._leg_s(before, place), place
        return slow * legs_s

    def takes_s(self, length_bytes: int, *places: Place) -> float:
        """From now until so many bytes of the first are at the last, by way of the others."""
        now, faults, draw = trio.current_time(), self.faults, self.random.random
        length_bytes += HEAD_BYTES
        if faults.duplication and draw() < faults.duplication:
            length_bytes *= 2
        sender, receiver = places[0], places[-1]
        base_s = self.one_way_s(*places)
        bulk = length_bytes > BULK_BYTES
        up_s = length_bytes / (BYTES_S[sender.model][0] * faults.bandwidth_factor)
        if bulk:
            sent_s = sender.bulk_up_free_s = max(now, sender.bulk_up_free_s) + up_s
        else:
            sent_s = sender.up_free_s = max(now, sender.up_free_s) + up_s
        at = sent_s + base_s * (1 + faults.jitter * draw())
        if faults.reordering and draw() < faults.reordering:
            at += base_s * draw()
        resends, loss = 0, faults.loss
        for place in places:
            if place.loss > loss:
                loss = place.loss
        while loss and resends < RESENDS_MAX and draw() < loss:
            at += RESENT_S * 2**resends + base_s
            resends += 1
        down_s = length_bytes / (BYTES_S[receiver.model][1] * faults.bandwidth_factor)
        if bulk:
            # It comes in while it goes out: only what goes out faster than it comes in is still to come by then.
            up_s = min(up_s, down_s)
            receiver.bulk_down_free_s = max(at, receiver.bulk_down_free_s + down_s, at + down_s - up_s)
            return receiver.bulk_down_free_s - now
        receiver.down_free_s = max(at, receiver.down_free_s) + down_s
        return receiver.down_free_s - now

    def backlog_s(self, sender: Place) -> float:
        """Until all bulk that the place sends has gone out."""
        return max(0.0, sender.bulk_up_free_s - trio.current_time())

    async def wait(self, seconds: float, waiting: Waiting | None = None) -> None:
        """So long: as `trio.sleep`, for a fraction of its price. `waiting` is cut short by its `fail`."""
        sleeper = waiting or Waiting()
        if sleeper.why:
            raise NetworkError(Code.STREAM_CLOSED, sleeper.why)
        sleeper.turn = []
        await self._park(trio.current_time() + seconds, sleeper.turn)
        if sleeper.why:
            raise NetworkError(Code.STREAM_CLOSED, sleeper.why)

    def _leg_s(self, one: Place, other: Place) -> float:
        key = one.number, other.number
        if (base_s := self._base_s.get(key)) is None:
            base_s = one_way_ms(one.region, one.model, other.region, other.model) / 1000 * self.faults.latency_factor
            self._base_s[key] = base_s
        return base_s
