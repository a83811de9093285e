"""How often a node's work is looked at, from its own checked history, and when that makes honesty pay. Pure.

Consecutive valid *checked* results are counted per (node, bundle, precision), as BOINC's adaptive replication does. A node
that turns bad after `valid` of them lands about `valid - 1` wrong results under a rate of 1 / valid alone: so there is a
floor, and the rate never falls below what the pay held back makes deterrent. Work that was not checked counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..protocol.limits import WINDOW_TOKENS

MILLION: Final = 1_000_000
NEWCOMER: Final = 10
"""Valid checked results before any is taken unchecked: BOINC's figure."""
FLOOR_PPM: Final = 20_000
"""Of a million windows, so many are checked however good the record: one in fifty, so that a node that turns bad is found
within some seven answers of 200 tokens, at half the expected cost in time that a record of 20 would ask for."""
UNWRITTEN_MAX: Final = 4 * WINDOW_TOKENS
"""Of the tokens that a text which ended by itself leaves unwritten, so many weigh in the draw of its end: most honest texts end
early, by however much their readers allowed, and each that is looked at for nothing costs a check of the whole text."""
COLLUDING_PPM: Final = 200_000
"""Share of owners assumed to be of one mind with the executor: one in five."""


def audit_ppm(
    valid: int,
    price_ucr: int,
    held_ucr: int,
    floor_ppm: int = FLOOR_PPM,
    colluding_ppm: int = COLLUDING_PPM,
    *,
    unwritten: int = 0,
    token_ucr: int = 0,
) -> int:
    """Of a million results like this one, so many are checked: `min(1, max((1 + w) max(floor, 1/CV), price / (H(1-r))))`.

    `valid` are the node's consecutive valid checked results (CV), `price_ucr` what this one adds to its pay, and `held_ucr`
    what a proven fault would forfeit (H). A newcomer's results are always checked, and anybody's who has nothing to lose.

    A text that ends by itself, with `unwritten` tokens fewer than were ordered, at `token_ucr` each, may have been cut short:
    its last window, however small, is drawn as if those were in it. w is their number in windows, and they add to the price.
    """
    if valid < NEWCOMER:
        return MILLION
    cut = min(unwritten, UNWRITTEN_MAX)
    often = _up(max(floor_ppm, _up(MILLION, valid)) * (WINDOW_TOKENS + cut), WINDOW_TOKENS)
    at_stake = held_ucr * (MILLION - colluding_ppm)
    needed = MILLION if at_stake <= 0 else _up((price_ucr + cut * token_ucr) * MILLION * MILLION, at_stake)
    return min(MILLION, max(often, needed))


def spot_ppm(valid: int, floor_ppm: int = FLOOR_PPM) -> int:
    """Of a million checks by a checker with so many that were borne out, so many are given a tampered transcript beside.

    A quarter of a newcomer's, falling as its record grows.
    """
    return max(floor_ppm, _up(MILLION, max(valid, 4)))


def jobs_until_found(chance_ppm: int, of: float = 0.0) -> float:
    """Jobs until somebody who is found out in each with this chance has been: on average or, with `of`, in that share of
    all histories. Infinite for no chance."""
    chance = chance_ppm / MILLION
    if chance <= 0:
        return float("inf")
    if not of:
        return 1 / chance
    jobs, hidden = 0, 1.0
    while hidden > 1 - of and chance < 1:
        jobs, hidden = jobs + 1, hidden * (1 - chance)
    return float(max(jobs, 1))


@dataclass(frozen=True, slots=True)
class Deterrence:
    """What a wrong result brings its executor, and costs it, on average, for a share of owners who collude with it."""

    checked: float
    """The chance that the result is checked (p)."""
    colluding: float
    """The share of owners, checkers among them, who confirm whatever this executor says (r)."""
    price_ucr: int
    """What the result would be paid."""
    saved_ucr: int
    """What it saves the executor not to compute it; at most its price, where prices follow costs."""
    held_ucr: int
    """What a proven fault forfeits beside (H)."""

    @property
    def convicted(self) -> float:
        """The chance that a wrong result which is checked is refuted: the first checker objects, and of the two drawn then
        at least one does, too. Three distinct owners."""
        return (1 - self.colluding) * (1 - self.colluding**2)

    @property
    def accepted(self) -> float:
        """The chance that the wrong result is accepted."""
        return 1 - self.checked * self.convicted

    @property
    def gain_ucr(self) -> float:
        """What is saved where it is accepted."""
        return self.saved_ucr * self.accepted

    @property
    def loss_ucr(self) -> float:
        """What is held is forfeited, and the result, though it cost nearly nothing to make, is not paid either."""
        return self.checked * self.convicted * (self.held_ucr + self.price_ucr - self.saved_ucr)

    @property
    def honest_pays(self) -> bool:
        """Whether cheating costs more than it brings."""
        return self.loss_ucr >= self.gain_ucr

    @property
    def until_caught(self) -> float:
        """Wrong results until one is refuted, on average."""
        chance = self.checked * self.convicted
        return 1 / chance if chance else float("inf")


def held_needed_ucr(checked: float, colluding: float, price_ucr: int, saved_ucr: int) -> float:
    """What must be at stake so that honesty pays: the least H for which `Deterrence.honest_pays`. Infinite if nothing helps."""
    chance = checked * (1 - colluding) * (1 - colluding**2)
    return max(0.0, saved_ucr / chance - price_ucr) if chance > 0 else float("inf")


def _up(above: int, below: int) -> int:
    return -(-above // below)
