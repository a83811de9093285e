"""How well this node is connected, from the round trips of its own probes: rolling windows, and figures over them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

WINDOW_PROBES: Final = 32
"""Of one peer: enough for a 95th percentile, and over five peers a link that has changed is seen within a minute."""
WINDOW_S: Final = 600.0
"""Nothing older counts: a link of an hour ago may have been another one."""
WINDOWS_MAX: Final = 32
"""Peers whose windows are kept, also after they have left."""
CHANGED_SHARE: Final = 0.25
CHANGED_US: Final = 2_000
CHANGED_PPM: Final = 10_000
"""A time has changed if it has by a quarter and by 2 ms, a loss by one in a hundred: less is noise, and each profile is
signed anew."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the probes to `peers` others came to."""

    peers: int
    rtt_p50_us: int
    rtt_p95_us: int
    jitter_us: int
    """Mean difference of one peer's consecutive round trips."""
    loss_ppm: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one peer's probes came to, as far as it goes into the figures of all."""

    times_s: tuple[float, ...]
    """Of those that were answered, in rising order."""
    lost: int
    steps_s: float
    """Differences of consecutive ones, added up."""


@dataclass(slots=True)
class Window:
    """The last probes to one peer: when each was answered, or given up, and its round trip in seconds, None if lost."""

    probes: deque[tuple[float, float | None]] = field(default_factory=lambda: deque(maxlen=WINDOW_PROBES))
    _part: Part | None = None
    """Of these: all peers' figures are looked at after each probe to one."""

    def add(self, at_s: float, took_s: float | None) -> None:
        """One more; the oldest makes place."""
        self.probes.append((at_s, took_s))
        self._part = None

    def times(self, now_s: float) -> list[float | None]:
        """Those that still count."""
        self._expire(now_s)
        return [took_s for _, took_s in self.probes]

    def part(self, now_s: float) -> Part:
        """The same, added up."""
        self._expire(now_s)
        if self._part is None:
            self._part = part_of([took_s for _, took_s in self.probes])
        return self._part

    def _expire(self, now_s: float) -> None:
        while self.probes and now_s - self.probes[0][0] > WINDOW_S:
            self.probes.popleft()
            self._part = None


def part_of(times: Sequence[float | None]) -> Part:
    """One peer's round trips in seconds, None for a lost one."""
    kept = [time for time in times if time is not None]
    steps_s = sum(abs(after - before) for before, after in pairwise(kept))
    return Part(tuple(sorted(kept)), len(times) - len(kept), steps_s)


def summary(parts: Iterable[Part]) -> Measured | None:
    """The figures of several peers. None if every probe was lost."""
    times: list[float] = []
    lost, peers, steps_s = 0, 0, 0.0
    for part in parts:
        times += part.times_s
        lost, peers, steps_s = lost + part.lost, peers + bool(part.times_s), steps_s + part.steps_s
    times.sort()  # runs that are sorted: merged
    if not times:
        return None
    steps = len(times) - peers
    return Measured(
        peers=peers,
        rtt_p50_us=_us(times[len(times) // 2]),
        rtt_p95_us=_us(times[min(len(times) - 1, len(times) * 95 // 100)]),
        jitter_us=_us(steps_s / steps) if steps else 0,
        loss_ppm=lost * 1_000_000 // (len(times) + lost),
    )


def has_changed(before: Measured | None, after: Measured | None) -> bool:
    """Whether others should hear of it: not for each noise of a link."""
    if before is None or after is None:
        return before is not after
    times = ("rtt_p50_us", "rtt_p95_us", "jitter_us")
    return (
        any(differs(getattr(before, name), getattr(after, name), CHANGED_US) for name in times)
        or abs(before.loss_ppm - after.loss_ppm) >= CHANGED_PPM
    )


def differs(before: int | None, after: int | None, least: int = 0) -> bool:
    """Whether a figure is another one by a quarter, and by `least`."""
    if before is None or after is None:
        return before is not after
    return abs(before - after) > max(least, CHANGED_SHARE * before)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
