"""What a VEN reports, of those events that ask for it and as far as its owner lets it.

Nothing in a report tells where the machine is, or why it does not work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .openadr_events import Event

USAGE, STATE, SHED = "USAGE", "OPERATING_STATE", "LOAD_SHED_DELTA_AVAILABLE"
REPORTS: Final = (USAGE, STATE, SHED)
_UNITS: Final = {USAGE: "KWH", SHED: "KW"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What the machine has to tell of itself at one moment."""

    used_j: float = 0.0
    """By work for others, since the node's start."""
    works: bool = False
    """Whether it would work if there were work."""
    curtailed: bool = False
    """Whether the grid asks it for less."""
    sheds_w: float = 0.0
    """What it draws for its work just now, and could do without."""

    @property
    def state(self) -> str:
        """In the standard's words."""
        return f"{'RUNNING' if self.works else 'IDLE'}_{'CURTAILED' if self.curtailed else 'NORMAL'}"


def wanted(event: Event, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """What the event asks for and the owner allows."""
    return tuple(kind for kind in REPORTS if kind in event.reports and kind in allowed)


def report(
    event: Event,
    kinds: tuple[str, ...],
    name: str,
    number: int,
    since: Figures,
    now: Figures,
    from_ms: float,
    to_ms: float,
) -> dict[str, Any]:
    """The body of `POST /reports` for a stretch from one moment to another."""
    values: dict[str, float | str] = {
        USAGE: round(max(0.0, now.used_j - since.used_j) / 3.6e6, 6),
        STATE: now.state,
        SHED: round(now.sheds_w / 1000, 6),
    }
    interval = {
        "id": number,
        "intervalPeriod": {"start": _written(from_ms), "duration": f"PT{max(0, round((to_ms - from_ms) / 1000))}S"},
        "payloads": [{"type": kind, "values": [values[kind]]} for kind in kinds],
    }
    descriptors = [
        {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": kind}
        | ({"units": _UNITS[kind]} if kind in _UNITS else {})
        for kind in kinds
    ]
    return {
        "eventID": event.id,
        "clientName": name,
        "reportName": f"{name}-{event.id}-{number}"[:128],
        "payloadDescriptors": descriptors,
        "resources": [{"resourceName": name, "intervals": [interval]}],
    }


def _written(ms: float) -> str:
    return datetime.fromtimestamp(round(ms / 1000), UTC).isoformat().replace("+00:00", "Z")
