"""The energy of each job: what the meters count beyond the machine's idling, shared equally by the jobs that run at the moment.

Where nothing is measured a model stands in: the draw that the owner gave, or that was measured earlier, or a guess by the
number of cores. Each figure says which of them it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from ..rules.worth import Draw
from .meters import READ_S, Meter, Meters

MODEL, CALIBRATED, GUESS = "model", "calibrated", "guess"
"""The owner's figures; what was measured while something was; a guess."""
ESTIMATES: Final = frozenset({MODEL, CALIBRATED, GUESS})
BASE_WEIGHT: Final = 0.05
"""Of the newest second in what is taken for idling: a minute's worth of seconds decides."""
CALIBRATED_S: Final = 60.0
"""Of computing, until what it draws is taken as known."""
LONG_S: Final = 10.0
"""A longer time between two looks (the machine slept) is no job's."""


@dataclass(frozen=True, slots=True)
class Used:
    """The energy of one job, or of a time."""

    joules: float
    source: str
    """`rapl`, `nvml`, `rapl+nvml` or `battery` if it was measured; else `MODEL`, `CALIBRATED` or `GUESS`."""


class Account:
    """What jobs use, as it is looked at: at each job's begin and end by itself, and between them by whoever calls `look`."""

    def __init__(
        self, meters: Sequence[Meter], said: Draw | None, guess: Draw, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._meters = Meters(meters)
        self._looking = trio.Lock()
        self._said, self._draw = said, said or guess
        self._clock = clock
        self._before: dict[str, float | None] = {}
        self._at_s = clock()
        self._jobs = 0
        self._share_j = 0.0
        self._base_w: float | None = None
        self._computed_s, self._computed_j = 0.0, 0.0
        self.duty = self._duty_before = 1.0
        self.watts = 0.0
        """For jobs, at the last look."""
        self.total_j = 0.0
        """For all jobs, since the start."""
        self.source = GUESS if said is None else MODEL
        self.on_used: Callable[[bytes, Used], None] = lambda order, used: None
        """Told of each order's job what it has used."""

    @property
    def draw(self) -> Draw:
        """What working draws, as far as it is known now."""
        return self._draw

    async def begin(self) -> float:
        """A job runs from now on; to be given to `end`."""
        await self.look()
        self._jobs += 1
        return self._share_j

    async def end(self, begun: float, order: bytes = b"") -> Used:
        """What the order's job has used, which runs no more: it is said also if whoever asks is cancelled."""
        with trio.move_on_after(2 * READ_S, shield=True):  # somebody else's look, and this one
            await self.look()
        self._jobs -= 1
        used = Used(self._share_j - begun, self.source)
        self.on_used(order, used)
        return used

    async def look(self) -> None:
        """What was used since the last look is some job's, or idling."""
        async with self._looking:
            counted = await self._meters.joules()
            self._take(self._clock(), counted)

    def _take(self, now_s: float, counted: dict[str, float | None]) -> None:
        passed_s, self._at_s = now_s - self._at_s, now_s
        measured_j = self._measured(counted)
        if not 0 < passed_s <= LONG_S:
            return
        duty, self._duty_before = min(self.duty, self._duty_before), self.duty
        used_j = 0.0
        if measured_j is not None:
            used_j = self._beyond_idling(measured_j, passed_s, duty)
        elif self._jobs:
            used_j = self._draw.watts(self.duty) * passed_s
        self.watts = used_j / passed_s
        if self._jobs:
            self._share_j += used_j / self._jobs
            self.total_j += used_j

    def _measured(self, now: dict[str, float | None]) -> float | None:
        """Joules since the last look, of all meters; None if one of them did not tell both times, or there are none."""
        before, self._before = self._before, now
        pairs = [(before.get(name), now[name]) for name in now]
        if not pairs or any(a is None or b is None or b < a for a, b in pairs):
            self.source = MODEL if self._said else CALIBRATED if self._computed_s >= CALIBRATED_S else GUESS
            return None
        self.source = "+".join(sorted(now, reverse=True))
        return sum(b - a for a, b in pairs if a is not None and b is not None)

    def _beyond_idling(self, measured_j: float, passed_s: float, duty: float) -> float:
        watts = measured_j / passed_s
        if not self._jobs:
            self._base_w = watts if self._base_w is None else self._base_w + BASE_WEIGHT * (watts - self._base_w)
            return 0.0
        used_j = max(0.0, measured_j - (self._base_w or 0.0) * passed_s)
        if duty > 0.95:
            self._computed_s, self._computed_j = self._computed_s + passed_s, self._computed_j + used_j
            if self._computed_s >= CALIBRATED_S and self._said is None:
                self._draw = Draw(0.0, self._computed_j / self._computed_s)
        return used_j
