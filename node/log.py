"""The node's event log: one JSON object a line, in the state directory. It names no client's address."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Final, TypeAlias

from . import private
from .machine import wall_ms as wall_ms

LOG = "node.log"
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
"""Then the log begins anew, and the one before is kept beside it: some 50,000 jobs each."""
WAITING_MAX: Final = 4096
"""Events that wait while the disk hangs, a few hundred bytes each; those beyond are counted, and their number is written."""
FLUSH_S: Final = 5.0
"""In the end, for a disk that hangs: what it has not taken by then is lost."""
OWN: Final = ("lent", "withheld", "power_helper", "meters_missing")
"""Events that tell of this machine alone: where a sensor of its own cannot be reached is for its owner to know."""
_MULTIADDR: Final = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6|dnsaddr)/[^\s,;'\"\])]*[^\s,;'\"\]):.]")
_LITERAL: Final = re.compile(r"[0-9A-Fa-f.:]{3,45}")

Field: TypeAlias = str | int | tuple[str, ...]
Hear: TypeAlias = Callable[[str, Mapping[str, Field]], None]


class EventLog:
    """Events, as they happen. A full disk costs the log, not the node."""

    def __init__(self, state: Path, hear: Hear = lambda event, fields: None) -> None:
        """`hear` is told of each event, whether the disk takes it or not."""
        self.path = state / LOG
        self._hear = hear
        self._waiting: Queue[str | None] | None = None
        self._lost = 0

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Whoever writes does not wait for the disk: a thread does. In the end all are written, or how many are not."""
        waiting = self._waiting = Queue(WAITING_MAX)
        thread = Thread(target=self._drain, args=(waiting,), name="log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with suppress(Full):
                if self._lost:
                    waiting.put(self._loss(), timeout=FLUSH_S)
                waiting.put(None, timeout=FLUSH_S)
            thread.join(FLUSH_S)
            self._waiting = None

    def write(self, event: str, **fields: Field) -> None:
        """The event is in the log; or will be, after those before it, where that is written in the background."""
        if event not in OWN:
            fields = {name: _without_addresses(value) for name, value in fields.items()}
        self._hear(event, fields)
        line = _line(event, fields)
        if self._waiting is None:
            self._append([line])
        else:
            self._enqueue(self._waiting, line)

    def _enqueue(self, waiting: Queue[str | None], line: str) -> None:
        try:
            if self._lost:
                waiting.put_nowait(self._loss())
                self._lost = 0
            waiting.put_nowait(line)
        except Full:
            self._lost += 1

    def _loss(self) -> str:
        return _line("events_lost", {"events": self._lost})

    def _drain(self, waiting: Queue[str | None]) -> None:
        """All that waits is written together: a slow disk is opened as seldom as it has to be."""
        lines: list[str | None] = []
        while None not in lines:
            lines = [waiting.get()]
            lines += [waiting.get() for _ in range(waiting.qsize())]
            self._append([line for line in lines if line is not None])

    def _append(self, lines: Sequence[str]) -> None:
        with suppress(OSError):
            if self.path.exists() and self.path.stat().st_size > LOG_BYTES_MAX:
                self.path.rename(self.path.with_suffix(".log.1"))
            with private.stream(self.path, "a") as stream:
                stream.writelines(line + "\n" for line in lines)


def _line(event: str, fields: Mapping[str, Field]) -> str:
    return json.dumps({"time_ms": wall_ms(), "event": event, **fields})


def _without_addresses(value: Field) -> Field:
    """An error's words may name where a peer was dialled, or from where it came."""
    match value:
        case str():
            return _LITERAL.sub(_if_address, _MULTIADDR.sub("(address)", value))
        case tuple():
            return tuple(str(_without_addresses(each)) for each in value)
        case _:
            return value


def _if_address(found: re.Match[str]) -> str:
    text = found[0]
    host, _, port = text.rpartition(":")
    for candidate, rest in ((text, ""), (text.rstrip(".:"), ""), (host, port)):
        try:
            ip_address(candidate)
        except ValueError:
            continue
        return f"(address):{rest}" if rest and "." in candidate else "(address)"
    return text
