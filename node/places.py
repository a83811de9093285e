"""Whose turn it is: each asker in turn, and few at once, so that nobody keeps the others out by asking much."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

LINE_MAX: Final = 256
"""Askers for whom a place is kept: as many as are connected to a node at once. With turns of half a minute in 16 places, the
last of them has its own after eight minutes."""


class Turns:
    """So many at once, and each asker in turn, however many questions one of them has."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: OrderedDict[bytes, deque[trio.Event]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Askers that wait for a turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, asker: bytes) -> AsyncIterator[None]:
        """It is the asker's turn for the length of the block."""
        await self._wait(asker)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, asker: bytes) -> None:
        if self._free:
            self._free -= 1
            return
        mine = trio.Event()
        self._waiting.setdefault(asker, deque()).append(mine)
        try:
            await mine.wait()
        except trio.Cancelled:
            if mine.is_set():
                self._pass_on()
            else:
                self._waiting[asker].remove(mine)
                if not self._waiting[asker]:
                    del self._waiting[asker]
            raise

    def _pass_on(self) -> None:
        """The next asker has the turn; if more of its questions wait, they wait behind all other askers'."""
        if not self._waiting:
            self._free += 1
            return
        asker, questions = self._waiting.popitem(last=False)
        questions.popleft().set()
        if questions:
            self._waiting[asker] = questions


class Places:
    """So many askers at once, and so many questions of each: an asker's further ones wait for these, and further askers have no
    place. For each of those, in the order in which they came, somebody who has had a turn gives its place up: whoever asks for
    much never lets go by itself."""

    def __init__(self, askers_max: int, each_max: int, turn_s: float, again_s: float) -> None:
        """Whoever had no place asks again after `again_s`."""
        self._askers_max = askers_max
        self._each_max = each_max
        self._turn_s = turn_s
        self._again_s = again_s
        self._askers: dict[bytes, _Asker] = {}
        self._line: dict[bytes, float] = {}
        """Who had no place, the first to come first, and until when one is kept for them."""

    @asynccontextmanager
    async def place(self, asker: bytes) -> AsyncIterator[bool]:
        """Whether the asker has one, for the length of the block."""
        mine = self._askers.get(asker) or self._admitted(asker)
        if mine is None or mine.leaves:
            yield False
            return
        mine.questions += 1
        try:
            async with mine.room:
                # Not when the question came: of whoever has many streams, some wait here for minutes.
                mine.leaves = mine.leaves or self._is_over(mine)
                if given := not mine.leaves:
                    yield True
        finally:
            mine.questions -= 1
            if not mine.questions:
                del self._askers[asker]
        if not given:
            yield False  # no longer in the room: whoever takes no refusal keeps nobody from the place

    def _admitted(self, asker: bytes) -> _Asker | None:
        """One more, if there is a place that is not kept for others; else the asker is in the line."""
        self._leave_out_who_left()
        ahead = next((number for number, peer in enumerate(self._line) if peer == asker), len(self._line))
        if ahead < self._askers_max - len(self._askers):
            self._line.pop(asker, None)
            mine = self._askers[asker] = _Asker(trio.Semaphore(self._each_max), trio.current_time())
            return mine
        if ahead < LINE_MAX:
            self._line[asker] = trio.current_time() + 2 * self._again_s
        return None

    def _is_over(self, mine: _Asker) -> bool:
        """Whether its turn is, and more are in the line than there are places free or being left."""
        if trio.current_time() - mine.since < self._turn_s:
            return False
        self._leave_out_who_left()
        staying = sum(not each.leaves for each in self._askers.values())
        return len(self._line) > self._askers_max - staying

    def _leave_out_who_left(self) -> None:
        now = trio.current_time()
        self._line = {peer: until for peer, until in self._line.items() if until > now}


@dataclass(slots=True)
class _Asker:
    room: trio.Semaphore
    since: float
    questions: int = 0
    """In their places, or waiting for one."""
    leaves: bool = False
    """Its turn is over: it keeps its place until what it is being given has been taken, and gets nothing more in it."""
