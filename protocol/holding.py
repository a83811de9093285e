"""What is held of a channel's pay: a few parts, each of which falls due by itself at a time of its own.

Pay rolls: of what is held for a week, about a day's pay falls due each day, and a day's is added. So what a node has at stake
never falls to nothing while it works, and no receipt's pay is held for longer than its order says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from .codec import INTEGER_MAX
from .limits import HELD_MAX
from .schema import Between

MOST_UCR = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Held:
    """A part of what is held."""

    ucr: Annotated[int, Between(1, MOST_UCR)]
    """Falls due by itself at `release_at_ms`, unless it is forfeited before."""
    release_at_ms: Annotated[int, Between(1, INTEGER_MAX)]
    """Later than that of the part before it."""


Parts: TypeAlias = tuple[Held, ...]
"""Of one voucher, in the order in which they fall due."""


def total_ucr(parts: Iterable[Held]) -> int:
    """Of all of them together."""
    return sum(part.ucr for part in parts)


def unreleased(parts: Parts, now_ms: int) -> Parts:
    """Those that have not fallen due."""
    return tuple(part for part in parts if part.release_at_ms > now_ms)


def less(parts: Parts, ucr: int) -> Parts:
    """What is left once so much is forfeited. What would fall due last goes first: so both sides come to the same whatever has
    fallen due meanwhile, and the rest falls due no later than before."""
    kept = list[Held]()
    for part in reversed(parts):
        taken = min(part.ucr, ucr)
        ucr -= taken
        if taken < part.ucr:
            kept.append(Held(part.ucr - taken, part.release_at_ms))
    return tuple(reversed(kept))


def release_of(parts: Parts, hold_until_ms: int, now_ms: int) -> int:
    """When what is held now, until `hold_until_ms` at most, falls due; no later than now if it may not be held.

    With the latest part that falls due by then, unless that would cut its time by a seventh: then it is a part of its own,
    while there are fewer than `HELD_MAX`. Of pay that is held for equal times there are never more than that.
    """
    latest_ms = max((part.release_at_ms for part in parts if part.release_at_ms <= hold_until_ms), default=0)
    near = (hold_until_ms - latest_ms) * (HELD_MAX - 1) < hold_until_ms - now_ms
    return latest_ms if near or len(parts) >= HELD_MAX else hold_until_ms


def with_more(parts: Parts, ucr: int, release_at_ms: int) -> Parts:
    """So much more is held until then."""
    if ucr == 0:
        return parts
    by_time = {part.release_at_ms: part.ucr for part in parts}
    by_time[release_at_ms] = by_time.get(release_at_ms, 0) + ucr
    return tuple(Held(by_time[time_ms], time_ms) for time_ms in sorted(by_time))
