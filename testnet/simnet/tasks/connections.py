"""A connection of the simulated network, shared by its two sides: what goes over it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ....node.network.idle import IDLE_S, PASSING_S
from .medium import Medium, Place
from .streams import SMALL_BYTES, SimStream

if TYPE_CHECKING:
    from .network import SimNetwork

WATCHED_S: Final = 2.0
DEAD_S: Final = 10.0
"""After the peer's last word: until watched streams and questions end, and until the connection does (`silence`)."""


class Connection:
    """Between two networks, perhaps by way of a relay; both sides hold this one."""

    def __init__(self, medium: Medium, number: int, one: SimNetwork, other: SimNetwork, relay: Place | None) -> None:
        self.medium = medium
        self.number = number
        self.sides = (one, other)
        self.lead(relay)
        self.used_at = trio.current_time()
        self.keep_s = 0.0
        """For so long the side that dialled keeps it unused, if it has said so: as `Muxer.keep_s`."""
        self.busy = 0
        """Streams and questions under way."""
        self.ended = False
        self._streams: dict[SimStream, None] = {}
        self._questions: dict[Waits, None] = {}
        self._last_at = {one: 0.0, other: 0.0}
        """When the last that each side sent arrives: nothing overtakes it."""
        self._held: list[tuple[SimNetwork, int, Callable[[], None]]] = []
        """Sent while the way was cut: TCP sends it again once it is open."""
        self._cut = 0
        """Counts how often the way was cut or opened."""
        self._shut = False

    def lead(self, relay: Place | None) -> None:
        """It leads through that relay, or directly."""
        one, other = self.sides[0].place, self.sides[1].place
        self.relay = relay
        self._there = (one, other) if relay is None else (one, relay, other)
        self._back = self._there[::-1]

    def far(self, near: SimNetwork) -> SimNetwork:
        """The other side."""
        return self.sides[1] if near is self.sides[0] else self.sides[0]

    def places(self, near: SimNetwork) -> tuple[Place, ...]:
        """From this side to the other."""
        return self._there if near is self.sides[0] else self._back

    def is_open(self) -> bool:
        """Whether anything comes through now."""
        return self.medium.way_open(*self._there)

    def keep(self, near: SimNetwork, keep_s: float) -> None:
        """This side keeps it for so long, if it dialled: the other one has the same time for all."""
        if near is self.sides[0] and self.keep_s < keep_s:
            self.keep_s = keep_s
            for side in self.sides:
                side.trims_from(self.used_at + self.keep_s)

    def ends_at(self, now_s: float) -> float:
        """When the side that dialled ends it, if nobody uses it and it is not spared."""
        return (now_s if self.busy else self.used_at) + (self.keep_s or IDLE_S)

    def is_unused(self, now_s: float) -> bool:
        """Whether either side has ended it by now, since nobody used it."""
        unused_s = 0.0 if self.busy else now_s - self.used_at
        if unused_s <= PASSING_S:
            return False
        one, other = self.sides
        ends = unused_s > (self.keep_s or IDLE_S) and not one.spares(self)
        return ends or (unused_s > IDLE_S and not other.spares(self))

    def carry(self, near: SimNetwork, length_bytes: int, arrived: Callable[[], None]) -> None:
        """What this side sends is on its way, and `arrived` is called when it is there; never, if the connection ends."""
        if self.ended:
            return
        if not self.is_open():
            self._held.append((near, length_bytes, arrived))
            return
        at = trio.current_time() + self.medium.takes_s(length_bytes, *self.places(near))
        self._last_at[near] = at = max(at, self._last_at[near])
        self.medium.post(at, lambda: None if self.ended else arrived())

    def join(self, stream: SimStream) -> None:
        """The stream is under way."""
        self._streams[stream] = None
        self.busy += 1
        self.used_at = trio.current_time()

    def leave(self, stream: SimStream) -> None:
        """It is not any more."""
        if stream in self._streams:
            del self._streams[stream]
            self.busy -= 1
            self.used_at = trio.current_time()

    def ask(self, question: Waits) -> None:
        """The question is under way."""
        self._questions[question] = None
        self.busy += 1
        self.used_at = trio.current_time()

    def asked(self, question: Waits) -> None:
        """It has its answer, or nobody waits for it."""
        if question in self._questions:
            del self._questions[question]
            self.busy -= 1
            self.used_at = trio.current_time()

    def changed(self) -> None:
        """The way was cut or opened, perhaps: what waited is sent again, or silence is noticed in time."""
        if not self.is_open() and self._shut:
            return  # it was before: what is counted goes on
        self._cut += 1
        self._shut = not self.is_open()
        if self.is_open():
            for side in self.sides:
                if side.closed:  # what runs there now knows nothing of it, and says so
                    self.carry(side, SMALL_BYTES, lambda: self.end("the peer has gone"))
            held, self._held = self._held, []
            for near, length_bytes, arrived in held:
                self.carry(near, length_bytes, arrived)
        else:
            now = trio.current_time()
            self.medium.post(now + WATCHED_S, partial(self._fall_silent, self._cut))
            self.medium.post(now + DEAD_S, partial(self._die, self._cut))

    def _fall_silent(self, cut: int) -> None:
        if cut == self._cut and not self.ended and not self.is_open():
            self._end_what_waits("the peer has fallen silent", lambda stream: stream.watched)

    def _die(self, cut: int) -> None:
        if cut == self._cut and not self.ended and not self.is_open():
            self.end("the connection is dead")

    def end(self, why: str, by: SimNetwork | None = None) -> None:
        """It is over: at once here, and at the other side as soon as it hears of it, if `by` one side."""
        if self.ended:
            return
        if by is not None:
            by.forget(self)
            for stream in [each for each in self._streams if each.here is by]:
                stream.end(why, hard=True)
            if self.is_open():
                self.carry(by, SMALL_BYTES, lambda: self.end(why))
            return
        self.ended = True
        for side in self.sides:
            side.forget(self)
        self._end_what_waits(why, lambda stream: True)

    def _end_what_waits(self, why: str, which: Callable[[SimStream], bool]) -> None:
        for stream in [each for each in self._streams if which(each)]:
            stream.end(why, hard=True)
        for question in list(self._questions):
            question.fail(why)


class Waits(Protocol):
    """What waits for something on a connection."""

    def fail(self, why: str) -> None:
        """It does not come: the connection has ended, or the peer has fallen silent."""
