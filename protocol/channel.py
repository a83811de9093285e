"""A payment channel between one payer process and one node, the same table for both sides, with time as an argument.

    payer                                         payee
      |-- voucher (answers a receipt) ------------->|     each replaces those before it, whichever arrives first
      |-- forfeit (a verdict, or evidence) -------->|     before the release of what it forfeits
      |-- voucher (the forfeit taken off) --------->|
      |-- close ------ or expiry ------- or close --|     each side brings the latest voucher that it has
      |-- contest --------------------------------->|     a later one; also for jobs that were under way
      |<------------------------------- contest ----|
      |              (grace and release over: closed)

Clocks differ by up to `SKEW_MS`, so each side counts against itself: what it may still do ends on time, what the other
may still do ends `SKEW_MS` later. Whether a verdict or a piece of evidence holds is judged above; here it is only known
how much it forfeits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from .claims import Claim, Claims
from .envelope import Signed
from .errors import Code, LocalProtocolError, ProtocolError, RemoteProtocolError
from .holding import Parts, less, release_of, total_ucr, unreleased, with_more
from .limits import GROUNDS_MAX, HOLD_MS_MAX, SKEW_MS
from .payment import Channel, Voucher, follows


class Phase(StrEnum):
    """Where a channel is."""

    OPEN = "open"
    """Orders are taken; receipts are answered by vouchers."""
    CLOSING = "closing"
    """No new order is taken. What was signed is presented, jobs under way are paid for, what is held waits for its release."""
    CLOSED = "closed"
    """Nothing changes any more: the latest voucher is the balance."""


class Party(StrEnum):
    """Who makes a move."""

    PAYER = "payer"
    PAYEE = "payee"
    CLOCK = "clock"


class Event(StrEnum):
    """What happens on a channel."""

    VOUCHER = "voucher"
    FORFEIT = "forfeit"
    """The payee is told of the ground on which something held is not owed any more."""
    CLOSE = "close"
    CONTEST = "contest"
    """A voucher later than those that were presented."""
    EXPIRE = "expire"


_O, _G, _D = Phase.OPEN, Phase.CLOSING, Phase.CLOSED
_P, _E = Party, Event

TABLE: dict[tuple[Phase, Party, Event], Phase] = {
    (_O, _P.PAYER, _E.VOUCHER): _O,
    (_O, _P.PAYER, _E.FORFEIT): _O,
    (_O, _P.PAYER, _E.CLOSE): _G,
    (_O, _P.PAYEE, _E.CLOSE): _G,
    (_O, _P.CLOCK, _E.EXPIRE): _G,
    #
    (_G, _P.PAYER, _E.CONTEST): _G,
    (_G, _P.PAYEE, _E.CONTEST): _G,
    (_G, _P.PAYER, _E.FORFEIT): _G,
    (_G, _P.PAYER, _E.CLOSE): _G,
    (_G, _P.PAYEE, _E.CLOSE): _G,
    (_G, _P.CLOCK, _E.EXPIRE): _D,
}
"""(phase, party, event) -> next phase. Both sides may close at once; the grace runs from the first. All else is illegal."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a forfeit rests on: a committee's verdict or decision, or self-proving evidence against the payee."""

    kind: Literal["verdict", "decision", "evidence"]
    id: bytes
    """Id of the record."""


def forfeited_of(voucher: Voucher, grounds_ucr: int) -> int:
    """Of what the voucher promises, what is not owed any more: as it says itself, or by grounds that it does not know of."""
    return min(max(voucher.forfeited_ucr, grounds_ucr), voucher.forfeited_ucr + voucher.held_ucr)


def held_of(voucher: Voucher, grounds_ucr: int, now_ms: int) -> Parts:
    """Of what the voucher promises, what has been neither forfeited nor released."""
    taken_ucr = forfeited_of(voucher, grounds_ucr) - voucher.forfeited_ucr
    return unreleased(less(voucher.held, taken_ucr), now_ms)


