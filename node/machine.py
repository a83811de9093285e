"""What the code takes from the machine that it runs on: the time of day, chance, and threads for what blocks.

A node or client of the simulator has a machine of its own, with a clock that is off and chance that a seed decides. It is
found by the task that asks, and tasks inherit it from the one that started them; so nobody has to hand it on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from random import Random, SystemRandom
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")

ASLEEP_S: Final = 1.0
"""So long after it woke at the latest, a machine that slept does what is due: a look at the clock a second costs nothing."""

Beside = Callable[[Callable[[], Any], "trio.CapacityLimiter | None"], Awaitable[Any]]


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def _in_thread(task: Callable[[], Any], limiter: trio.CapacityLimiter | None) -> Any:
    return await trio.to_thread.run_sync(task, limiter=limiter)


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, as the code on it sees it."""

    wall_ns: Callable[[], int] = time.time_ns
    """Nanoseconds since 1970, by its own clock."""
    chance: Random = field(default_factory=SystemRandom)
    beside: Beside = _in_thread
    """Runs what blocks beside the event loop: never half done when cancelled."""
    in_loop: Callable[[Callable[[], None]], None] = trio.from_thread.run_sync
    """From what runs beside: the event loop does this. Raises `trio.Cancelled` once whoever waits for it was cancelled."""
    threads: Callable[[], int | None] = os.cpu_count
    boot_ns: Callable[[], int] = _boot_ns
    """Nanoseconds on the clock that nobody sets."""
    sleeps: bool = True
    """Whether timers may stand still while that clock goes on."""


_REAL: Final = Machine()
HERE: Final = ContextVar("HERE", default=_REAL)
"""The machine of the task that asks."""


def wall_ms() -> int:
    """Milliseconds since 1970 on this machine's clock, as records carry them."""
    return HERE.get().wall_ns() // 1_000_000


def boot_ms() -> int:
    """Milliseconds on the clock that never goes back, and counts on while the machine sleeps: what was read is old then."""
    return HERE.get().boot_ns() // 1_000_000


async def wait_until(at_ms: float, woken: trio.Event) -> None:
    """It is that time by `boot_ms`, or somebody has woken the task. Timers know nothing of the time that the machine slept."""
    slice_s = ASLEEP_S if HERE.get().sleeps else inf
    while True:
        with trio.move_on_after(min(slice_s, max(0.0, (at_ms - boot_ms()) / 1000))):
            await woken.wait()
        if woken.is_set() or boot_ms() >= at_ms:
            return


def chance() -> Random:
    """Where this machine's random numbers and bytes come from: its operating system, but in the simulator."""
    return HERE.get().chance


async def beside(task: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """What the task gave, run where it may block; once begun, it is not abandoned."""
    result: T = await HERE.get().beside(task, limiter)
    return result


def in_loop(task: Callable[[], None]) -> None:
    """What runs `beside` has the event loop do this, and has waited for it; it ends there if it was cancelled."""
    HERE.get().in_loop(task)


def threads() -> int | None:
    """How many the machine runs at a time, if that is known."""
    return HERE.get().threads()
