"""The same days under other preferences: moments as they were recorded go through the policy again.

What is replayed is what was known of the machine. What the mesh would have asked of it meanwhile nobody knows: hours are what
comes out of this, and what an hour is worth is somebody else's assumption.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import Final

from .asked import NOTHING, Asked
from .hours import Now
from .policy import Decision, Memory, Rules, Wish, decide
from .readings import Board, Bound, Fault, Reading
from .signals import Signal, Value
from .worth import Draw

STEPS_MAX: Final = 64
"""Decisions between two moments: the clock, a tariff and the wait change a handful of things in a quarter of an hour."""
STEP_MS: Final = 1000
"""At least from one to the next."""
HOLDS_MS_MAX: Final = 10 * 60_000
"""A node that runs writes a moment at least every five minutes: from twice that on, nobody knows what held after the last."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What was known at one time: all that the decision then came from, but the preferences."""

    now: Now
    run: int
    """Of the node, from its start to its end: no time passes between the last moment of one and the first of the next."""
    known: tuple[tuple[str, Signal, Value | str], ...] = ()
    """(source, signal, its value), or in a text why it was not known."""
    wish: Wish = field(default_factory=Wish)
    earns_ucr: float | None = None
    draw: Draw = field(default_factory=lambda: Draw(0.0, 0.0))
    unmetered_only: bool = False
    asked: Asked = NOTHING
    """What the grid asked."""
    bounds: tuple[tuple[str, Bound], ...] = ()
    """What the node itself had found that it might draw, by code."""
    unread: tuple[tuple[str, str], ...] = ()
    """Sources of which it was not known what they give, each with why."""

    @property
    def board(self) -> Board:
        """As if it had been read at this moment, and held until the next."""
        board = Board()
        expects: dict[str, set[Signal]] = {}
        for source, signal, told in self.known:
            expects.setdefault(source, set()).add(signal)
            if isinstance(told, str):
                board.faults[source, signal] = Fault(told, self.now.ms)
            else:
                board.readings[source, signal] = Reading(signal, told, self.now.ms, 2**62)
        for code, bound in self.bounds:
            board.bounds[code] = replace(bound, until_ms=inf) if bound.until_ms > self.now.ms else bound
        board.expects = {source: frozenset(signals) for source, signals in expects.items()}
        for source, why in self.unread:
            board.expects[source] = frozenset()
            board.lose(source, why, self.now.ms)
        return board


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time through which one decision holds."""

    wall_ms: int
    """When it begins."""
    offset_ms: int
    ms: int
    """How long it is."""
    codes: frozenset[str]
    """Of the reasons against lending; none: it is lent."""

    @property
    def lends(self) -> bool:
        return not self.codes


def seen(board: Board, now_ms: int) -> tuple[tuple[str, Signal, Value | str], ...]:
    """What a moment has to keep of the board."""
    found: list[tuple[str, Signal, Value | str]] = []
    for source, signals in sorted(board.expects.items()):
        for signal in sorted(signals):
            told = board.told(source, signal, now_ms)
            found.append((source, signal, told.why or told.values[0]))
    return tuple(found)


def replay(rules: Rules, moments: Sequence[Moment], until: Now | None = None) -> Iterator[Stretch]:
    """What the rules would have made of the moments, from each to the next of the same run; of the last to
    `until`, but for no longer than it can be taken to have held."""
    memory, run = Memory(), None
    for moment, next_ in pairwise([*moments, None]):
        assert moment is not None
        if moment.run != run:
            memory, run = Memory() if rules.sensed else Memory(clear_since_ms=-inf), moment.run
        if next_ is not None:
            end_ms = next_.now.ms if next_.run == run else moment.now.ms
        else:
            end_ms = min(until.ms, moment.now.ms + HOLDS_MS_MAX) if until else moment.now.ms
        here = Rules(
            rules.kind, rules.preferences, rules.settle_ms, moment.draw, moment.unmetered_only or rules.unmetered_only,
            rules.sensed,
        )  # fmt: skip
        for stretch, decision in _between(here, moment, memory, end_ms):
            memory = decision.memory
            if stretch.ms:
                yield stretch


def _between(rules: Rules, moment: Moment, memory: Memory, end_ms: int) -> Iterator[tuple[Stretch, Decision]]:
    board, at, asked = moment.board, moment.now, replace(moment.asked, changes_in_ms=inf)
    for step in range(STEPS_MAX):
        decision = decide(rules, board, moment.wish, memory, at, moment.earns_ucr, asked)
        memory = decision.memory
        look_ms = max(at.ms + STEP_MS, min(decision.look_ms, end_ms))
        ends_ms = end_ms if step == STEPS_MAX - 1 else int(min(look_ms, end_ms))
        codes = frozenset(reason.code for reason in decision.reasons)
        yield Stretch(at.wall_ms, at.offset_ms, max(0, ends_ms - at.ms), codes), decision
        if ends_ms >= end_ms:
            return
        at = Now(ends_ms, at.wall_ms + ends_ms - at.ms, at.offset_ms)


def lent_ms(stretches: Iterable[Stretch]) -> int:
    """Of all of it."""
    return sum(stretch.ms for stretch in stretches if stretch.lends)
