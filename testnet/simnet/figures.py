"""What came of a simulation: the same figures from either fidelity, and a hash over all that happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from blake3 import blake3

QUANTILES: Final = (50, 95, 99)
LINES: Final = 512
"""Of a trace, hashed at once."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of a time; None if it never happened."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class FeederUse:
    """What honest members drew of their feeders' caps, together; liars' shares are nobody else's."""

    most: float
    """At any moment, of any feeder."""
    used: float
    """On average over the time, like the following."""
    alone: float
    """If nobody lent anything."""
    ideal: float
    """If every watt could go to whoever wants it at that moment."""
    portions: float
    """The same, as far as anybody may lend to them: four others, a part of the share each."""
    reached: float
    """And as far as the two can talk at that moment: what leases without delay would bring."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts are of the whole simulation. A fidelity that does not know a figure leaves it None."""

    nodes: int
    duration_s: float
    asked: int
    completed: int
    verified: int
    """Completed, and accepted after a check of every window that was drawn."""
    wrongly_accepted: int
    """Of the completed, so many were wrong."""
    lies_caught: int
    interrupted: int
    """Jobs whose executor left, was killed or froze in the middle."""
    resumed: int
    """Of these, so many were continued elsewhere."""
    unserved: int
    """Ended with a reason and without a result."""
    unserved_nobody: int
    """Of these, so many because nobody who has the bundle was there, or free, for as long as a client waits."""
    lost: int
    """Ended with neither a result nor a reason, or never: there must be none."""
    in_class: float | None
    """The share of completed jobs whose first token came within `load.first_token_ms_max`."""
    first_token_ms: Spread
    handover_ms: Spread
    """From the loss of an executor until the reader has the next token."""
    verification_overhead: float | None
    """Executors' time for checks, as a share of their time for the work itself."""
    nodes_up: float | None
    """The share of nodes that could take work, over time."""
    lookup_peers: float | None
    """Peers that one search asks, on average."""
    lookup_found: float | None
    """Of the searches for providers, so many named ten that took work, or all that there were."""
    ghosts: float | None
    """Of the providers that were named, so many did not answer."""
    index_records_s: float | None
    """Records and questions that came to the busiest index node in a second, over its busiest minute."""
    index_load_s: float | None
    """The same of an index node on average, over all the time."""
    index_bytes_s: float | None
    """Of an index node, for others, on average."""
    node_bytes_s: float | None
    """Discovery traffic of a node, on average."""
    feeder: FeederUse | None = None

    def flat(self) -> dict[str, float | int | None]:
        """One level, as a table's row has it: `first_token_ms_p50`."""
        row: dict[str, float | int | None] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                row |= {f"{name}_{quantile}": each for quantile, each in value.items()}
            else:
                row[name] = value
        return row


@dataclass(frozen=True, slots=True)
class Outcome:
    """One simulation, done."""

    figures: Figures
    trace_hash: str
    """Over everything that happened, in order: the same for the same scenario, seed and commit."""
    violations: tuple[str, ...] = ()
    """What the checkers found against it; each a sentence."""
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Figures over time, for plots: each as long as `t_h`."""


class Trace:
    """A hash over what happens."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._lines: list[str] = []
        """Not hashed yet."""
        self.events = 0

    def add(self, what: str, *values: int) -> None:
        """So it happened. Times in whole microseconds or milliseconds; no floats, which print in many ways."""
        self.add_line(f"{what} {' '.join(map(str, values))}\n")

    def add_line(self, line: str) -> None:
        """The same in words of one's own, up to the end of the line."""
        self._lines.append(line)
        self.events += 1
        if len(self._lines) >= LINES:
            self._take_in()

    def _take_in(self) -> None:
        self._hash.update("".join(self._lines).encode())
        self._lines.clear()

    def add_bytes(self, what: str, values: bytes, events: int) -> None:
        """The same of many at once: `values` is their array, little-endian."""
        self._take_in()
        self._hash.update(f"{what} {len(values)}\n".encode())
        self._hash.update(values)
        self.events += events

    def hexdigest(self) -> str:
        self._take_in()
        return self._hash.hexdigest()


def spread(sorted_ms: Sequence[float]) -> Spread:
    """Of times in rising order: nearest rank, so that no value is shown that did not occur."""
    if not len(sorted_ms):
        return Spread()
    last = len(sorted_ms) - 1
    return Spread(*(round(float(sorted_ms[min(last, len(sorted_ms) * quantile // 100)]), 3) for quantile in QUANTILES))
