"""What has been read of the machine: the latest value of each signal from each source, how far it may be relied on, or why not.

A source that lies is not believed: a value that physics does not allow, or that is older than the one before, takes the place
of the good one as a fault. What is then known of that signal is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from .signals import KINDS, Signal, Value

SOURCES_MAX: Final = 16
"""Sensors of one node: a vehicle, a host, a site, and room for more."""
EARLIER_MS: Final = 2000
"""So much earlier than the reading before is not yet a clock going backwards: two paths of one vehicle report out of order."""
UNREAD: Final = "it has not been read yet"


@dataclass(frozen=True, slots=True)
class Reading:
    """One signal's value as a source gave it."""

    signal: Signal
    value: Value
    at_ms: int
    """When it was known to hold, on the clock that also counts while the machine sleeps."""
    good_ms: int
    """So long after that it may be relied on."""
    stamped_ms: int | None = None
    """The source's own time for it, since 1970, if it gives one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why nothing is known of a signal, or of all that a source gives."""

    why: str
    at_ms: int
    stamped_ms: int | None = None
    """The source's own time for what it said, if that is what is wrong with it: the next has to be later than this."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one signal at one moment: the values of every source that has it, or why there is no relying on them."""

    values: tuple[Value, ...] = ()
    why: str = ""
    """Empty if the values may be relied on."""
    until_ms: float = inf
    """When they have to have been read again."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the node itself has found that it may draw, beside what sensors tell: its share of a feeder, a site's plan."""

    watts: float
    why: str
    """Whose bound it is, in words for the owner."""
    until_ms: float
    """On the clock of the readings: later it counts for nothing any more, and nothing may be drawn."""
    whole: bool = False
    """It bounds the whole connection: what chargers and the rest draw of it is not left for work."""


@dataclass(slots=True)
class Board:
    """The latest of everything. It forgets nothing: what a source has once given, it has to keep giving."""

    expects: dict[str, frozenset[Signal]] = field(default_factory=dict)
    """What each source is there to give."""
    readings: dict[tuple[str, Signal], Reading] = field(default_factory=dict)
    faults: dict[tuple[str, Signal], Fault] = field(default_factory=dict)
    """Of single signals, since their last good reading."""
    broken: dict[str, Fault] = field(default_factory=dict)
    """Of whole sources."""
    bounds: dict[str, Bound] = field(default_factory=dict)
    """By the code of the reason that there is where one is not known any more."""
    heard: set[str] = field(default_factory=set)
    """Sources that have been read, be it that they had nothing to give."""

    def expect(self, source: str, signals: Iterable[Signal]) -> None:
        """This is what the source is there to give, from now on. Raises `ValueError` beyond `SOURCES_MAX` sources."""
        if source not in self.expects and len(self.expects) >= SOURCES_MAX:
            raise ValueError(f"a node has at most {SOURCES_MAX} sensors")
        self.expects[source] = frozenset(signals)

    def take(self, source: str, readings: Iterable[Reading]) -> None:
        """The readings are the latest, or faults if they cannot be true. A source that reads again is whole again."""
        self.broken.pop(source, None)
        self.heard.add(source)
        for reading in readings:
            place = source, reading.signal
            if why := self._lie(place, reading):
                backwards = KINDS[reading.signal].refuse(reading.value) == ""
                self.faults[place] = Fault(why, reading.at_ms, reading.stamped_ms if backwards else None)
            else:
                self.faults.pop(place, None)
                self.readings[place] = reading

    def lose(self, source: str, why: str, now_ms: int) -> None:
        """The source gives nothing any more; what it gave is good as long as it would have been."""
        self.broken[source] = Fault(why, now_ms)

    def miss(self, source: str, signal: Signal, why: str, now_ms: int) -> None:
        """The source is there, and cannot give this signal (any more)."""
        self.faults[source, signal] = Fault(why, now_ms)

    def known(self, signal: Signal, now_ms: int) -> Known:
        """Every source's word for it at this moment. One that is stale or wrong spoils the rest: it may be the one to heed."""
        values: list[Value] = []
        until_ms = inf
        for source, given in self.expects.items():
            if signal in given:
                told = self.told(source, signal, now_ms)
                if told.why:
                    return Known(why=f"{source}: {told.why}")
                values += told.values
                until_ms = min(until_ms, told.until_ms)
        return Known(tuple(values), "" if values else "no sensor gives it", until_ms)

    def told(self, source: str, signal: Signal, now_ms: int) -> Known:
        """One source's word for it at this moment."""
        reading, fault = self.readings.get((source, signal)), self.faults.get((source, signal))
        broken = self.broken.get(source)
        if fault:
            return Known(why=fault.why)
        if reading is None:
            return Known(why=broken.why if broken else UNREAD)
        age_ms = now_ms - reading.at_ms
        if not 0 <= age_ms <= reading.good_ms:
            late = f"last read {age_ms // 1000} s ago" if age_ms >= 0 else "read in the future"
            return Known(why=f"{late}{f' ({broken.why})' if broken else ''}")
        return Known((reading.value,), "", reading.at_ms + reading.good_ms + 1)

    def is_expected(self, signal: Signal) -> bool:
        """Whether any source is there to give it."""
        return any(signal in given for given in self.expects.values())

    def unread(self) -> dict[str, str]:
        """The sources of which not even that is known what they give, and why."""
        blank = [source for source, given in self.expects.items() if not given and source not in self.heard]
        return {source: self.broken[source].why if source in self.broken else UNREAD for source in blank}

    def health(self, now_ms: int) -> Mapping[str, str]:
        """Each source in words: what is wrong with it, or that nothing is."""
        said = {}
        for source, expects in self.expects.items():
            wrong = [
                f"{KINDS[signal].name}: {fault.why}" for (name, signal), fault in self.faults.items() if name == source
            ]
            if source in self.broken:
                said[source] = self.broken[source].why
            elif wrong:
                said[source] = "; ".join(wrong)
            elif missing := [signal for signal in expects if (source, signal) not in self.readings]:
                said[source] = f"not read yet: {', '.join(sorted(KINDS[signal].name for signal in missing))}"
            else:
                ages = [now_ms - self.readings[source, signal].at_ms for signal in expects]
                said[source] = f"good, read {max(ages, default=0) / 1000:.1f} s ago"
        return said

    def _lie(self, place: tuple[str, Signal], reading: Reading) -> str:
        """Why the reading cannot be true; empty if it can."""
        if why := KINDS[reading.signal].refuse(reading.value):
            return why
        held, fault = self.readings.get(place), self.faults.get(place)
        before_ms = fault.stamped_ms if fault and fault.stamped_ms is not None else held.stamped_ms if held else None
        if before_ms is not None and reading.stamped_ms is not None and reading.stamped_ms < before_ms - EARLIER_MS:
            return f"its time went back by {(before_ms - reading.stamped_ms) / 1000:.0f} s"
        return ""
