"""What the grid asks of the machine at one moment, whoever brings it: the rules take all of it as this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final, TypeAlias

from .hours import DAY_MS, HOUR_MS, Now, clock

Cap: TypeAlias = tuple[float, str]
"""A bound, and who asks for it, in words."""


@dataclass(frozen=True, slots=True)
class Asked:
    """All that holds at one moment; nothing is asked by default."""

    stops: tuple[str, ...] = ()
    """Why no work is to be done, each in words."""
    caps: tuple[Cap, ...] = ()
    """Watts that work may draw."""
    shares: tuple[Cap, ...] = ()
    """The same in shares of what the machine draws while it computes, from 0 to 1."""
    imports: tuple[Cap, ...] = ()
    """Watts that may come through the whole grid connection, chargers and all."""
    kwh_ucr: float | None = None
    """What energy from the grid costs now, in micro-credits; None: nobody says, and the owner's tariff holds."""
    changes_in_ms: float = inf
    """Until some of this is over, or more begins."""

    @property
    def less(self) -> bool:
        """Whether the machine is asked to draw less."""
        return bool(self.stops or self.caps or self.shares or self.imports)


NOTHING: Final = Asked()
WORDS_MAX: Final = 120
"""Characters of a stranger's text that the owner is shown."""


def together(each: Iterable[Asked]) -> Asked:
    """All of them hold; of several prices the highest."""
    asked = list(each)
    prices = [one.kwh_ucr for one in asked if one.kwh_ucr is not None]
    return Asked(
        tuple(why for one in asked for why in one.stops),
        tuple(cap for one in asked for cap in one.caps),
        tuple(share for one in asked for share in one.shares),
        tuple(cap for one in asked for cap in one.imports),
        max(prices, default=None),
        min((one.changes_in_ms for one in asked), default=inf),
    )


def until(wall_ms: float, now: Now) -> str:
    """When something ends, as the owner's clock has it."""
    left_ms = wall_ms - now.wall_ms
    if left_ms > 366 * DAY_MS:
        return "until it is taken back"
    if left_ms > DAY_MS:
        return f"for {left_ms / DAY_MS:.0f} days more" if left_ms > 2 * DAY_MS else "for more than a day"
    return f"until {clock((wall_ms + now.offset_ms) % DAY_MS / HOUR_MS)}"


def words(value: object) -> str:
    """A stranger's text, as it may be shown: one line without control characters, and short."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)[: 4 * WORDS_MAX]).split())
    return text if len(text) <= WORDS_MAX else text[: WORDS_MAX - 3] + "..."
