"""How fast and how much: bytes a second, and bytes in some days, as the owner allows them.

Whoever is about to move bytes takes them here first, and waits for as long as that takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import trio

from . import private

BURST_S: Final = 1.0
"""What was not used may be made up for within a second: chunks come in pieces of 1 MiB, not evenly."""
RECHECK_S: Final = 60.0
"""How often a transfer that has used up its days' allowance looks whether a new day has come."""
GATE_S: Final = 1.0
"""How often a transfer that the owner's return has stopped looks whether the machine is lent again."""
DAY_S: Final = 24 * 3600


class Budget(Protocol):
    """A bound on what is moved."""

    async def take(self, length_bytes: int) -> None:
        """Returns when so many bytes may be moved; they count from then on."""


class Pace:
    """A token bucket over trio's time: in any t seconds at most `bytes_per_s * (t + BURST_S)` bytes and one taking more."""

    def __init__(self, bytes_per_s: int) -> None:
        """0: without bound."""
        self._bytes_per_s = bytes_per_s
        self._free_at = -BURST_S

    def wait_s(self, length_bytes: int) -> float:
        """How long so many bytes would take from now on, after all that has been taken."""
        if not self._bytes_per_s:
            return 0.0
        return max(0.0, self._free_at - trio.current_time()) + length_bytes / self._bytes_per_s

    async def take(self, length_bytes: int) -> None:
        """In the order in which they came. What a cancelled taker was waiting for is given back."""
        if not self._bytes_per_s:
            await trio.lowlevel.checkpoint()
            return
        takes_s = length_bytes / self._bytes_per_s
        begins_at = max(self._free_at, trio.current_time() - BURST_S)
        self._free_at = begins_at + takes_s
        try:
            await trio.sleep_until(begins_at)
        except trio.Cancelled:
            self._free_at -= takes_s
            raise


class Traffic:
    """Bytes moved in the last days, kept in a file, so that a restart does not forget them."""

    def __init__(self, path: Path, limit_bytes: int, period_days: int, now_s: Callable[[], float]) -> None:
        """`now_s`: seconds since 1970. A limit of 0: without bound, and nothing is written."""
        self._path = path
        self._limit_bytes = limit_bytes
        self._period_days = period_days
        self._now_s = now_s
        self._days = _read(path)

    @property
    def left_bytes(self) -> int:
        """Of the limit, at this moment; never below 0."""
        return max(0, self._limit_bytes - sum(self._recent().values()))

    def try_take(self, length_bytes: int) -> bool:
        """Whether so many bytes may be moved now; if so, they count."""
        if not self._limit_bytes:
            return True
        if length_bytes > self.left_bytes:
            return False
        days = self._recent()
        days[self._today()] = days.get(self._today(), 0) + length_bytes
        self._keep(days)
        return True

    def give_back(self, length_bytes: int) -> None:
        """So many of the bytes that were taken were not moved after all."""
        days = self._recent()
        for day in sorted(days, reverse=True):
            fewer = min(length_bytes, days[day])
            days[day] -= fewer
            length_bytes -= fewer
        self._keep(days)

    async def take(self, length_bytes: int) -> None:
        """Waits for the days to pass if it must. More than the whole limit at once counts as all of it."""
        await trio.lowlevel.checkpoint()
        while not self.try_take(min(length_bytes, self._limit_bytes)):  # noqa: ASYNC110 - nothing but time changes it
            await trio.sleep(RECHECK_S)

    def _keep(self, days: dict[int, int]) -> None:
        self._days = days
        private.replace(self._path, json.dumps({str(day): taken for day, taken in days.items()}).encode())

    def _today(self) -> int:
        return int(self._now_s() // DAY_S)

    def _recent(self) -> dict[int, int]:
        first = self._today() - self._period_days + 1
        return {day: taken for day, taken in self._days.items() if day >= first}


class Meter:
    """What one stream takes of the days' allowance: what it moves, and not what it was asked to. Whoever asks and goes away
    would use up another's allowance at no cost otherwise."""

    def __init__(self, traffic: Traffic | None, moved_bytes: Callable[[], int]) -> None:
        """`moved_bytes` is what has gone over the stream so far. Without traffic there is no bound."""
        self._traffic = traffic
        self._moved_bytes = moved_bytes
        self._taken = self._before = 0

    def try_take(self, length_bytes: int) -> bool:
        """Whether so many bytes may be moved now; if so, they count until the next are taken, or `settle` is called."""
        if self._traffic is None:
            return True
        self.settle()
        if not self._traffic.try_take(length_bytes):
            return False
        self._taken, self._before = length_bytes, self._moved_bytes()
        return True

    def settle(self) -> None:
        """Of what was taken, no more counts than was moved."""
        if self._traffic is None or not self._taken:
            return
        unmoved, self._taken = self._taken - (self._moved_bytes() - self._before), 0
        if unmoved > 0:
            self._traffic.give_back(unmoved)


class Gate:
    """Nothing is moved while the owner needs the machine."""

    def __init__(self, is_open: Callable[[], bool]) -> None:
        self._is_open = is_open

    async def take(self, length_bytes: int) -> None:
        await trio.lowlevel.checkpoint()
        while not self._is_open():  # noqa: ASYNC110 - the owner's word is no event of ours, and a second late is no harm
            await trio.sleep(GATE_S)


def _read(path: Path) -> dict[int, int]:
    """Bytes by day since 1970. A file that is damaged counts for nothing: it bounds a cost, it proves nothing."""
    try:
        days = json.loads(path.read_text())
        return {int(day): int(taken) for day, taken in days.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
