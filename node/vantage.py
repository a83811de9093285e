"""How well this node is connected, from the round trips of its own probes: rolling windows, and figures over them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
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


@dataclass(slots=True)
class Window:
    """The last probes to one peer: when each was answered, or given up, and its round trip in seconds, None if lost."""

    probes: deque[tuple[float, float | None]] = field(default_factory=lambda: deque(maxlen=WINDOW_PROBES))

    def add(self, at_s: float, took_s: float | None) -> None:
        """One more; the oldest makes place."""
        self.probes.append((at_s, took_s))

    def times(self, now_s: float) -> list[float | None]:
        """Those that still count."""
        while self.probes and now_s - self.probes[0][0] > WINDOW_S:
            self.probes.popleft()
        return [took_s for _, took_s in self.probes]


def summary(rounds: Collection[Sequence[float | None]]) -> Measured | None:
    """The figures of several peers' round trips in seconds, None for a lost one. None if every one was lost."""
    kept = [[time for time in times if time is not None] for times in rounds]
    lost = sum(time is None for times in rounds for time in times)
    times = sorted(time for peer in kept for time in peer)
    if not times:
        return None
    steps = [abs(after - before) for peer in kept for before, after in pairwise(peer)]
    return Measured(
        peers=sum(map(bool, kept)),
        rtt_p50_us=_us(times[len(times) // 2]),
        rtt_p95_us=_us(times[min(len(times) - 1, len(times) * 95 // 100)]),
        jitter_us=_us(sum(steps) / len(steps)) if steps else 0,
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
