"""A run of trio that its seed decides: virtual time, and tasks in an order of their own choosing.

trio shuffles the tasks that can run at a moment, so that nobody relies on their order. It has a switch for tests, private to
it: with that, and its generator seeded, the order is the same in every process. This is the one place that touches it, and
`tests/simnet/test_virtual.py` fails if a new version does not keep to it any more.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from math import inf
from typing import Any, Final, TypeVar

import trio
import trio._core._run as core
from trio.lowlevel import Abort, RaiseCancelT

T = TypeVar("T")

LOOK_S: Final = 1e-9
"""By so much it is later after each look at the clock: whoever looks again and again until it is late enough, as rounding to
milliseconds has some do, does not look for ever."""
COLLECTED_AFTER: Final = 200_000
"""Objects, some 20 MB."""
FOREVER_S: Final = 1e9
"""Thirty years: nobody waits for so long, so that when it comes, all wait for one another."""


class VirtualClock(trio.abc.Clock):
    """Time all but stands still while anybody can run; when nobody can, it is at once what the first of them waits for.

    trio asks how long to sleep exactly then. Its own `MockClock` does the same in two more rounds of the loop.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._posted = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def start_clock(self) -> None:
        """It stands at 0."""

    def current_time(self) -> float:
        """Virtual seconds since the beginning."""
        self._now_s += LOOK_S
        return self._now_s

    @property
    def now_s(self) -> float:
        """The same, for whoever only takes notes: it stands still meanwhile."""
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """0: by the time that trio looks, it has come."""
        if self._due and self._due[0][0] <= deadline:
            self._now_s = max(self._now_s, self._due[0][0])
            while self._due and self._due[0][0] <= self._now_s:
                heappop(self._due)[2]()
        elif deadline < inf:  # trio wakes itself through a socket when it ends
            self._now_s = max(self._now_s, deadline)
        return 0.0

    def post(self, at: float, task: Callable[[], None]) -> None:
        """The task is done at that time, before whoever waits for it; of one time, in the order in which they were posted.

        No task of trio's runs meanwhile: it may wake or start some, and must not raise.
        """
        self._posted += 1
        heappush(self._due, (at, self._posted, task))

    async def sleep_until(self, deadline: float) -> None:
        """As `trio.sleep_until`, for a fraction of its price: no scope, no deadline and no exception for each sleeper."""
        if deadline <= self._now_s:
            await trio.lowlevel.checkpoint()
        elif deadline >= FOREVER_S:
            await trio.sleep_forever()
        else:
            await self.park(deadline, [])

    async def park(self, until_s: float, turn: list[trio.lowlevel.Task]) -> None:
        """The task has waited until then, or until somebody woke it by its empty `turn`, whichever came first."""
        turn.append(trio.lowlevel.current_task())
        self.post(until_s, lambda: wake(turn))

        def abort(_: RaiseCancelT) -> Abort:
            turn.clear()
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def sleep(self, seconds: float) -> None:
        """As `trio.sleep`."""
        if not seconds >= 0:
            raise ValueError("`seconds` must be a number, and not negative")
        await self.sleep_until(self.current_time() + seconds)


def wake(turn: list[trio.lowlevel.Task]) -> None:
    """Whoever waits in the turn goes on."""
    if turn:
        trio.lowlevel.reschedule(turn.pop())


def run_virtual(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """What `main` returned, in virtual time from 0 on.

    Nothing in it may wait for a thread or for the operating system. Raises `RuntimeError` if all wait for one another.
    """

    async def ends() -> T:
        with trio.CancelScope(deadline=FOREVER_S):
            return await main()
        raise RuntimeError("every task waits for another one: the simulation can never go on")

    clock = VirtualClock()
    with _ordered(seed), _seldom_collected(), _slept_by(clock):
        return trio.run(ends, clock=clock)


@contextmanager
def _slept_by(clock: VirtualClock) -> Iterator[None]:
    """Whoever sleeps does it by the clock: a tenth of a simulation's time was trio's own way of waking up sleepers."""
    module: Any = trio
    before = module.sleep, module.sleep_until
    module.sleep, module.sleep_until = clock.sleep, clock.sleep_until
    try:
        yield
    finally:
        module.sleep, module.sleep_until = before


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Python looks for garbage in circles less often: tasks make few, and looking through all machines takes long."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_AFTER, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _ordered(seed: int) -> Iterator[None]:
    private: Any = core
    switched, state = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r.getstate()
    private._ALLOW_DETERMINISTIC_SCHEDULING = True
    private._r.seed(seed)
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING = switched
        private._r.setstate(state)
