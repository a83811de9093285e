"""An owner's price list from what the work costs: measured seconds, energy, wear and a margin. Pure.

    per unit = seconds per unit * (watts * price of a kilowatt-hour + wear per hour) * (1 + margin), rounded up

Seconds are those that the worker has measured on this machine for one job alone; side by side, several cost less each.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.bundle import CALL, GENERATE, SCORE
from .engine.messages import Rates

_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class EntryPrice:
    """What one entry costs on this node, in micro-credits."""

    call_ucr: int = 0
    input_token_ucr: int = 0
    output_token_ucr: int = 0
    checked_token_ucr: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """What an hour of work costs the owner."""

    watts: int
    """What the machine draws more while it works than while it waits."""
    kwh_ucr: int
    """What a kilowatt-hour costs, in micro-credits."""
    wear_h_ucr: int = 0
    """What an hour of work wears off the machine or its battery."""
    margin_ppm: int = 0
    """Above the costs."""

    @property
    def hour_ucr(self) -> int:
        """Rounded up."""
        return -(-self.watts * self.kwh_ucr // 1000) + self.wear_h_ucr


def entry_price(entry: str, rates: Rates, costs: Costs) -> EntryPrice:
    """What the entry has to cost. What was not measured has no price of its own: its units are in another one's."""
    match entry:
        case _ if entry == GENERATE:
            reading, writing = _unit_ucr(rates.prefill_milli, costs), _unit_ucr(rates.decode_milli, costs)
            return EntryPrice(input_token_ucr=reading, output_token_ucr=writing)
        case _ if entry == SCORE:
            each = _unit_ucr(rates.score_milli or rates.prefill_milli, costs)
            return EntryPrice(input_token_ucr=each, checked_token_ucr=each)
        case _ if entry == CALL:
            return EntryPrice(call_ucr=_unit_ucr(rates.call_milli, costs))
        case _:
            return EntryPrice()


def _unit_ucr(per_s_milli: int, costs: Costs) -> int:
    """Of one unit, at so many thousandths of them a second."""
    if not per_s_milli:
        return 0
    return -(-1000 * costs.hour_ucr * (_PPM + costs.margin_ppm) // (per_s_milli * 3600 * _PPM))
