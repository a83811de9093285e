"""Whether the machine is lent, decided anew with each reading, with each word of the owner's, and when time changes it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import trio

from . import private
from .availability import Availability
from .log import EventLog, wall_ms
from .machine import beside, wait_until
from .rules.asked import NOTHING, Asked, together
from .rules.departures import Departure, departure, kept, leaves_in_ms
from .rules.hours import Now
from .rules.policy import Decision, Memory, Rules, Wish, decide, on_battery
from .rules.readings import Board, Bound
from .rules.signals import Signal
from .rules.worth import Draw, kwh_ucr
from .sensors.feed import Feed, boot_ms
from .settings import SettingError
from .wish import load, save

DEPARTURES: Final = "departures.json"
"""What past days have shown. It never leaves the machine."""
LOOK_S_MAX: Final = 60.0
"""Decided again after a minute at the latest: somebody may have set the clock."""
POWER: Final = ("power", "feeder", "site")
"""Reasons that a larger share of the connection would take away."""
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
        """Called when the budget has changed, and when it begins or ceases to be lent; after `on_leave`."""
        self.grid: list[Callable[[Now], Asked]] = []
        """Everybody who may ask something of the machine in the grid's name."""
        self.asked: Asked = NOTHING
        """What they ask, as of the last decision."""
        self.heard: list[Callable[[Now], list[str]]] = []
        """What they have to tell the owner, in words."""
        self.earns_ucr: Callable[[], float | None] = lambda: None
        """What an hour's work without a pause brings; None: not known yet."""
        self.rules = rules
        self._availability = availability
        self._state = state
        self._log = log
        self.wish = load(state, boot_ms(), wall_ms())
        self._memory = Memory() if rules.sensed else Memory(clear_since_ms=-inf)
        self._past = _past(state / DEPARTURES)
        self.earned_ucr: float | None = None
        """What `earns_ucr` last said."""
        self.changed = trio.Event()
        """Set, and replaced, when the machine begins or ceases to be lent, or a reason comes or goes."""
        self._woken = trio.Event()
        self._learned = trio.Event()
        self.decision = self._decide()
        availability.obey(_words(self.decision))

    def feed(self, source: str, good_ms: int, gives: Iterable[Signal] = ()) -> Feed:
        """Where an adapter's readings go; it is not lent until it is known what they are: by `gives`, or by the first.

        Raises `SettingError` if there are too many.
        """
        try:
            self.board.expect(source, gives)
        except ValueError as error:
            raise SettingError("sensors", str(error)) from None
        self.look()
        return Feed(source, self.board, self.look, good_ms)

    def look(self) -> None:
        """Everything that follows from what is known now has been begun: above all, the machine was given back.

        Nothing waits for the disk here: what was learned of it is written down later, by `noted`.
        """
        before, self.decision = self.decision, self._decide()
        leaves = self._availability.obey(_words(self.decision))
        if leaves:
            self.on_leave()
        if self.decision.lends and not before.lends:
            self.on_lend()
        if (self.decision.budget_w, self.decision.lends) != (before.budget_w, before.lends):
            self.on_power(self.decision)
        if {r.code for r in self.decision.reasons} != {r.code for r in before.reasons}:
            self._log.write("lent" if self.decision.lends else "withheld", why=_words(self.decision))
            self.changed.set()
            self.changed = trio.Event()
            self._learn(before)
        if self.decision.look_ms < before.look_ms or leaves:
            self._woken.set()

    async def run(self) -> None:
        """Looks again whenever time alone changes something, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_noting)
            while True:
                self._woken = trio.Event()
                now_ms = boot_ms()
                await wait_until(min(now_ms + LOOK_S_MAX * 1000, max(now_ms + 1, self.decision.look_ms)), self._woken)
                self.look()

    async def _keep_noting(self) -> None:
        """In a task of its own: a disk that hangs keeps nobody from looking."""
        while True:
            await self._learned.wait()
            await self.noted()

    async def noted(self) -> None:
        """The departures that were learned are on the disk; written beside the event loop."""
        self._learned = trio.Event()
        await beside(partial(_keep, self._state, self._past))

    def drive(self) -> None:
        """The owner said that they need the machine."""
        self._say(replace(self.wish, driving=True), keep=False)

    def park(self) -> None:
        """The owner said that they have left it."""
        self._say(replace(self.wish, driving=False), keep=False)

    def pause(self, seconds: float) -> None:
        """It is not lent for so long, also over a restart. Raises `StoreError` if that cannot be written."""
        self._say(replace(self.wish, paused_until_ms=boot_ms() + int(seconds * 1000)))

    def resume(self) -> None:
        """It is paused no more."""
        self._say(replace(self.wish, paused_until_ms=-inf))

    def opt_out(self, out: bool) -> None:
        """It is not lent until the owner opts in again."""
        self._say(replace(self.wish, opted_out=out))

    def bind(self, code: str, bound: Bound) -> None:
        """Work draws no more than this, from now on; of each code, the last one said counts."""
        self.board.bounds[code] = bound
        self.look()

    @property
    def draw(self) -> Draw:
        """What working draws, as far as it is known."""
        return self.rules.draw

    def wants_w(self) -> float:
        """What would be drawn of the machine's connection now, if nobody shared it: by its work, and by the rest as far as
        sensors tell; infinity: one of them that should tell does not."""
        work = all(reason.code in POWER for reason in self.decision.reasons)
        return self.others_w() + (min(self.rules.draw.full_w, self.decision.unshared_w) if work else 0.0)

    def others_w(self) -> float:
        """What chargers and the site's other load draw, as far as sensors tell; infinity: one that should tell does not."""
        if self.board.unread():
            return inf
        meters = [each for each in (Signal.CHARGERS_W, Signal.SITE_LOAD_W) if self.board.is_expected(each)]
        said = [self.board.known(signal, boot_ms()) for signal in meters]
        return inf if any(each.why for each in said) else sum(max(0.0, *each.values) for each in said)

    def stays_ms(self) -> float:
        """How long the machine is likely to stay, by the owner's word and by past days; infinity if nothing is known of it."""
        wants = self.rules.preferences
        return leaves_in_ms(wants.departures, self._past, self.now(), learns=wants.learn_departures)

    def hour_ucr(self) -> float:
        """What an hour of computing costs the owner now, with what they want beyond, in micro-credits."""
        return self.decision.hour_ucr

    def kwh_ucr(self) -> float:
        """What a kilowatt-hour costs the owner at this moment; with the battery's wear, if that gives it."""
        now = self.now()
        on = on_battery(self.board, now.ms)
        return sum(kwh_ucr(self.rules.preferences, now.of_day_ms, on_battery=on, now_ucr=self.asked.kwh_ucr))

    def demand_unmetered(self) -> None:
        """It is lent on unmetered links alone, from now on: somebody tells how the link is."""
        self.rules = replace(self.rules, unmetered_only=True)
        self.look()

    def calibrate(self, draw: Draw) -> None:
        """This is what working draws."""
        self.rules = replace(self.rules, draw=draw)
        self.look()

    @property
    def codes(self) -> frozenset[str]:
        """Of the reasons for which it is not lent."""
        return frozenset(reason.code for reason in self.decision.reasons)

    def now(self) -> Now:
        """This moment."""
        return local_now()

    def _say(self, wish: Wish, *, keep: bool = True) -> None:
        self.wish = wish
        self.look()
        if keep:
            save(self._state, wish, boot_ms(), wall_ms())

    def _decide(self) -> Decision:
        if (
            earns := self.earns_ucr()
        ) is not None:  # while there is no worker, what the last one would have brought counts
            self.earned_ucr = earns
        now = local_now()
        self.asked = together(ask(now) for ask in self.grid)
        found = decide(self.rules, self.board, self.wish, self._memory, now, self.earned_ucr, self.asked)
        self._memory = found.memory
        return found

    def _learn(self, before: Decision) -> None:
        """The departure is remembered, if this is one and the owner lets the machine learn. A full disk forgets it."""
        if not self.rules.preferences.learn_departures or _taken(before) or not _taken(self.decision):
            return
        self._past = kept(self._past, departure(local_now()))
        self._learned.set()


def _keep(state: Path, past: tuple[Departure, ...]) -> None:
    with suppress(OSError):
        private.replace(state / DEPARTURES, json.dumps([asdict(each) for each in past]).encode())


def _taken(decision: Decision) -> bool:
    """Whether somebody has come for the machine, as far as is known."""
    return any(reason.code in TOOK and not reason.unknown for reason in decision.reasons)


def _words(decision: Decision) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reason.why for reason in decision.reasons))


def local_now() -> Now:
    """This moment on the machine's clocks."""
    wall = wall_ms()
    return Now(boot_ms(), wall, (time.localtime(wall / 1000).tm_gmtoff or 0) * 1000)


def _past(path: Path) -> tuple[Departure, ...]:
    """What was kept; a file that is damaged says nothing."""
    try:
        return tuple(Departure(int(each["day"]), int(each["of_day_ms"])) for each in json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
