"""What all machines of one simulation share, and what makes one of them: a clock, chance and a log of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from ....client.history import Subject
from ....node.accounts import Accounts
from ....node.log import EventLog
from ....node.machine import Machine
from ....node.network.buckets import Contact
from ....protocol.disputes import Decided
from ....protocol.evidence import Proven
from .bundles import SimBundle
from .contents import Shelf
from .log import Log
from .medium import Medium

EPOCH_S: Final = 1_767_571_200
"""Monday 2026-01-05 00:00 UTC: week 0 of every scenario."""
THREADS: Final = 8
OTHERS_FIRST: Final = 0.25
"""The chance that something else comes before what is run beside."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A machine has come to know of a fault, and looked for itself."""

    at_s: float
    machine: int
    proven: Proven


@dataclass
class World:
    """What all machines of one simulation share."""

    medium: Medium
    log: Log
    seed: int
    begin_s: float
    """Of the scenario, since Monday 00:00 UTC."""
    folder: Path
    contacts: Sequence[str] = ()
    """Addresses of index nodes by which a machine joins."""
    hostile: Sequence[Contact] = ()
    """Index nodes that name one another alone."""
    judges: Mapping[bytes, str] = field(default_factory=dict)
    """Whom every client and node accepts as judges: addresses by owner. Without some, no pay is held."""
    bundles: Sequence[SimBundle] = ()
    shelf: Shelf | None = None
    """Where contents lie, if any bundle is to be fetched."""
    met: Sequence[Subject] = ()
    """Whom every client knows from before."""
    history: int = 0
    """Valid checked results of each of them."""
    gossip: bool = False
    courts: bool = False
    heard: list[Heard] = field(default_factory=list)
    """Faults, as each machine came to know of them."""
    decided: list[tuple[int, Decided]] = field(default_factory=list)
    """What nodes won or lost before judges, once it is in their books."""
    tills: dict[bytes, Accounts] = field(default_factory=dict)
    """The judges' books, by their keys."""

    def begins_ms(self) -> int:
        """The true time at the beginning."""
        return (EPOCH_S + round(self.begin_s)) * 1000

    def machine(self, chance: Random, skew_ms: Callable[[], float]) -> Machine:
        """A machine whose clock is off by so much."""
        began_ns = self.begins_ms() * 1_000_000

        def wall_ns() -> int:
            return began_ns + round(trio.current_time() * 1e9) + round(skew_ms() * 1e6)

        async def at_once(task: Callable[[], Any], limiter: trio.CapacityLimiter | None) -> Any:
            """A disk that takes no time; now and then others run before it, as with a thread."""
            if chance.random() < OTHERS_FIRST:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            return task()

        def boot_ns() -> int:
            return round(trio.current_time() * 1e9)

        return Machine(wall_ns, chance, at_once, lambda task: task(), lambda: THREADS, boot_ns, sleeps=False)


class MachineLog(EventLog):
    """A node's event log, as part of what happened."""

    def __init__(self, log: Log, number: int) -> None:
        self._log = log
        self._number = number

    def write(self, event: str, **fields: str | int | tuple[str, ...]) -> None:
        self._log.write(self._number, event, *(f"{name}={value}".replace(" ", "_") for name, value in fields.items()))
