"""Whether the machine is lent, decided anew with each reading, with each word of the owner's, and when time changes it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import trio

from .availability import Availability
from .log import EventLog, wall_ms
from .machine import beside
from .rules.departures import Departure, departure, kept, leaves_in_ms
from .rules.hours import Now
from .rules.policy import Decision, Memory, Rules, Wish, decide, on_battery
from .rules.readings import Board
from .rules.signals import KINDS, Value
from .rules.worth import Draw, kwh_ucr
from .sensors.feed import Feed, boot_ms
from .settings import SettingError
from .wish import load, save

DEPARTURES: Final = "departures.json"
"""What past days have shown. It never leaves the machine."""
LOOK_S_MAX: Final = 60.0
"""Decided again after a minute at the latest: somebody may have set the clock."""
NOTES_MAX: Final = 64
"""Words for the disk that wait for it: a sensor that flickers while the disk hangs costs words, and nothing else."""
TOOK: Final = ("driving", "speed_kmh", "moving", "ignition", "in_use", "in_gear", "occupied", "docked")
"""Reasons that are a departure: somebody came for the machine."""


class Lending:
    """The one place where it is decided, and where every reason is known."""

    def __init__(self, rules: Rules, availability: Availability, state: Path, log: EventLog) -> None:
        self.board = Board()
        self.on_leave: Callable[[], None] = availability.yielded
        """Called at once when the machine is to be given back; whoever sets it sees to it that it is."""
        self.on_lend: Callable[[], None] = lambda: None
        self.on_power: Callable[[Decision], None] = lambda decision: None
        """Called when the budget has changed."""
        self.earns_ucr: Callable[[], float | None] = lambda: None
        """What an hour's work without a pause brings; None: not known yet."""
        self._rules = rules
        self._availability = availability
        self._state = state
        self._log = log
        self._wish = load(state, boot_ms(), wall_ms())
        self._memory = Memory() if rules.sensed else Memory(clear_since_ms=-inf)
        self._past = _past(state / DEPARTURES)
        self._earns_ucr: float | None = None
        self._woken = trio.Event()
        self._notes: deque[Callable[[], None]] = deque(maxlen=NOTES_MAX)
        self.decision = self._decide()
        availability.obey(_words(self.decision))

    def feed(self, source: str, good_ms: int) -> Feed:
        """Where an adapter's readings go. Raises `SettingError` if there are too many."""
        try:
            self.board.expect(source, ())
        except ValueError as error:
            raise SettingError("sensors", str(error)) from None
        return Feed(source, self.board, self.look, good_ms)

    def look(self) -> None:
        """Everything that follows from what is known now has been begun: above all, the machine was given back.

        Nothing waits for the disk here: what is to be written down is so later, by `noted`.
        """
        before, self.decision = self.decision, self._decide()
        leaves = self._availability.obey(_words(self.decision))
        if leaves:
            self.on_leave()
        if self.decision.lends and not before.lends:
            self.on_lend()
        if self.decision.budget_w != before.budget_w:
            self.on_power(self.decision)
        if {r.code for r in self.decision.reasons} != {r.code for r in before.reasons}:
            self._notes.append(
                partial(self._log.write, "lent" if self.decision.lends else "withheld", why=_words(self.decision))
            )
            self._learn(before)
        if self.decision.look_ms < before.look_ms or leaves or self._notes:
            self._woken.set()

    async def run(self) -> None:
        """Looks again whenever time alone changes something, until cancelled."""
        while True:
            await self.noted()
            self._woken = trio.Event()
            with trio.move_on_after(min(LOOK_S_MAX, max(0.001, (self.decision.look_ms - boot_ms()) / 1000))):
                await self._woken.wait()
            self.look()

    async def noted(self) -> None:
        """What was decided is in the log, and a departure that was learned is on the disk; written beside the event loop."""
        while self._notes:
            await beside(self._notes.popleft())

    def drive(self) -> None:
        """The owner said that they need the machine."""
        self._say(replace(self._wish, driving=True), keep=False)

    def park(self) -> None:
        """The owner said that they have left it."""
        self._say(replace(self._wish, driving=False), keep=False)

    def pause(self, seconds: float) -> None:
        """It is not lent for so long, also over a restart. Raises `StoreError` if that cannot be written."""
        self._say(replace(self._wish, paused_until_ms=boot_ms() + int(seconds * 1000)))

    def resume(self) -> None:
        """It is paused no more."""
        self._say(replace(self._wish, paused_until_ms=-inf))

    def opt_out(self, out: bool) -> None:
        """It is not lent until the owner opts in again."""
        self._say(replace(self._wish, opted_out=out))

    def stays_ms(self) -> float:
        """How long the machine is likely to stay, by the owner's word and by past days; infinity if nothing is known of it."""
        wants = self._rules.preferences
        return leaves_in_ms(wants.departures, self._past, _now(), learns=wants.learn_departures)

    def kwh_ucr(self) -> float:
        """What a kilowatt-hour costs the owner at this moment; with the battery's wear, if that gives it."""
        now = _now()
        return sum(kwh_ucr(self._rules.preferences, now.of_day_ms, on_battery=on_battery(self.board, now.ms)))

    def demand_unmetered(self) -> None:
        """It is lent on unmetered links alone, from now on: somebody tells how the link is."""
        self._rules = replace(self._rules, unmetered_only=True)
        self.look()

    def calibrate(self, draw: Draw) -> None:
        """This is what working draws."""
        self._rules = replace(self._rules, draw=draw)
        self.look()

    @property
    def paused_s(self) -> float:
        """Seconds for which it is paused yet."""
        return max(0.0, (self._wish.paused_until_ms - boot_ms()) / 1000)

    def _say(self, wish: Wish, *, keep: bool = True) -> None:
        self._wish = wish
        self.look()
        if keep:
            save(self._state, wish, boot_ms(), wall_ms())

    def _decide(self) -> Decision:
        if (
            earns := self.earns_ucr()
        ) is not None:  # while there is no worker, what the last one would have brought counts
            self._earns_ucr = earns
        found = decide(self._rules, self.board, self._wish, self._memory, _now(), self._earns_ucr)
        self._memory = found.memory
        return found

    def _learn(self, before: Decision) -> None:
        """The departure is remembered, if this is one and the owner lets the machine learn. A full disk forgets it."""
        if not self._rules.preferences.learn_departures or _taken(before) or not _taken(self.decision):
            return
        self._past = kept(self._past, departure(_now()))
        self._notes.append(partial(_keep, self._state, self._past))


