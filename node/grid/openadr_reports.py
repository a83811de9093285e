"""What a VEN reports, of those events that ask for it and as far as its owner lets it.

Nothing in a report tells where the machine is, or why it does not work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ..rules.worth import J_PER_KWH
from .openadr_events import Event
from .openadr_schedule import Schedule

USAGE, STATE, SHED = "USAGE", "OPERATING_STATE", "LOAD_SHED_DELTA_AVAILABLE"
REPORTS: Final = (USAGE, STATE, SHED)
REPORT_MS: Final = 900_000.0
"""A stretch that is reported is no longer than the quarter of an hour by which energy is billed."""
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


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Of an event, what is to be reported next."""

    span_ms: float
    since_ms: float
    figures: Figures
    number: int


class Reporting:
    """Which stretches of which events have been reported."""

    def __init__(self, name: str, allowed: tuple[str, ...]) -> None:
        self._name = name
        self._allowed = allowed
        self._open: dict[str, _Stretch] = {}

    def due(self, schedules: Iterable[Schedule], now_ms: float, figures: Figures) -> list[dict[str, Any]]:
        """Bodies of `POST /reports`, each for a stretch that is over by now, and not said again."""
        known = {schedule.event.id: schedule for schedule in schedules}
        self._open = {id_: stretch for id_, stretch in self._open.items() if id_ in known}
        bodies: list[dict[str, Any]] = []
        for id_, schedule in known.items():
            if not (kinds := wanted(schedule.event, self._allowed)):
                continue
            span, _ = schedule.at(now_ms)
            stretch = self._open.pop(id_, None)
            number = stretch.number if stretch else 0
            if stretch and (not span or span.start_ms != stretch.span_ms or now_ms - stretch.since_ms >= REPORT_MS):
                bodies.append(self._body(id_, kinds, stretch, now_ms, figures))
                stretch, number = None, number + 1
            if span:
                self._open[id_] = stretch or _Stretch(span.start_ms, now_ms, figures, number)
        return bodies

    def _body(self, id_: str, kinds: tuple[str, ...], stretch: _Stretch, now_ms: float, now: Figures) -> dict[str, Any]:
        values: dict[str, float | str] = {
            USAGE: round(max(0.0, now.used_j - stretch.figures.used_j) / J_PER_KWH, 6),
            STATE: now.state,
            SHED: round(now.sheds_w / 1000, 6),
        }
        seconds = max(0, round((now_ms - stretch.since_ms) / 1000))
        interval = {
            "id": stretch.number,
            "intervalPeriod": {"start": _written(stretch.since_ms), "duration": f"PT{seconds}S"},
            "payloads": [{"type": kind, "values": [values[kind]]} for kind in kinds],
        }
        descriptors = [
            {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": kind}
            | ({"units": _UNITS[kind]} if kind in _UNITS else {})
            for kind in kinds
        ]
        return {
            "eventID": id_,
            "clientName": self._name,
            "reportName": f"{self._name}-{id_}-{stretch.number}"[:128],
            "payloadDescriptors": descriptors,
            "resources": [{"resourceName": self._name, "intervals": [interval]}],
        }


def _written(ms: float) -> str:
    return datetime.fromtimestamp(round(ms / 1000), UTC).isoformat().replace("+00:00", "Z")
