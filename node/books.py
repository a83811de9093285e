"""What a node earned in a period, and what came in for it: every micro-credit in one line, with its receipt or decision.

By the receipt's date, as the vouchers of today have it. So the months of a year together are the year, and all that ever was
is all months together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

from ..protocol.errors import Code, ConfigError
from .earnings import Earning, earnings
from .log import wall_ms
from .paid import Fee, Payment, fees, payments
from .power.usage import UsedBy, used_between


@dataclass(frozen=True, slots=True)
class Period:
    """A month or a year of UTC."""

    name: str
    """`2026-11` or `2026`."""
    begins_ms: int
    ends_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether it is in the period."""
        return self.begins_ms <= at_ms < self.ends_ms


def period_of(text: str) -> Period:
    """Raises `ConfigError(bad_config)` for what is neither `YYYY-MM` nor `YYYY`."""
    year, _, month = text.partition("-")
    whole = month == "" and "-" not in text
    digits = (
        len(year) == 4 and year.isascii() and year.isdecimal() and (whole or (month.isascii() and month.isdecimal()))
    )
    if not digits or not 1970 <= int(year) < 9999 or not (whole or (len(month) == 2 and 1 <= int(month) <= 12)):
        raise ConfigError(Code.BAD_CONFIG, f"{text[:80]!r} is no period: say a month as 2026-11, or a year as 2026.")
    first = 1 if whole else int(month)
    after = (int(year) + 1, 1) if whole or first == 12 else (int(year), first + 1)
    begins, ends = datetime(int(year), first, 1, tzinfo=UTC), datetime(*after, 1, tzinfo=UTC)
    return Period(text, int(begins.timestamp()) * 1000, int(ends.timestamp()) * 1000)


@dataclass(frozen=True, slots=True)
class Credit:
    """One receipt. `owed = due + held + forfeited + unpaid`."""

    row: Earning
    released_ucr: int
    """Of what is due, what was still held when the period ended."""

    @property
    def due_ucr(self) -> int:
        return self.row.paid_ucr - self.row.held_ucr

    @property
    def unpaid_ucr(self) -> int:
        """No voucher covers it."""
        return self.row.owed_ucr - self.row.paid_ucr - self.row.forfeited_ucr


@dataclass(frozen=True, slots=True)
class Totals:
    """Micro-credits of a statement. `net = due - fee - energy`: what is held is not earned yet."""

    owed_ucr: int
    due_ucr: int
    held_ucr: int
    released_ucr: int
    forfeited_ucr: int
    unpaid_ucr: int
    settled_ucr: int
    fee_ucr: int
    """What rails kept, and what is owed to others for disputes, less what others owe for them."""
    energy_ucr: int | None
    """None: not known."""
    net_ucr: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One node's period."""

    period: Period
    credits: tuple[Credit, ...]
    payments: tuple[Payment, ...]
    energy_ucr: int | None
    """The owner's word, or what the jobs' energy came to."""
    used: tuple[UsedBy, ...] = ()
    """What the jobs used, by what counted or estimated it."""
    fees: tuple[Fee, ...] = ()
    """Of disputes that were told of in the period."""

    @property
    def totals(self) -> Totals:
        return totals_of(self.credits, self.payments, self.fees, self.energy_ucr)

    def payers(self) -> dict[bytes, Totals]:
        """Of each payer that owed or paid something, or is owed a fee, the largest first. Energy is nobody's."""
        keys = {credit.row.payer for credit in self.credits} | {payment.payer for payment in self.payments}
        keys |= {fee.party for fee in self.fees}
        each = {
            key: totals_of(
                _of(key, self.credits),
                [payment for payment in self.payments if payment.payer == key],
                [fee for fee in self.fees if fee.party == key],
                None,
            )
            for key in keys
        }
        return dict(sorted(each.items(), key=lambda item: (-item[1].due_ucr, item[0])))


def statement(state: Path, period: Period, energy_ucr: int | None = None, now_ms: int | None = None) -> Statement:
    """What the journal of the state directory has of the period. Reads only, also while the node runs. Without `energy_ucr` the
    jobs' energy counts as the node kept it."""
    now_ms = wall_ms() if now_ms is None else now_ms
    end_ms = min(now_ms, period.ends_ms)
    then = {row.receipt: row.held_ucr for row in earnings(state, end_ms, known_ms=end_ms)}
    credits = tuple(
        Credit(row, max(0, then[row.receipt] - row.held_ucr) if row.receipt in then else 0)
        for row in earnings(state, now_ms)
        if period.holds(row.issued_ms)
    )
    taken = tuple(payment for payment in payments(state) if period.holds(payment.taken_ms))
    said = tuple(fee for fee in fees(state) if fee.ucr and period.holds(fee.told_ms))
    used = used_between(state, period.begins_ms, period.ends_ms)
    if energy_ucr is None and used:
        energy_ucr = ceil(sum(each.ucr for each in used))
    return Statement(period, credits, taken, energy_ucr, used, said)


def totals_of(
    credits: Sequence[Credit], payments: Sequence[Payment], fees: Sequence[Fee], energy_ucr: int | None
) -> Totals:
    """The sums."""
    due_ucr = sum(credit.due_ucr for credit in credits)
    fee_ucr = sum(payment.fee_ucr for payment in payments) - sum(fee.ucr for fee in fees)
    return Totals(
        owed_ucr=sum(credit.row.owed_ucr for credit in credits),
        due_ucr=due_ucr,
        held_ucr=sum(credit.row.held_ucr for credit in credits),
        released_ucr=sum(credit.released_ucr for credit in credits),
        forfeited_ucr=sum(credit.row.forfeited_ucr for credit in credits),
        unpaid_ucr=sum(credit.unpaid_ucr for credit in credits),
        settled_ucr=sum(payment.ucr for payment in payments),
        fee_ucr=fee_ucr,
        energy_ucr=energy_ucr,
        net_ucr=due_ucr - fee_ucr - (energy_ucr or 0),
    )


def as_map(totals: Totals) -> dict[str, int | None]:
    """By field."""
    return {each.name: getattr(totals, each.name) for each in fields(totals)}


def _of(payer: bytes, credits: Iterable[Credit]) -> list[Credit]:
    return [credit for credit in credits if credit.row.payer == payer]
