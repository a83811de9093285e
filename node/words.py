"""What a node says to its owner: what it does now and why, what comes next, its budget, how warm it is."""

from __future__ import annotations

from math import inf

from ..protocol.profiles import State
from .availability import Availability
from .lending import Lending
from .rules.hours import HOUR_MS, clock, span
from .rules.signals import KINDS, Signal, Value

TEMPERATURES = (Signal.BATTERY_C, Signal.CABIN_C, Signal.MACHINE_C, Signal.ACCELERATOR_C)


def now_in_words(availability: Availability) -> str:
    """One sentence: whether it serves, and why it does or does not."""
    why = "; ".join(availability.reasons)
    match availability.state:
        case State.READY if availability.jobs:
            return f"It is lent, and works on {availability.jobs} of at most {availability.jobs_max} jobs."
        case State.READY:
            return "It is lent, and waits for orders."
        case State.BUSY:
            return f"It is lent, and every place is taken: {availability.jobs} jobs run."
        case State.YIELDING:
            return f"It is being given back: {why}."
        case _ if availability.lends:
            return f"It is lent, and cannot serve yet: {why}."
        case _:
            return f"It is not lent: {why}."


def next_in_words(lending: Lending) -> str:
    """One sentence: what time alone will change, soonest; what a reading or the owner changes comes when it comes."""
    decision, now, wants = lending.decision, lending.now(), lending.rules.preferences
    codes = {reason.code for reason in decision.reasons}
    if "opted-out" in codes:
        return "It is lent again after `fallow node opt-in`."
    if "driving" in codes:
        return "It may be lent again after `fallow node park`."
    if "paused" in codes:
        return f"The pause ends in {span((lending.wish.paused_until_ms - now.ms) / 1000)}."
    if codes == {"settling"}:
        left_ms = decision.memory.clear_since_ms + lending.rules.settle_ms - now.ms
        return f"It is lent in {span(left_ms / 1000)}, if nothing comes up until then."
    for code, window in (("hours", wants.hours), ("net-hours", wants.net_hours)):
        if code in codes:
            return f"Its hours begin at {clock(window.start_hour)}."
    if codes:
        return "It is lent again when the last of these reasons is gone" + (
            f", for {span(lending.rules.settle_ms / 1000)}." if lending.rules.settle_ms else "."
        )
    comes = [
        (stays_ms, f"It is likely to be needed in about {span(stays_ms / 1000)}.")
        for stays_ms in (lending.stays_ms(),)
        if stays_ms < inf
    ]
    for window in (wants.hours, wants.net_hours):
        if not window.whole:
            comes.append((window.changes_in_ms(now.of_day_ms), f"Its hours end at {clock(window.end_hour)}."))
    if (changes_ms := wants.tariff.changes_in_ms(now.of_day_ms)) < inf:
        comes.append((changes_ms, f"The price of energy changes in {span(changes_ms / 1000)}."))
    return min(comes)[1] if comes else "Nothing by the clock: it is lent until a reading, or you, say otherwise."


def budget_in_words(lending: Lending) -> str:
    """What its work may draw, and by whose word."""
    decision = lending.decision
    return "no bound" if decision.budget_w == inf else f"{decision.budget_w:.0f} W ({decision.limits[-1]})"


def temperature_in_words(lending: Lending) -> list[str]:
    """Every temperature that is known, and of those that should be and are not, why."""
    board, now_ms = lending.board, lending.now().ms
    found = []
    for signal in TEMPERATURES:
        for source, given in board.expects.items():
            if signal in given:
                told = board.told(source, signal, now_ms)
                value = told.why or f"{told.values[0]:.0f} {KINDS[signal].unit}"
                found.append(f"{KINDS[signal].name.removesuffix(' temperature')}: {value}")
    return found or ["no sensor gives one"]


def said(lending: Lending) -> dict[str, str | int | list[str]]:
    """What is known of the machine, and what follows."""
    decision, board, now_ms = lending.decision, lending.board, lending.now().ms
    known = [
        f"{KINDS[signal].name}: {value_in_words(reading.value, KINDS[signal].unit)} "
        f"({source}, {(now_ms - reading.at_ms) / 1000:.0f} s ago)"
        for (source, signal), reading in sorted(board.readings.items())
        if (source, signal) not in board.faults
    ]
    left_ms = decision.look_ms - now_ms
    stays_ms = lending.stays_ms()
    return {
        "budget": budget_in_words(lending),
        "next_look": "with the next reading"
        if left_ms == inf
        else f"in {max(0.0, left_ms) / 1000:.0f} s, or with the next reading",
        "needed_again": "not known" if stays_ms == inf else f"in about {stays_ms / HOUR_MS:.1f} h",
        "sensors": [f"{source}: {health}" for source, health in board.health(now_ms).items()] or ["none"],
        "known": known or ["nothing"],
        "grid": [line for hear in lending.heard for line in hear(lending.now())] or ["nobody is heeded"],
    }


def value_in_words(value: Value, unit: str) -> str:
    """With its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return span(value) if unit == "s" else f"{round(value, 1):.12g} {unit}".rstrip()
