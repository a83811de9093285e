"""Whether the machine is lent at this moment: readings, the owner's wishes and the time in; every reason and a budget out.

The function is total: whatever was read, or not, there is an answer, and where something that matters is not known the answer
is no. The way out is immediate. The way in is slow: for `settle_ms` there has to be no reason, and a limit that was crossed
has to be left behind by its margin first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final

from .asked import NOTHING, Asked
from .hours import Now, span
from .preferences import DEMANDED, PREFERRED, Preferences
from .readings import Board, Bound, Known
from .signals import KINDS, Signal
from .worth import Draw, worth

STANDING_KMH: Final = 0.5
"""Wheel sensors of parked cars flicker below that."""
SOC_MARGIN_PCT: Final = 2.0
TEMPERATURE_MARGIN_C: Final = 3.0
LOW_VOLTAGE_MARGIN_V: Final = 0.4
POWER_MARGIN: Final = 0.1
"""Margins that a limit has to be left behind by before it counts as kept again: what hovers about it would come and go."""
DUTY_MIN: Final = 0.05
"""Below a twentieth of its speed a machine keeps jobs that others would have long finished."""

OWNER = "the owner needs the machine"


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change while the node runs."""

    kind: str | None
    preferences: Preferences
    settle_ms: int
    draw: Draw
    unmetered_only: bool = False
    sensed: bool = False
    """Whether the machine has sensors: then what they have to tell is demanded of them."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The owner's own word, by command. It beats everything that lends."""

    driving: bool = False
    paused_until_ms: float = -inf
    """On the clock of `Now.ms`."""
    opted_out: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that keeps the machine from being lent."""

    code: str
    why: str
    """For the owner."""
    unknown: bool = False
    """It holds because something is not known."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the next decision has to know of those before it."""

    blocked: frozenset[str] = frozenset()
    """Codes of the reasons that held."""
    clear_since_ms: float = inf
    """Since when there has been no reason; infinity: there is one. A node that reads no sensors starts with -infinity."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one moment's readings."""

    reasons: tuple[Reason, ...]
    """Empty: the machine is lent."""
    budget_w: float
    """What its work may draw; infinity where nobody bounds it."""
    look_ms: float
    """On the clock of `Now.ms`: when to decide again though nothing was read."""
    memory: Memory
    limits: tuple[str, ...] = field(default=())
    """Whose bound the budget is, in words, the strictest last."""
    hour_ucr: float = 0.0
    """What an hour of computing without a pause costs the owner now, with what they want beyond, in micro-credits."""
    unshared_w: float = inf
    """The budget, but for this machine's shares of what it shares with others (`Board.bounds`)."""

    @property
    def lends(self) -> bool:
        return not self.reasons


def decide(
    rules: Rules,
    board: Board,
    wish: Wish,
    memory: Memory,
    now: Now,
    earns_ucr: float | None = None,
    asked: Asked = NOTHING,
) -> Decision:
    """The decision of this moment. `earns_ucr`: what an hour's work without a pause brings; None: not known yet. `asked`: what
    the grid asks now."""
    look = _Look(rules, board, memory, now, asked)
    reasons = list(look.reasons(wish, earns_ucr))
    clear_since_ms = inf if reasons else min(memory.clear_since_ms, now.ms)
    settled_ms = clear_since_ms + rules.settle_ms
    blocked = frozenset(reason.code for reason in reasons)
    if not reasons and now.ms < settled_ms:
        reasons.append(Reason("settling", "parked only a short while ago"))
        look.until_ms = min(look.until_ms, settled_ms)
    # Short of the wait, margins still count: what is let go of them only starts it.
    held = blocked or (memory.blocked if reasons else frozenset())
    return Decision(
        tuple(reasons),
        look.budget_w,
        look.until_ms,
        Memory(held, clear_since_ms),
        tuple(look.limits),
        look.hour_ucr,
        look.unshared_w,
    )


