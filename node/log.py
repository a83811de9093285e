"""The node's event log: one JSON object a line, in the state directory. It names no client's address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from .machine import wall_ms as wall_ms

LOG = "node.log"
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
"""Then the log begins anew, and the one before is kept beside it: some 50,000 jobs each."""


class EventLog:
    """Events, as they happen. A full disk costs the log, not the node."""

    def __init__(self, state: Path) -> None:
        self.path = state / LOG

    def write(self, event: str, **fields: str | int | tuple[str, ...]) -> None:
        """The event is in the log."""
        line = json.dumps({"time_ms": wall_ms(), "event": event, **fields})
        try:
            if self.path.exists() and self.path.stat().st_size > LOG_BYTES_MAX:
                self.path.rename(self.path.with_suffix(".log.1"))
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError:
            pass
