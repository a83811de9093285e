"""How far a node lends its work: to all strangers together a little of each day, to each payer as much as it has settled.

Keys are free, so a bound for each stranger bounds nothing: only one for all of them together does. What a payer has really
paid, on whatever rail, is its history, and so much it may owe beyond that. Nothing here knows how it was paid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..protocol.errors import Code, Refused
from ..protocol.limits import WINDOW_TOKENS
from ..protocol.prices import Price
from ..protocol.profiles import ServedBundle

DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
"""What strangers were lent is counted by the hour in which it was claimed."""
STRANGERS_PPM = 20_000
"""Of a day's capacity, what strangers may take on credit in a day: what a node can lose to keys that cost nothing."""
GROWTH = 1
"""A payer may owe so many times what it has settled. At 1, whoever disappears with all its credit has paid for half of what it
ever got."""


UNANSWERED_WINDOWS_MAX = 16
"""What a payer may leave without a voucher: some crashes' worth, at two windows each, and jobs side by side."""
UNANSWERED_PPM = 100_000
"""Or so much of what it has promised, if that is more: a customer of years may have had more crashes."""


def windows_ucr(prices: Iterable[Price]) -> int:
    """What `UNANSWERED_WINDOWS_MAX` windows of the dearest entry come to."""
    dearest = 0
    for price in prices:
        token_ucr = max(price.input_token_ucr, price.output_token_ucr, price.checked_token_ucr)
        dearest = max(dearest, price.call_ucr + WINDOW_TOKENS * token_ucr)
    return UNANSWERED_WINDOWS_MAX * dearest