class _Look:
    """One look at everything. `until_ms` is when something of it changes by itself."""

    def __init__(self, rules: Rules, board: Board, memory: Memory, now: Now, asked: Asked) -> None:
        self._rules, self._board, self._memory, self._now, self._asked = rules, board, memory, now, asked
        self._wants = rules.preferences
        self.until_ms = inf
        self.budget_w = self.unshared_w = inf
        self.hour_ucr = 0.0
        self.limits: list[str] = []

    def reasons(self, wish: Wish, earns_ucr: float | None) -> Iterator[Reason]:
        """All that hold, in the order in which an owner would ask."""
        yield from self._wish(wish)
        yield from self._used()
        yield from self._hours()
        yield from self._grid()
        yield from self._energy()
        yield from self._temperatures()
        yield from self._link()
        yield from self._power()
        yield from self._worth(earns_ucr)

    def _wish(self, wish: Wish) -> Iterator[Reason]:
        if wish.opted_out:
            yield Reason("opted-out", "the owner has opted out (`fallow node opt-in` lends again)")
        if wish.driving:
            yield Reason("driving", OWNER)
        if self._now.ms < wish.paused_until_ms:
            self._again(wish.paused_until_ms)
            left_s = (wish.paused_until_ms - self._now.ms) / 1000
            yield Reason("paused", f"the owner has paused it, for {span(left_s)} more")

    def _used(self) -> Iterator[Reason]:
        """Whether somebody uses the machine, or is about to."""
        for source, why in self._board.unread().items():
            yield Reason("sensor", f"what {source} knows is not known: {why}", unknown=True)
        moving = self._ask(Signal.SPEED_KMH), self._ask(Signal.MOVING)
        for signal, said in zip((Signal.SPEED_KMH, Signal.MOVING), moving, strict=True):
            if any(abs(value) > STANDING_KMH for value in said.values):
                yield Reason("moving", "it moves")
            yield from self._unknown(signal, said)
        yield from self._demand("vehicle", "whether it moves", Signal.SPEED_KMH, Signal.MOVING)
        yield from self._flag(Signal.IN_USE, "it is in use")
        yield from self._flag(Signal.IN_GEAR, "a gear is in")
        yield from self._flag(Signal.IGNITION, "the ignition is on")
        if self._wants.yield_when_occupied:
            yield from self._flag(Signal.OCCUPIED, "somebody sits in the driver's seat")
        yield from self._flag(Signal.DOCKED, "it is not at its dock", forbidden=False)
        yield from self._demand("robot", "whether it is at its dock", Signal.DOCKED, Signal.IN_USE)
        held = [self._ask(signal) for signal in (Signal.PARK_BRAKE, Signal.PARK_LOCK) if self._expected(signal)]
        if held and all(said.values for said in held) and not any(all(said.values) for said in held):
            yield Reason("brake", "neither parking brake nor park lock holds it")
        for signal in (Signal.PARK_BRAKE, Signal.PARK_LOCK):
            if self._expected(signal):
                yield from self._unknown(signal, self._ask(signal))
        if not self._wants.run_if_user_active:
            wanted_s = self._wants.idle_time_to_run * 60
            yield from self._bound(Signal.USER_IDLE_S, wanted_s, 0, "run_if_user_active", self._user_active)

    def _demand(self, kind: str, what: str, *signals: Signal) -> Iterator[Reason]:
        """A reason if a machine of this kind has sensors, and none gives any of these."""
        if self._rules.sensed and self._rules.kind == kind and not any(map(self._expected, signals)):
            yield Reason(signals[0].value, f"it is not known {what}: no sensor gives that", unknown=True)

    def _user_active(self, idle_s: float, wanted_s: float) -> str:
        self._again(self._now.ms + (wanted_s - idle_s) * 1000)
        return f"its user was active {span(idle_s)} ago (`idle_time_to_run` is {span(wanted_s)})"

    def _hours(self) -> Iterator[Reason]:
        for code, window in (("hours", self._wants.hours), ("net-hours", self._wants.net_hours)):
            self._again(self._now.ms + window.changes_in_ms(self._now.of_day_ms))
            if not window.holds(self._now.of_day_ms):
                yield Reason(code, f"it is lent from {window} only")

    def _grid(self) -> Iterator[Reason]:
        """Stop orders; what only bounds the power comes with the budget."""
        self._again(self._now.ms + self._asked.changes_in_ms)
        for why in self._asked.stops:
            yield Reason("grid", why)

    def _energy(self) -> Iterator[Reason]:
        plugged = self._ask(Signal.PLUGGED)
        if self._wants.plugged_in == DEMANDED:
            yield from self._flag(Signal.PLUGGED, "it is not plugged in", forbidden=False, demanded=True)
        elif self._wants.plugged_in == PREFERRED and self._expected(Signal.PLUGGED):
            yield from self._unknown(Signal.PLUGGED, plugged)
        floor = self._wants.battery_charge_min_pct
        if self._wants.plugged_in == PREFERRED and not (plugged.values and all(plugged.values)):
            floor = self._wants.unplugged_charge_min_pct
        if self._wants.battery_charge_min_pct > 0:
            yield from self._bound(
                Signal.SOC_PCT, floor, SOC_MARGIN_PCT, "battery_charge_min_pct",
                lambda soc, least: f"its charge is {soc:.0f} %, below {least:.0f} %", always=True,
            )  # fmt: skip
        if not self._wants.run_on_batteries:
            yield from self._flag(
                Signal.ON_BATTERY, "it runs on its battery", demanded="run_on_batteries" in self._wants.said
            )
        yield from self._bound(
            Signal.LOW_VOLTAGE_V, self._wants.low_voltage_min, LOW_VOLTAGE_MARGIN_V, "low_voltage_min",
            lambda volts, least: f"its 12 V battery has {volts:.1f} V, less than {least:.1f} V",
        )  # fmt: skip

    def _temperatures(self) -> Iterator[Reason]:
        for signal, most, word in (
            (Signal.BATTERY_C, self._wants.battery_max_temperature, "battery_max_temperature"),
            (Signal.CABIN_C, self._wants.cabin_max_temperature, "cabin_max_temperature"),
            (Signal.MACHINE_C, self._wants.machine_max_temperature, "machine_max_temperature"),
            (Signal.ACCELERATOR_C, self._wants.accelerator_max_temperature, "accelerator_max_temperature"),
        ):
            yield from self._bound(signal, most, TEMPERATURE_MARGIN_C, word, partial(_hot, signal), upper=True)

    def _link(self) -> Iterator[Reason]:
        if self._rules.unmetered_only:
            said = self._ask(Signal.METERED)
            if said.why:
                why = said.why.removeprefix("link: ")
                yield Reason("metered", f"it is not known whether the link is metered ({why})", unknown=True)
            elif any(said.values):
                yield Reason("metered", "the link is metered")

    def _power(self) -> Iterator[Reason]:
        """The budget, and whether it is worth starting for."""
        if self._wants.max_power_w:
            self._cap(self._wants.max_power_w, "`max_power_w`")
        cap = self._ask(Signal.SHED_CAP_W)
        yield from self._unknown(Signal.SHED_CAP_W, cap)
        for watts in cap.values:
            self._cap(watts, "the grid asks for less")
        for watts, whose in self._asked.caps:
            self._cap(watts, whose)
        for share, whose in self._asked.shares:
            # What it draws while it computes is not known: then a share of it is none.
            self._cap(share * self._rules.draw.full_w, whose)
        level = self._ask(Signal.OPTIMIZE_LEVEL)
        yield from self._unknown(Signal.OPTIMIZE_LEVEL, level)
        for value in level.values:
            if value > 0:  # of ten steps from full power to none
                bound_w = min(self.budget_w, self._rules.draw.full_w or inf)
                self._cap((0.0 if bound_w == inf else bound_w) * (10 - value) / 10, "the vehicle saves power")
        limit = self._ask(Signal.GRID_LIMIT_W)
        yield from self._unknown(Signal.GRID_LIMIT_W, limit)
        others_w = 0.0
        for signal in (Signal.CHARGERS_W, Signal.SITE_LOAD_W):
            said = self._ask(signal)
            yield from self._unknown(signal, said)
            others_w += max((0.0, *said.values)) if signal is Signal.CHARGERS_W else max(said.values, default=0.0)
        for watts in limit.values:
            self._cap(max(0.0, watts - others_w), "the grid connection, less chargers and the site's other load")
        for watts, whose in self._asked.imports:
            self._cap(max(0.0, watts - others_w), whose)
        self.unshared_w = self.budget_w
        for code, bound in self._board.bounds.items():
            yield from self._bound_by(code, bound, others_w if bound.whole else 0.0)
        least_w = self._rules.draw.watts(DUTY_MIN)
        if "power" in self._memory.blocked:
            least_w *= 1 + POWER_MARGIN
        if self.budget_w < least_w or self.budget_w <= 0:
            yield Reason("power", f"it may draw {self.budget_w:.0f} W, and needs {least_w:.0f} W ({self.limits[-1]})")

    def _bound_by(self, code: str, bound: Bound, others_w: float) -> Iterator[Reason]:
        if self._now.ms >= bound.until_ms:
            self._cap(0.0, bound.why)
            yield Reason(code, f"it is not known any more what it may draw ({bound.why})", unknown=True)
            return
        self._again(bound.until_ms)
        self._cap(max(0.0, bound.watts - others_w), bound.why)

    def _worth(self, earns_ucr: float | None) -> Iterator[Reason]:
        self._again(self._now.ms + self._wants.tariff.changes_in_ms(self._now.of_day_ms))
        self._ask(Signal.PLUGGED), self._ask(Signal.ON_BATTERY)  # when these change, it is looked at again
        battery = on_battery(self._board, self._now.ms)
        watts = min(self.budget_w, self._rules.draw.full_w)
        duty = self._rules.draw.duty(self.budget_w)
        value = worth(
            self._wants,
            watts,
            (earns_ucr or 0.0) * duty,
            self._now.of_day_ms,
            on_battery=battery,
            now_ucr=self._asked.kwh_ucr,
        )
        self.hour_ucr = (value.energy_ucr + value.wear_ucr + value.wanted_ucr) / max(duty, DUTY_MIN)
        if earns_ucr is not None and not value.enough:
            yield Reason("worth", f"it is not worth it now: {value}")

    def _flag(self, signal: Signal, why: str, *, forbidden: bool = True, demanded: bool = False) -> Iterator[Reason]:
        """A reason if any source has it so, or does not know. Without any source: only if it is demanded to be known."""
        said = self._ask(signal)
        if any(bool(value) is forbidden for value in said.values):
            yield Reason(signal.value, why)
        elif demanded or self._expected(signal):
            yield from self._unknown(signal, said, always=demanded)

    def _bound(
        self, signal: Signal, limit: float, margin: float, word: str, why: Callable[[float, float], str], *,
        upper: bool = False, always: bool = False,
    ) -> Iterator[Reason]:  # fmt: skip
        """A reason if the worst source is beyond the limit, or does not know. A limit of 0 is none."""
        if limit <= 0:
            return
        said = self._ask(signal)
        if said.values and not said.why:
            worst = max(said.values) if upper else min(said.values)
            eased = margin if signal.value in self._memory.blocked else 0.0
            wanted = limit - eased if upper else min(limit + eased, KINDS[signal].most)
            if worst > wanted if upper else worst < wanted:
                yield Reason(signal.value, why(float(worst), wanted))
        else:
            yield from self._unknown(signal, said, always=always or word in self._wants.said)

    def _unknown(self, signal: Signal, said: Known, *, always: bool = False) -> Iterator[Reason]:
        if said.why and (always or self._expected(signal)):
            yield Reason(signal.value, f"its {KINDS[signal].name} is not known: {said.why}", unknown=True)

    def _ask(self, signal: Signal) -> Known:
        said = self._board.known(signal, self._now.ms)
        self._again(said.until_ms)
        return said

    def _expected(self, signal: Signal) -> bool:
        return any(signal in given for given in self._board.expects.values())

    def _cap(self, watts: float, whose: str) -> None:
        if watts < self.budget_w:
            self.budget_w = watts
            self.limits.append(whose)

    def _again(self, at_ms: float) -> None:
        if at_ms > self._now.ms:
            self.until_ms = min(self.until_ms, at_ms)


def on_battery(board: Board, now_ms: int) -> bool:
    """Whether its energy comes from its battery, as far as any sensor tells."""
    plugged, runs = (board.known(signal, now_ms).values for signal in (Signal.PLUGGED, Signal.ON_BATTERY))
    return any(runs) or (bool(plugged) and not all(plugged))


def _hot(signal: Signal, found: float, most: float) -> str:
    return f"its {KINDS[signal].name} is {found:.0f} °C, above {most:.0f} °C"
