"""Today's earnings, at hand for whoever asks: read from the disk beside the loop, and not more often than it makes sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import trio

from ..protocol.errors import FallowError
from .income import Income, today
from .machine import beside

T = TypeVar("T")

FRESH_S: Final = 5.0
"""A page asks every two seconds, a person less often."""


class Kept(Generic[T]):
    """What reading the disk gave, for a while; or the words in which it failed."""

    def __init__(self, read: Callable[[], T], fresh_s: float) -> None:
        self._read = read
        self._fresh_s = fresh_s
        self._reading = trio.Lock()
        self._until_s = 0.0
        self._found: T | None = None
        self.problem = ""
        """Why it could not be read, the last time."""

    async def get(self) -> T | None:
        """As it was a moment ago; None with a `problem`."""
        async with self._reading:
            if trio.current_time() >= self._until_s:
                try:
                    self._found, self.problem = await beside(self._read), ""
                except FallowError as error:
                    self._found, self.problem = None, error.message
                self._until_s = trio.current_time() + self._fresh_s
            return self._found


def purse(state: Path) -> Kept[Income]:
    """Today's earnings of the state directory's node."""
    return Kept(lambda: today(state), FRESH_S)


def in_words(income: Income | None, problem: str) -> str:
    """Today's earnings in a line."""
    if income is None:
        return f"not known: {problem}"
    costs = "energy is not counted: there is no diary"
    if income.energy_ucr is not None:
        costs = f"energy costs {income.energy_ucr}"
        costs += f", wear {income.wear_ucr}" if income.wear_ucr else ""
    held = f", {income.held_ucr} more are held" if income.held_ucr else ""
    return f"{income.net_ucr} ucr net: {income.due_ucr} due{held}; {costs}"
