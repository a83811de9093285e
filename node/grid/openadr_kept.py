"""The events of a VTN as this machine knows them, over lists that change, nonsense, and restarts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..durable import put
from ..log import EventLog
from .openadr_events import GHG, IMPORT_LIMIT, PRICE, SETPOINT, OddError, event_of, parsed
from .openadr_schedule import Schedule

STATE: Final = "openadr.json"
STATE_BYTES_MAX: Final = 64 * 1024 * 1024
INTERVALS_MAX: Final = 20_000
"""Of all events together: prices of two months in steps of five minutes; laying them out takes a tenth of a second."""
UNREAD: Final = {
    "payloadDescriptors": [
        {"payloadType": kind, "units": "of a program that cannot be read"}
        for kind in (IMPORT_LIMIT, SETPOINT, PRICE, GHG)
    ]
}
"""Of a program whose descriptors are not known: its limits might be watts, or megawatts."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An event as it came, and what was understood of it."""

    schedule: Schedule
    raw: Mapping[str, Any]
    program: Mapping[str, Any]
    """Its program's descriptors, for what it does not describe itself."""


def understood(
    rows: Iterable[Any],
    programs: Mapping[str, Mapping[str, Any]] | None,
    before: Mapping[str, Kept],
    now_ms: float,
    seed: bytes,
) -> tuple[dict[str, Kept], list[str]]:
    """The events by their ids, and what was not understood, in words: an event that has turned into nonsense stays as it was.

    `programs`: those that could be read, by their ids; None: none yet. Raises `OddError` if the events have too many intervals.
    """
    kept: dict[str, Kept] = {}
    remarks: list[str] = []
    count = 0
    for raw in rows:
        try:
            one = _understood(raw, programs, before, now_ms, seed)
            kept[one.schedule.event.id] = one
            count += len(one.schedule.spans)
        except OddError as error:
            remarks.append(f"not understood: {error}")
            id_ = str(raw.get("id"))[:128] if isinstance(raw, dict) else ""
            if id_ in before:
                kept[id_] = before[id_]
        if count > INTERVALS_MAX:
            raise OddError(f"its events have more than {INTERVALS_MAX} intervals")
    return kept, remarks


def load(path: Path, log: EventLog) -> tuple[bytes, dict[str, Kept]]:
    """The seed of this machine's lots, and what was kept; a damaged file says nothing, and a fresh seed is made."""
    try:
        with path.open("rb") as stream:
            held = parsed(stream.read(STATE_BYTES_MAX))
        seed, kept = bytes.fromhex(held["seed"]), {}
        for row in held["events"]:
            schedule = Schedule.of(event_of(row["raw"], row["program"]), float(row["seen_ms"]), seed)
            kept[schedule.event.id] = Kept(schedule, row["raw"], row["program"])
        return seed, kept
    except FileNotFoundError:
        pass
    except (OSError, OddError, ValueError, KeyError, TypeError) as error:
        log.write("grid_state_lost", why=str(error)[:200])
    return os.urandom(16), {}


def save(path: Path, seed: bytes, kept: Iterable[Kept], log: EventLog) -> None:
    """A restart finds them. Blocks. A full disk costs what a restart would find, and nothing else."""
    rows = [{"raw": one.raw, "program": one.program, "seen_ms": one.schedule.seen_ms} for one in kept]
    try:
        put(path, json.dumps({"seed": seed.hex(), "events": rows}).encode())
    except (OSError, RecursionError) as error:  # what was nested just so deeply that it could be read
        log.write("grid_state_lost", why=str(getattr(error, "strerror", None) or error))


def _understood(
    raw: Any, programs: Mapping[str, Mapping[str, Any]] | None, before: Mapping[str, Kept], now_ms: float, seed: bytes
) -> Kept:
    given = raw if isinstance(raw, dict) else {}
    id_ = given.get("id")
    known = before.get(id_) if isinstance(id_, str) else None
    program = (programs or {}).get(str(given.get("programID")))
    descriptors: Mapping[str, Any]
    if program is not None:
        descriptors = {"payloadDescriptors": program.get("payloadDescriptors")}
    else:
        same_program = known and known.raw.get("programID") == given.get("programID")
        descriptors = known.program if known and same_program else UNREAD
    if known and known.raw == raw and known.program == descriptors:
        return known
    event = event_of(raw, descriptors)
    same = known and known.schedule.event.modified == event.modified
    seen_ms = known.schedule.seen_ms if known and same else now_ms
    return Kept(Schedule.of(event, seen_ms, seed), raw, descriptors)