def day_ucr(served: Iterable[ServedBundle], prices: Iterable[Price]) -> int:
    """What a node earns in a day of its dearest work, one job at a time: more than it can be kept busy with by anybody."""
    rates = {bundle.bundle: bundle for bundle in served}
    best_milli = 0
    for price in prices:
        if (rate := rates.get(price.bundle)) is not None:
            best_milli = max(
                best_milli,
                rate.input_tokens_per_s_milli * max(price.input_token_ucr, price.checked_token_ucr),
                rate.output_tokens_per_s_milli * price.output_token_ucr,
                rate.calls_per_s_milli * price.call_ucr,
            )
    return best_milli * (DAY_MS // 1000) // 1000


@dataclass(slots=True)
class Debtor:
    """One payer, as a node's books have it, over all its channels."""

    owed_ucr: int = 0
    """Of all receipts, less what was forfeited; whether vouchers promise it or not."""
    promised_ucr: int = 0
    """By its vouchers, whether it is due or held."""
    settled_ucr: int = 0
    """What it has paid; more than is owed is paid ahead."""
    reserved_ucr: int = 0
    """What the jobs that now run may come to."""
    by_hour: dict[int, int] = field(default_factory=dict)
    """Of what is owed, what was claimed in an hour since 1970. Hours of more than a day ago do not count."""

    def beyond_ucr(self, secured_ucr: int = 0) -> int:
        """What it owes or may come to owe beyond what it has settled, what that makes it worth, and what it has deposited."""
        return self.owed_ucr + self.reserved_ucr - (1 + GROWTH) * self.settled_ucr - secured_ucr

    def unproven_ucr(self, now_ms: int, secured_ucr: int = 0) -> int:
        """What it was lent within a day beyond its history."""
        first = (now_ms - DAY_MS) // HOUR_MS + 1
        self.by_hour = {hour: ucr for hour, ucr in self.by_hour.items() if hour >= first}
        return max(0, min(self.beyond_ucr(secured_ucr), sum(self.by_hour.values()) + self.reserved_ucr))


@dataclass(slots=True)
class Credit:
    """What one node has lent to whom. Times are the node's wall clock."""

    debtors: dict[bytes, Debtor] = field(default_factory=dict)
    friends: frozenset[bytes] = frozenset()
    """Payers whom the owner vouches for: their channels' limits alone bind them."""
    secured: Mapping[bytes, int] = field(default_factory=dict)
    """What payers have deposited, by payer: the node takes it if they do not pay, so so much more they may owe."""
    _unproven: dict[bytes, int] = field(default_factory=dict)
    _total_ucr: int = 0
    _hour: int = -1

    def debtor(self, payer: bytes) -> Debtor:
        """The payer's line in the books."""
        return self.debtors.setdefault(payer, Debtor())

    def answers(self, payer: bytes, allowed_ucr: int) -> None:
        """Raises `Refused(unpaid)` if the payer has left receipts without vouchers, for more than is allowed anybody."""
        debtor = self.debtor(payer)
        allowed_ucr = max(allowed_ucr, debtor.promised_ucr * UNANSWERED_PPM // 1_000_000)
        unanswered_ucr = debtor.owed_ucr - max(debtor.promised_ucr, debtor.settled_ucr)
        if unanswered_ucr > allowed_ucr:
            message = f"Receipts for {unanswered_ucr} ucr have no voucher, and {allowed_ucr} may have none."
            raise Refused(Code.UNPAID, message)

    def lend(self, payer: bytes, ucr: int, strangers_ucr: int, now_ms: int) -> None:
        """So much is reserved for a job of the payer's. Raises `Refused(prepay)` if all strangers together, of whom it may be
        one, would come to more than `strangers_ucr`."""
        debtor = self.debtor(payer)
        self._count_anew(now_ms)
        debtor.reserved_ucr += ucr
        before_ucr, unproven_ucr = self._unproven.get(payer, 0), self._unproven_of(payer, now_ms)
        room_ucr = max(0, strangers_ucr - (self._total_ucr - before_ucr))
        if payer not in self.friends and unproven_ucr > max(room_ucr, before_ucr):
            missing_ucr = -(-(debtor.beyond_ucr(self.secured.get(payer, 0)) - room_ucr) // (1 + GROWTH))
            debtor.reserved_ucr -= ucr
            raise Refused(
                Code.PREPAY,
                f"The node lends strangers no more today: settle {missing_ucr} ucr, or deposit twice as much, and it runs.",
            )
        self._note(payer, unproven_ucr)

    def release(self, payer: bytes, ucr: int, now_ms: int) -> None:
        """The job is over: what it came to was claimed."""
        self.debtor(payer).reserved_ucr -= ucr
        self._note(payer, self._unproven_of(payer, now_ms))

    def claimed(self, payer: bytes, ucr: int, now_ms: int) -> None:
        """A receipt adds so much to what is owed. What is forfeited comes as less than nothing."""
        debtor = self.debtor(payer)
        debtor.owed_ucr += ucr
        if ucr > 0:
            hour = now_ms // HOUR_MS
            debtor.by_hour[hour] = debtor.by_hour.get(hour, 0) + ucr
        self._note(payer, self._unproven_of(payer, now_ms))

    def promised(self, payer: bytes, ucr: int) -> None:
        """Vouchers promise so much more, or less: by what was forfeited."""
        self.debtor(payer).promised_ucr += ucr

    def settled(self, payer: bytes, total_ucr: int, now_ms: int) -> None:
        """The payer has paid so much in all."""
        debtor = self.debtor(payer)
        debtor.settled_ucr = total_ucr
        self._note(payer, self._unproven_of(payer, now_ms))

    def secure(self, secured: Mapping[bytes, int], now_ms: int) -> None:
        """So much, and no more, is deposited by each."""
        self.secured = dict(secured)
        for payer in list(self._unproven.keys() | (self.secured.keys() & self.debtors.keys())):
            self._note(payer, self._unproven_of(payer, now_ms))

    def forget_all_but(self, payers: Collection[bytes]) -> None:
        """Of others, only whose debts count against the strangers' bound are kept at hand."""
        for payer in [payer for payer in self.debtors if payer not in payers and payer not in self._unproven]:
            del self.debtors[payer]

    @property
    def strangers_ucr(self) -> int:
        """What all strangers together were lent within a day, as last counted."""
        return self._total_ucr

    def _unproven_of(self, payer: bytes, now_ms: int) -> int:
        return self.debtor(payer).unproven_ucr(now_ms, self.secured.get(payer, 0))

    def _note(self, payer: bytes, unproven_ucr: int) -> None:
        if payer in self.friends:
            unproven_ucr = 0
        self._total_ucr += unproven_ucr - self._unproven.pop(payer, 0)
        if unproven_ucr:
            self._unproven[payer] = unproven_ucr

    def _count_anew(self, now_ms: int) -> None:
        """Once an hour: what was lent a day ago does not count any more."""
        if now_ms // HOUR_MS != self._hour:
            self._hour = now_ms // HOUR_MS
            for payer in list(self._unproven):
                self._note(payer, self._unproven_of(payer, now_ms))


def credit_of(rows: Mapping[bytes, Debtor], friends: Iterable[bytes], now_ms: int) -> Credit:
    """The books as the disk has them."""
    credit = Credit(dict(rows), frozenset(friends))
    for payer, debtor in rows.items():
        credit._note(payer, debtor.unproven_ucr(now_ms))
    return credit