@dataclass(slots=True)
class ChannelState:
    """One side's view of a channel. The payer's grows by `pay`, the payee's by `receive`; `forfeit` is told to both."""

    party: Party
    channel: Signed[Channel]
    latest: Signed[Voucher] | None = None
    named: Claims = field(default_factory=Claims)
    """Of the receipts that vouchers name."""
    grounds: dict[Ground, int] = field(default_factory=dict)
    """The grounds that this side knows of, and the micro-credits that each forfeits."""
    phase: Phase = Phase.OPEN
    closing_ms: int = 0
    """When the closing began, by our clock."""

    @property
    def promised_ucr(self) -> int:
        """Due, held and forfeited together."""
        return self.latest.record.promised_ucr if self.latest else 0

    @property
    def forfeited_ucr(self) -> int:
        """Of what was promised, what is not owed any more: by the latest voucher, or by a ground that it does not know."""
        return forfeited_of(self.latest.record, sum(self.grounds.values())) if self.latest else 0

    @property
    def balance_ucr(self) -> int:
        """What the payee will have earned if nothing more is promised or forfeited; what it has once the channel is closed."""
        return self.promised_ucr - self.forfeited_ucr

    @property
    def room_ucr(self) -> int:
        """What the channel's limit still covers."""
        return self.channel.record.credit_limit_ucr - self.balance_ucr

    def held_ucr(self, now_ms: int) -> int:
        """Of the balance, what has not fallen due by now."""
        return total_ucr(self.held(now_ms))

    def held(self, now_ms: int) -> Parts:
        """That, in parts."""
        if self.latest is None:
            return ()
        slack_ms = SKEW_MS if self.party is Party.PAYEE else 0
        return held_of(self.latest.record, sum(self.grounds.values()), now_ms - slack_ms)

    def payable_ucr(self, now_ms: int) -> int:
        """Of the balance, what has fallen due by now. The payer may not forfeit it any more."""
        return self.balance_ucr - self.held_ucr(now_ms)

    def pay(self, receipt: bytes, claim: Claim, now_ms: int) -> Voucher:
        """The voucher that answers `receipt`, and holds of its pay what the claim allows.

        It falls due with what was held shortly before, so that the parts are few. Raises `LocalProtocolError` if the limit does
        not cover it, or the closing's grace is over.
        """
        self._pay_move(now_ms)
        if receipt in self.named:
            raise LocalProtocolError(Code.ILLEGAL_MOVE, "This receipt has its voucher already.")
        if not 0 <= claim.owed_ucr <= self.room_ucr:
            raise LocalProtocolError(Code.CREDIT_EXHAUSTED, f"{claim.owed_ucr} ucr more exceed the channel's limit.")
        parts = self.held(now_ms)
        release_at_ms = release_of(parts, claim.hold_until_ms, now_ms)
        if release_at_ms > now_ms:
            so_long_ucr = total_ucr(unreleased(parts, release_at_ms - 1))
            most = self.named.holdable_ucr(release_at_ms) + claim.held_ucr_max - self.forfeited_ucr - so_long_ucr
            parts = with_more(parts, max(0, min(claim.held_ucr_max, most)), release_at_ms)
        return self._voucher(receipt, self.balance_ucr + claim.owed_ucr, parts, self.forfeited_ucr)

    def restate(self, now_ms: int) -> Voucher:
        """What the latest voucher promises, with the forfeits taken off and what was released as due."""
        self._pay_move(now_ms)
        if self.latest is None:
            raise LocalProtocolError(Code.ILLEGAL_MOVE, "Nothing was promised on this channel yet.")
        return self._voucher(self.latest.record.receipt, self.balance_ucr, self.held(now_ms), self.forfeited_ucr)

    def yielding(self, ground: Ground, ucr: int, now_ms: int) -> Voucher:
        """The voucher by which the ground forfeits `ucr` and no more: what it had taken beyond is due, since the payee was told
        of it too late. Raises `LocalProtocolError` once the closing's grace is over."""
        self._pay_move(now_ms)
        if self.latest is None or not 0 <= ucr <= self.grounds.get(ground, 0):
            raise LocalProtocolError(Code.ILLEGAL_MOVE, "The ground does not forfeit so much.")
        given_up_ucr = self.grounds[ground] - ucr
        balance_ucr, left_ucr = self.balance_ucr + given_up_ucr, self.forfeited_ucr - given_up_ucr
        return self._voucher(self.latest.record.receipt, balance_ucr, self.held(now_ms), left_ucr)

    def yielded(self, ground: Ground, ucr: int, voucher: Signed[Voucher]) -> None:
        """The payer signed and stored what `yielding` gave."""
        self.grounds.pop(ground)
        if ucr:
            self.grounds[ground] = ucr
        self.latest = voucher

    def paid(self, voucher: Signed[Voucher], claim: Claim) -> None:
        """The payer signed and stored what `pay` or `restate` gave for the receipt of this claim."""
        self.named.add(voucher.record.receipt, claim)
        self.latest = voucher

    def check(self, voucher: Signed[Voucher], claim: Claim, now_ms: int) -> None:
        """Raises `RemoteProtocolError` unless the payee may take the voucher as `receive` does. No promise changes.

        The latest voucher must cover every receipt that any voucher names, and all that these receipts' orders do not let
        the payer hold until a part's time of release must be due by then, or forfeited on a ground that the payee knows:
        `due before it + max(forfeited, holdable until release_at_ms) >= owed`. So what one receipt lets the payer hold stands
        for no other receipt's pay, and what was forfeited of it cannot be held a second time.
        """
        record, limit_ucr = voucher.record, self.channel.record.credit_limit_ucr
        self._check_own(voucher)
        self._contest(Party.PAYER, now_ms)
        if record.due_ucr + record.held_ucr > limit_ucr:
            raise RemoteProtocolError(Code.CREDIT_EXHAUSTED, "The voucher promises more than the channel's limit.")
        if record.held and record.held[-1].release_at_ms > now_ms + HOLD_MS_MAX + SKEW_MS:
            raise RemoteProtocolError(Code.BAD_RECORD, "The voucher holds pay back for longer than any order may.")
        if record.forfeited_ucr > sum(self.grounds.values()):
            raise RemoteProtocolError(Code.UNPAID, "The voucher forfeits more than any verdict or evidence known here.")
        best = self._later(record)
        new = record.receipt not in self.named
        owed_ucr = self.named.owed_ucr + (claim.owed_ucr if new else 0)
        if best.promised_ucr < owed_ucr:
            raise RemoteProtocolError(Code.UNPAID, "The voucher does not cover the receipt that it names.")
        due_ucr = best.due_ucr
        for part in best.held:
            until_ms = part.release_at_ms - SKEW_MS
            holdable_ucr = self.named.holdable_ucr(until_ms) + (claim.holdable_ucr(until_ms) if new else 0)
            if due_ucr + max(best.forfeited_ucr, holdable_ucr) < owed_ucr:
                raise RemoteProtocolError(Code.UNPAID, "The voucher holds back more than was agreed to.")
            due_ucr += part.ucr

    def adds(self, voucher: Signed[Voucher]) -> bool:
        """Whether the voucher is later than those so far, or names a receipt that none of them names."""
        return voucher.record.receipt not in self.named or self._is_later(voucher.record)

    def receive(self, voucher: Signed[Voucher], claim: Claim, now_ms: int) -> None:
        """The payee takes a voucher for the receipt of this claim.

        Vouchers of jobs side by side may overtake one another; a repeated one changes nothing. Raises as `check` does.
        """
        self.check(voucher, claim, now_ms)
        self.named.add(voucher.record.receipt, claim)
        if self._is_later(voucher.record):
            self.latest = voucher

    def present(self, voucher: Signed[Voucher], now_ms: int) -> None:
        """The payer, while closing, is shown its own voucher, and stands by it even if it has forgotten it.

        Raises `RemoteProtocolError` if it is not for this channel or comes too late, and `contradiction` if the payer has
        signed what no order makes true.
        """
        self._check_own(voucher)
        self._contest(Party.PAYEE, now_ms)
        self._later(voucher.record)
        self.named.add(voucher.record.receipt, Claim(0))
        if self._is_later(voucher.record):
            self.latest = voucher

    def forfeit(self, ground: Ground, ucr: int, now_ms: int) -> None:
        """So much of what is held is not owed any more; told again, it changes nothing.

        Our caller has judged the verdict or evidence. Raises for more than is held, or after its release: `LocalProtocolError`
        at the payer, `RemoteProtocolError` at the payee.
        """
        self.check_forfeit(ground, ucr, now_ms)
        self.grounds[ground] = ucr

    def check_forfeit(self, ground: Ground, ucr: int, now_ms: int) -> None:
        """Raises as `forfeit` does. No promise changes."""
        if self.grounds.get(ground) == ucr:
            return
        self.expire(now_ms)
        self._move(Party.PAYER, Event.FORFEIT)
        if ground in self.grounds:
            raise self._fault(Party.PAYER, Code.ILLEGAL_MOVE, "The same ground was given for another amount.")
        if len(self.grounds) >= GROUNDS_MAX:
            raise self._fault(Party.PAYER, Code.TOO_LARGE, "The channel has as many forfeits as one may have.")
        if not 0 < ucr <= self.held_ucr(now_ms):
            raise self._fault(Party.PAYER, Code.EXPIRED, f"{ucr} ucr are not held, or have fallen due.")

    def close(self, by: Party, now_ms: int) -> None:
        """The closing begins, if it has not; `by` presents the latest voucher that it has."""
        self.expire(now_ms)
        began = self.phase is Phase.OPEN
        self._move(by, Event.CLOSE)
        if began:
            self.closing_ms = now_ms

    def deadline_ms(self) -> int | None:
        """When `expire` makes its next move; None once the channel is closed."""
        if self.phase is Phase.CLOSED:
            return None
        if self.phase is Phase.OPEN:
            return self.channel.record.expires_ms
        held = self.latest.record.held if self.latest else ()
        return max(self._grace_ends_ms, held[-1].release_at_ms if held else 0) + SKEW_MS

    def expire(self, now_ms: int) -> None:
        """The clock has made all its moves up to now."""
        while (deadline_ms := self.deadline_ms()) is not None and now_ms >= deadline_ms:
            if self.phase is Phase.OPEN:
                self.closing_ms = deadline_ms
            self._move(Party.CLOCK, Event.EXPIRE)

    @property
    def _grace_ends_ms(self) -> int:
        return self.closing_ms + self.channel.record.close_grace_ms

    def _pay_move(self, now_ms: int) -> None:
        if self.party is not Party.PAYER:
            raise LocalProtocolError(Code.ILLEGAL_MOVE, "Only the payer signs vouchers.")
        self._contest(Party.PAYER, now_ms)

    def _contest(self, by: Party, now_ms: int) -> None:
        self.expire(now_ms)
        late_ms = 0 if by is self.party else SKEW_MS
        if self.phase is not Phase.OPEN and now_ms >= self._grace_ends_ms + late_ms:
            raise self._fault(by, Code.EXPIRED, "The channel's grace is over.")
        self._move(by, Event.VOUCHER if self.phase is Phase.OPEN else Event.CONTEST)

    def _move(self, by: Party, event: Event) -> None:
        target = TABLE.get((self.phase, by, event))
        if target is None:
            raise self._fault(by, Code.ILLEGAL_MOVE, f"The {by} may not {event} while the channel is {self.phase}.")
        self.phase = target

    def _fault(self, by: Party, code: Code, message: str) -> ProtocolError:
        return (LocalProtocolError if by is self.party else RemoteProtocolError)(code, message)

    def _check_own(self, voucher: Signed[Voucher]) -> None:
        if voucher.record.channel != self.channel.id or voucher.signer != self.channel.record.payer:
            raise RemoteProtocolError(Code.BAD_SIGNATURE, "The voucher is for another channel or by another payer.")

    def _later(self, record: Voucher) -> Voucher:
        """Of this voucher and the latest so far, the one that follows the other."""
        if self.latest is None or follows(record, self.latest.record):
            return record
        if not follows(self.latest.record, record):
            raise RemoteProtocolError(Code.CONTRADICTION, "The voucher contradicts another one of its payer.")
        return self.latest.record

    def _is_later(self, record: Voucher) -> bool:
        return self.latest is None or not follows(self.latest.record, record)

    def _voucher(self, receipt: bytes, balance_ucr: int, held: Parts, forfeited_ucr: int) -> Voucher:
        return Voucher(self.channel.id, receipt, balance_ucr - total_ucr(held), held, forfeited_ucr)