def _keep(state: Path, past: tuple[Departure, ...]) -> None:
    try:
        scratch = state / f".{DEPARTURES}"
        scratch.write_text(json.dumps([asdict(each) for each in past]))
        scratch.chmod(0o600)
        scratch.replace(state / DEPARTURES)
    except OSError:
        pass


def _taken(decision: Decision) -> bool:
    """Whether somebody has come for the machine, as far as is known."""
    return any(reason.code in TOOK and not reason.unknown for reason in decision.reasons)


def _words(decision: Decision) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reason.why for reason in decision.reasons))


def _now() -> Now:
    wall = wall_ms()
    return Now(boot_ms(), wall, (time.localtime(wall / 1000).tm_gmtoff or 0) * 1000)


def _past(path: Path) -> tuple[Departure, ...]:
    """What was kept; a file that is damaged says nothing."""
    try:
        return tuple(Departure(int(each["day"]), int(each["of_day_ms"])) for each in json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def said(lending: Lending) -> dict[str, str | int | list[str]]:
    """What is known of the machine, and what follows, in words for its owner."""
    decision, board, now_ms = lending.decision, lending.board, boot_ms()
    known = [
        f"{KINDS[signal].name}: {_value(reading.value, KINDS[signal].unit)} "
        f"({source}, {(now_ms - reading.at_ms) / 1000:.0f} s ago)"
        for (source, signal), reading in sorted(board.readings.items())
        if (source, signal) not in board.faults
    ]
    left_ms = decision.look_ms - now_ms
    stays_ms = lending.stays_ms()
    return {
        "budget": "no bound" if decision.budget_w == inf else f"{decision.budget_w:.0f} W ({decision.limits[-1]})",
        "next_look": "with the next reading"
        if left_ms == inf
        else f"in {max(0.0, left_ms) / 1000:.0f} s, or with the next reading",
        "needed_again": "not known" if stays_ms == inf else f"in about {stays_ms / 3_600_000:.1f} h",
        "sensors": [f"{source}: {health}" for source, health in board.health(now_ms).items()] or ["none"],
        "known": known or ["nothing"],
    }


def _value(value: Value, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g} {unit}".rstrip()
