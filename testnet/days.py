"""Scripted days: when owners take their machines and when they leave them, by kind, in a day as long as one likes.

A script is a text such as `07:40 drive, 08:10 park`: times of day, in their order. Each node lives it a little earlier or later
than the others of its kind, by the seed. A day begins at `BEGINS`, when most machines are left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

import trio

from ..node.log import wall_ms
from ..protocol.errors import FallowError
from . import injecting
from .plan import DAY_BEGINS, Plan, bad
from .record import read_network

DRIVE, PARK = "drive", "park"
LOG: Final = "days.jsonl"
BEGINS: Final = 60 * int(DAY_BEGINS.partition(":")[0])
"""In minutes."""
DAY_MIN: Final = 24 * 60
JITTER_MIN: Final = 25
"""A node's moments are so much earlier or later than its script's at most."""
SCRIPTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "commuter": "07:40 drive, 08:15 park, 17:10 drive, 17:50 park",
        "taxi": "06:00 drive, 10:00 park, 11:00 drive, 15:30 park, 16:30 drive, 23:00 park",
        "warehouse": "06:30 drive, 09:00 park, 09:45 drive, 12:00 park, 13:00 drive, 15:30 park, 16:15 drive, 20:00 park",
        "household": "08:00 drive, 08:40 park, 12:30 drive, 13:00 park, 18:30 drive, 19:30 park",
        "peak": "17:00 drive, 20:00 park",
        "always": "",
    }
)
BY_KIND: Final[Mapping[str, str]] = MappingProxyType(
    {"vehicle": "commuter", "robot": "household", "site": "peak", "host": "always"}
)
"""A site withholds its machine while electricity is dear; a host never does."""
_MOMENT: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d) (drive|park)")


@dataclass(frozen=True, slots=True)
class Moment:
    """What an owner does, and when, from the run's beginning."""

    at_s: float
    node: str
    what: str


def script(text: str, kind: str) -> tuple[tuple[int, str], ...]:
    """(minute of the day, what) in the script of that name, or in the text itself; empty: the kind's own.

    Raises `ConfigError(bad_config)`.
    """
    plain = SCRIPTS.get(text or BY_KIND[kind], text)
    found = []
    for part in filter(None, map(str.strip, plain.split(","))):
        if not (match := _MOMENT.fullmatch(part)):
            raise bad(f"{part[:40]!r} is not of the form `07:40 drive`, nor is it one of {', '.join(SCRIPTS)}")
        found.append((int(match[1]) * 60 + int(match[2]), match[3]))
    if [minute for minute, _ in found] != sorted({minute for minute, _ in found}):
        raise bad("the moments of a day come one after another")
    return tuple(found)


def moments(plan: Plan, days: int = 1) -> list[Moment]:
    """What all owners do in so many days, in its order: a pure function of the plan and its seed."""
    found = []
    for node in plan.nodes:
        if node.sensors:
            continue  # its own signals tell it
        chance = Random(f"day {plan.seed} {node.name}")
        shift = chance.uniform(-JITTER_MIN, JITTER_MIN)
        for day in range(days):
            for minute, what in script(node.day, node.kind):
                since = (minute + shift - BEGINS) % DAY_MIN + day * DAY_MIN
                found.append(Moment(since / DAY_MIN * plan.day_s, node.name, what))
    return sorted(found, key=lambda moment: (moment.at_s, moment.node))


async def live(directory: Path, plan: Plan) -> None:
    """The owners live their days, one after another, until cancelled. What they do is noted in `LOG`."""
    if not plan.day_s:
        return
    began, day = trio.current_time(), moments(plan)
    while True:
        for moment in day:
            await trio.sleep_until(began + moment.at_s)
            await _act(directory, moment)
        began += plan.day_s
        await trio.sleep_until(began)


async def _act(directory: Path, moment: Moment) -> None:
    try:
        node = read_network(directory).find(moment.node)
        await (injecting.drive if moment.what == DRIVE else injecting.park)(node)
        said = ""
    except FallowError as error:  # a fault has it: the owner comes too late, or in vain
        said = str(error.code)
    line = {"time_ms": wall_ms(), "node": moment.node, "act": moment.what, "failed": said}
    with (directory / LOG).open("a") as log:
        log.write(json.dumps(line) + "\n")
