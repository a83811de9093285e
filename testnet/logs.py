"""What the nodes of a test network wrote down, in one order of time.

Each node's log goes by its own clock. Where a fault had put that clock wrong, `faults.jsonl` says by how much and from when to
when, and the events are set right again.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import trio

from ..node.log import LOG
from . import days, injecting

LOOK_AGAIN_S: Final = 0.25
"""Following: a person sees no difference to at once."""
NETWORK: Final = "network"
"""In a node's place, for what was done to the network."""
LINES_MAX: Final = 10_000
"""Of one log, read at one look while following: the rest comes at the next."""


_EVER: Final = 2**62


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One line of one log."""

    time_ms: int
    node: str
    event: str = field(compare=False)
    fields: Mapping[str, Any] = field(compare=False)


@dataclass
class _Log:
    """One file, as far as it has been read."""

    path: Path
    node: str
    skews: list[tuple[int, int, int]] = field(default_factory=list)
    """(from, to, by how much its clock is off), in true milliseconds, one after another."""
    offset: int = 0
    _clock: int = 0
    """Which of the skews the last event was written in: later ones are of that one, or of one after it."""

    def read(self, lines_max: int | None = None) -> Iterator[Event]:
        """What is new, whole lines only. A log that began anew is read from its beginning."""
        if not self.path.exists():
            return
        if self.path.stat().st_size < self.offset:
            self.offset = 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in islice(file, lines_max):
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                if event := self._event(line):
                    yield event

    def _event(self, line: bytes) -> Event | None:
        try:
            fields = json.loads(line)
            said = int(fields.pop("time_ms"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # cut off by a kill or a full disk
        event = str(fields.pop("event", fields.pop("act", "")))
        return Event(self._true_ms(said), self.node, event, fields)

    def _true_ms(self, said_ms: int) -> int:
        for index, (begin, end, skew_ms) in enumerate(self.skews[self._clock :], self._clock):
            if begin <= said_ms - skew_ms < end:
                self._clock = index
                return said_ms - skew_ms
        return said_ms


def merged(directory: Path, nodes: Collection[str] = ()) -> list[Event]:
    """Everything that was written so far, in its order; of these nodes, or of all."""
    return list(heapq.merge(*(sorted(log.read()) for log in _whole(directory, nodes))))


async def follow(directory: Path, nodes: Collection[str] = ()) -> AsyncGenerator[Event, None]:
    """What is written from now on, each look's events in their order, until cancelled."""
    logs = _logs(directory, nodes)
    for log in logs:
        log.offset = log.path.stat().st_size if log.path.exists() else 0
    while True:
        known = {log.path for log in logs}
        logs += [log for log in _logs(directory, nodes) if log.path not in known]
        for event in sorted(event for log in logs for event in log.read(LINES_MAX)):
            yield event
        await trio.sleep(LOOK_AGAIN_S)


def _whole(directory: Path, nodes: Collection[str]) -> list[_Log]:
    """Logs with those before them: a full log is kept beside the one that follows."""
    return [
        _Log(path, log.node, log.skews)
        for log in _logs(directory, nodes)
        for path in (log.path.with_suffix(".log.1"), log.path)
        if path.exists()
    ]


def _logs(directory: Path, nodes: Collection[str]) -> list[_Log]:
    skews = _skews(directory / injecting.LOG)
    found = [
        _Log(path, path.parent.name, skews.get(path.parent.name, [])) for path in sorted(directory.glob(f"*/{LOG}"))
    ]
    of_all = [_Log(directory / name, NETWORK) for name in (injecting.LOG, days.LOG)]
    return [log for log in [*found, *of_all] if not nodes or log.node in nodes]


def _skews(path: Path) -> dict[str, list[tuple[int, int, int]]]:
    """By node whose clock was ever off: by how much it is, from when to when."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        noted = json.loads(line)
        for node in noted["nodes"] if noted["fault"] == "clock-skew" else ():
            skews = found.setdefault(node, [(0, _EVER, 0)])
            skews[-1] = (skews[-1][0], noted["time_ms"], skews[-1][2])
            skews.append((noted["time_ms"], _EVER, noted["amount"] if noted["act"] == "begin" else 0))
    return found
