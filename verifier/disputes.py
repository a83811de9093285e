"""What a dispute comes to: a pure function of what both sides have signed and shown, and of running the work again.

One rule for each kind, in a table. Plaintext counts only if it fits the salted digests that were signed before; who does not
answer in time, where an answer is owed, has lost, and so has who answers each judge otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..protocol.bundle import SCORE, Manifest, Tolerance
from ..protocol.checks import Attestation, Verdict
from ..protocol.disputes import (
    DENIES,
    DISMISSED,
    OWNS,
    UPHELD,
    Decision,
    Dispute,
    Kind,
    Plea,
    contradict,
)
from ..protocol.envelope import Signed
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel, Voucher
from ..protocol.policy import check_commitment
from ..protocol.receipts import Receipt
from .case import Part, part_of, referred
from .compare import beyond, figures_apart
from .rerun import Run, run_of

UNANSWERED = "the accused has not answered in time"
TWO_ANSWERS = "the accused has signed two different answers"
ABSENT = "nobody has heard the payee, and absence proves nothing"
NOT_OPENED = "what the payer opens is not what it has ordered"
NOT_SHOWN = "nothing that the payer opens or has signed shows that it came"


@dataclass(frozen=True, slots=True)
class Shown:
    """What one side has shown, under a hash that it signed."""

    records: Sequence[Signed[Any]] = ()
    openings: Sequence[Opening] = ()


@dataclass(frozen=True, slots=True)
class Matter:
    """One dispute, and what either side has shown of it."""

    dispute: Signed[Dispute]
    channel: Signed[Channel]
    order: Signed[JobOrder]
    receipt: Signed[Receipt]
    tolerance: Tolerance
    part: Part
    """The order's answer up to the disputed receipt, with the payer's opening if that fits."""
    plea: Signed[Plea] | None
    """What this judge has heard, where an answer is owed."""
    records: Mapping[bytes, Signed[Any]] = field(default_factory=dict)
    """Of both sides, by id."""
    openings: Sequence[Opening] = ()
    """The payer's: nobody else has the salt."""
    elsewhere: Sequence[Signed[Plea]] = ()
    """What the other judges have heard, as the claimant shows."""

    @property
    def payer(self) -> bytes:
        return self.order.signer

    @property
    def two_answers(self) -> bool:
        """Whether the accused contradicts itself."""
        return contradict((*_given(self.plea), *self.elsewhere))

    def of(self, kind: type, signer: bytes) -> list[Signed[Any]]:
        """Records of a kind that this key has signed, by id."""
        found = [one for one in self.records.values() if isinstance(one.record, kind) and one.signer == signer]
        return sorted(found, key=lambda one: one.id)


@dataclass(frozen=True, slots=True)
class _Found:
    upheld: bool
    reason: str
    stands: bool | None
    """Whether the receipts are owed; None: that was not the question."""
    free: bool = False
    """Nobody bears a fee."""


