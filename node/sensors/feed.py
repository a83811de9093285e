"""Where an adapter's readings go, and how an adapter is kept running: begun again when it fails, its failure in words."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeVar

import trio

from ..causes import leaves
from ..machine import boot_ms as boot_ms
from ..rules.readings import Board, Reading
from ..rules.signals import Signal, Value

T = TypeVar("T")

READ_S: Final = 5.0
"""For the kernel's files: they are there at once, or their device hangs."""
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 30.0
"""A sensor that does not answer is tried again after a second, then after twice as long each time, up to half a minute."""
STEADY_S: Final = 60.0
"""After so long without a failure the next one counts as the first."""
FLOOD_PER_S: Final = 500
"""Messages of one sensor in a second, beyond which it is cut off: we ask for some twenty signals, and ten times a second each
is as often as vehicles send them."""


class SensorError(Exception):
    """Why an adapter reads nothing, in words for the owner."""


@dataclass(slots=True)
class Feed:
    """One adapter's way to the board. Each call has been acted upon when it returns."""

    source: str
    board: Board
    changed: Callable[[], None]
    """Called when something may have to be decided anew."""
    good_ms: int
    """How long a reading of this source may be relied on."""
    now_ms: Callable[[], int] = boot_ms
    _reader: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    """One place: what is tried again while a thread hangs takes no second one."""
    _second: int = 0
    _heard: int = 0

    def expect(self, signals: Collection[Signal]) -> None:
        """This is what the source gives, from now on."""
        self.board.expect(self.source, signals)
        self.changed()

    def take(self, values: Iterable[tuple[Signal, Value]], stamped_ms: int | None = None) -> None:
        """These hold now."""
        now_ms = self.now_ms()
        self.give(Reading(signal, value, now_ms, self.good_ms, stamped_ms) for signal, value in values)

    def give(self, readings: Iterable[Reading]) -> None:
        """As `take`, where the source says of each when it was."""
        self.board.take(self.source, readings)
        self.changed()

    def miss(self, signal: Signal, why: str) -> None:
        """The source cannot give the signal."""
        self.board.miss(self.source, signal, why, self.now_ms())
        self.changed()

    def lose(self, why: str) -> None:
        """The source gives nothing."""
        self.board.lose(self.source, why, self.now_ms())
        self.changed()

    async def ask(self, read: Callable[[], T]) -> T:
        """What it gave, read in a thread. Raises `SensorError` if that hangs: it keeps its thread, and not the node."""
        with trio.move_on_after(READ_S):
            return await trio.to_thread.run_sync(read, limiter=self._reader, abandon_on_cancel=True)
        raise SensorError(f"it has not answered for {READ_S:g} s")

    def hear(self) -> None:
        """One more message has come. Raises `SensorError` if these are too many."""
        second = self.now_ms() // 1000
        self._heard = self._heard + 1 if second == self._second else 1
        self._second = second
        if self._heard > FLOOD_PER_S:
            raise SensorError(f"it sends more than {FLOOD_PER_S} messages a second")


async def keep(feed: Feed, read: Callable[[Feed], Awaitable[None]]) -> NoReturn:
    """`read` runs, and again after each failure, until cancelled."""
    wait_s = RETRY_S
    while True:
        began = trio.current_time()
        why = "it ended"
        try:
            await read(feed)
        except* (SensorError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as group:
            why = _words(next(leaves(group)))
        feed.lose(why)
        if trio.current_time() - began > STEADY_S:
            wait_s = RETRY_S
        await trio.sleep(wait_s * random.uniform(0.8, 1.2))
        wait_s = min(RETRY_S_MAX, 2 * wait_s)


def _words(error: BaseException) -> str:
    match error:
        case SensorError():
            return str(error)
        case trio.TooSlowError():
            return "it does not answer"
        case OSError(strerror=str(why)):
            return f"it cannot be reached: {why}"
        case _:
            return "the connection to it broke"