_LOST = _Found(True, UNANSWERED, True)
_TWICE = _Found(True, TWO_ANSWERS, True)
_ABSENT = _Found(False, ABSENT, None, free=True)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind is decided."""

    hears: bool
    """The accused is to answer."""
    runs: Callable[[Matter], bool]
    """Whether it takes running the work again, given what was shown."""
    judge: Callable[[Matter, str | None], _Found]
    silent: _Found = _LOST
    """What it comes to if the accused does not answer."""


def matter_of(
    dispute: Signed[Dispute],
    claimed: Shown,
    plea: Signed[Plea] | None,
    answered: Shown,
    elsewhere: Sequence[Signed[Plea]] = (),
) -> Matter:
    """The matter that the records make. What the accused shows changes nothing of what the claimant's records hold, and nothing
    at all where no answer is owed: else it could see to it that they make none.

    Raises `RemoteProtocolError`: `bad_record` if channel, order, receipt or what stands before it is missing or says another
    amount than the order's price gives, or a plea is another's; `unknown_bundle` without the manifest."""
    if any(
        (one.record.dispute, one.signer) != (dispute.id, dispute.record.accused) for one in (*elsewhere, *_given(plea))
    ):
        raise RemoteProtocolError(Code.BAD_RECORD, "The plea is not the accused's in this dispute.")
    if not RULES[Kind(dispute.record.kind)].hears:
        plea, answered, elsewhere = None, Shown(), ()
    own = {signed.id: signed for signed in claimed.records}
    order, receipt = own.get(dispute.record.order), own.get(dispute.record.receipt)
    if order is None or not isinstance(order.record, JobOrder):
        raise RemoteProtocolError(Code.BAD_RECORD, "The order in dispute is not among the records.")
    if receipt is None or not isinstance(receipt.record, Receipt):
        raise RemoteProtocolError(Code.BAD_RECORD, "The receipt in dispute is not among the records.")
    channel = own.get(order.record.channel)
    if (
        channel is None
        or not isinstance(channel.record, Channel)
        or ((channel.signer, channel.record.payee) != (order.signer, order.record.executor))
    ):
        raise RemoteProtocolError(Code.BAD_RECORD, "The channel of the order in dispute is not among the records.")
    manifest = own.get(order.record.bundle)
    if manifest is None or not isinstance(manifest.record, Manifest):
        raise RemoteProtocolError(
            Code.UNKNOWN_BUNDLE, "The manifest, which holds the tolerance, is not in the records."
        )
    openings = claimed.openings if dispute.signer == order.signer else answered.openings
    upto = [one for one in own.values() if not _later(one, order, receipt)]
    part = part_of(order, upto, openings)
    if receipt.id not in {one.id for one in part.receipts}:
        raise RemoteProtocolError(
            Code.BAD_RECORD, "The receipt ends no unbroken chain of its order's, at the order's price."
        )
    records = {signed.id: signed for signed in answered.records} | own
    return Matter(
        dispute, channel, order, receipt, manifest.record.tolerance, part, plea, records, openings, tuple(elsewhere)
    )


def _given(plea: Signed[Plea] | None) -> tuple[Signed[Plea], ...]:
    return (plea,) if plea else ()


def run_wanted(matter: Matter) -> Run | None:
    """What a judge has to run before it decides; None if nothing."""
    if matter.two_answers:
        return None
    return run_of(matter.part) if RULES[Kind(matter.dispute.record.kind)].runs(matter) else None


def decide(matter: Matter, objection: str | None, *, late: bool) -> Decision | None:
    """The decision; None while the accused may still answer.

    `objection` is why the answer is not what running it came to: empty if it is that, None if nothing was run. `late`: the time
    to answer is over.
    """
    dispute, rule = matter.dispute, RULES[Kind(matter.dispute.record.kind)]
    silent = rule.hears and matter.plea is None
    if silent and not late and not matter.two_answers:
        return None
    found = _TWICE if matter.two_answers else rule.silent if silent else rule.judge(matter, objection)
    amount_ucr = matter.receipt.record.amount_ucr
    return Decision(
        dispute=dispute.id,
        outcome=UPHELD if found.upheld else DISMISSED,
        loser=dispute.record.accused if found.upheld else dispute.signer,
        due_ucr=amount_ucr if found.stands is True else 0,
        withheld_ucr=amount_ucr if found.stands is False else 0,
        fee_ucr=0 if found.free else dispute.record.fee_ucr,
        reason=found.reason,
    )


def _wrong(matter: Matter, objection: str | None) -> _Found:
    if matter.part.asked is None:
        return _Found(False, NOT_OPENED, True)
    if matter.part.opened is None:
        return _Found(False, "what the payer opens is not what the receipts vouch for", None)
    if objection is None:
        return _Found(False, "nothing was answered that could be run again", None)
    return _Found(True, objection, False) if objection else _Found(False, "run again, it is what the model gives", True)


def _two_faced(matter: Matter, _: str | None) -> _Found:
    accused = matter.dispute.record.accused
    if any(isinstance(one.record, Attestation) for one in matter.part.equivocal):
        return _Found(True, "two findings under one order", False)
    for other in matter.of(JobOrder, matter.payer):
        if other.record.executor != accused or other.id == matter.order.id:
            continue
        theirs = part_of(other, matter.records.values(), matter.openings)
        if why := _contradict(matter.part, theirs, matter.tolerance):
            return _Found(True, why, False)
    return _Found(False, "its findings do not contradict each other", True)


def _disowned(matter: Matter, _: str | None) -> _Found:
    assert matter.plea is not None
    if matter.plea.record.says == OWNS:
        return _Found(False, "the payee stands by it", True)
    denied = matter.plea.record.says == DENIES
    return _Found(True, "the payee denies what it has signed" if denied else "the payee does not say so", True)


def _unpaid(matter: Matter, objection: str | None) -> _Found:
    if _paid(matter):
        return _Found(False, "a voucher covers it", True, free=True)
    if _borne_out(matter):
        return _Found(True, "the payer's own verdict bears it out", True)
    if matter.part.asked is None:
        return _Found(True, NOT_OPENED, True)
    if objection is None:
        if _arrived(matter):
            return _Found(True, "the payer has signed that it came, and does not open it", True)
        # A receipt is its signer's word: it may vouch for what was never sent. Nor does anything show that it was not.
        return _Found(False, NOT_SHOWN, None, free=True)
    return _Found(False, objection, False) if objection else _Found(True, "run again, it is what the model gives", True)


def _mismatched(matter: Matter, _: str | None) -> _Found:
    if matter.part.asked is None:
        return _Found(True, NOT_OPENED, True)
    return _Found(False, "what the payer opens is what it has ordered", None)


def _unopened(matter: Matter, _: str | None) -> _Found:
    commitment, plea = matter.order.record.check_commitment, matter.plea
    if plea and plea.record.commitment_nonce and plea.record.policy:
        if check_commitment(plea.record.commitment_nonce, plea.record.policy) == commitment:
            return _Found(False, "the payer opens it", None)
        return _Found(True, "what the payer opens is not what it has committed to", True)
    for verdict in matter.of(Verdict, matter.payer):
        if check_commitment(verdict.record.commitment_nonce, verdict.record.policy) == commitment:
            return _Found(False, "the payer's verdict opens it", None)
    return _Found(True, "nothing that the payer shows opens it", True)


def _always(_: Matter) -> bool:
    return True


def _never(_: Matter) -> bool:
    return False


def _if_unsettled(matter: Matter) -> bool:
    return not _paid(matter) and not _borne_out(matter)


RULES: Final[Mapping[Kind, Rule]] = {
    Kind.WRONG: Rule(False, _always, _wrong),
    Kind.TWO_FACED: Rule(False, _never, _two_faced),
    Kind.DISOWNED: Rule(True, _never, _disowned, _ABSENT),
    Kind.UNPAID: Rule(True, _if_unsettled, _unpaid),
    Kind.MISMATCHED: Rule(True, _never, _mismatched),
    Kind.UNOPENED: Rule(True, _never, _unopened),
}


def _later(signed: Signed[Any], order: Signed[JobOrder], receipt: Signed[Receipt]) -> bool:
    """Whether it is a receipt of the order that comes after the disputed one."""
    record = signed.record
    return isinstance(record, Receipt) and record.order == order.id and record.sequence > receipt.record.sequence


def _paid(matter: Matter) -> bool:
    """Whether a voucher promises at least as much."""
    amount_ucr = matter.receipt.record.amount_ucr
    return any(one.record.due_ucr + one.record.held_ucr >= amount_ucr for one in _vouchers(matter))


def _vouchers(matter: Matter) -> list[Signed[Voucher]]:
    """Those that name the receipt, or a later one of its order."""
    own = {one.id for one in matter.of(Receipt, matter.order.record.executor) if one.record.order == matter.order.id}
    own -= {one.id for one in matter.part.receipts if one.record.sequence < matter.receipt.record.sequence}
    channel = matter.order.record.channel
    return [o for o in matter.of(Voucher, matter.payer) if o.record.channel == channel and o.record.receipt in own]


def _arrived(matter: Matter) -> bool:
    """Whether the payer has signed anything that it signs only about what came: a voucher for the receipt, however small, or an
    order to check its window, or to go on from it."""
    named = {id for order in matter.of(JobOrder, matter.payer) for id in referred(order.record)}
    return matter.receipt.id in named or bool(_vouchers(matter))


def _borne_out(matter: Matter) -> bool:
    """Whether the payer itself has signed that the receipt is due."""
    verdicts = matter.of(Verdict, matter.payer)
    return any(matter.receipt.id in finding.due_for for one in verdicts for finding in one.record.findings)


def _contradict(one: Part, other: Part, tolerance: Tolerance) -> str | None:
    """Why two findings about the same tokens, under two orders, cannot both be the model's."""
    orders = one.order.record, other.order.record
    if any(order.entry != SCORE for order in orders) or one.opened is None or other.opened is None:
        return None
    same = (orders[0].bundle, replace(orders[0].parameters, max_tokens=0)) == (
        orders[1].bundle, replace(orders[1].parameters, max_tokens=0)
    )  # fmt: skip
    if not same or one.opened.work != other.opened.work or one.attestation is None or other.attestation is None:
        return None
    mine, theirs = one.attestation.record, other.attestation.record
    top_p = orders[0].parameters.top_p_ppm
    for why in (
        figures_apart("log-probabilities", mine.values_micro, theirs.values_micro, tolerance.value_micro),
        figures_apart("gaps", mine.gaps_micro, theirs.gaps_micro, tolerance.gap_micro),
        figures_apart(
            "masses beyond top-p", beyond(mine.masses_ppm, top_p), beyond(theirs.masses_ppm, top_p), tolerance.mass_ppm
        ),
    ):
        if why:
            return f"two findings about the same tokens: {why}"
    return None
