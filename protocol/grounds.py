"""On what ground held pay is forfeited: a committee that was drawn for a receipt has signed one verdict against its executor.

The judges were agreed on before the work, in its order; chance drew from them, by the nonce that the order committed to and the
receipt that was signed after it. So the payee can tell from its own order whether those who signed were to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from .checks import Finding, Standing, Verdict
from .codec import encode
from .envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from .errors import Code, RemoteProtocolError
from .identity import EXECUTOR, VERIFIER, Mandate, begins_ms, check_mandate, content_hash, ends_ms
from .limits import HOLD_MS_MAX, SKEW_MS
from .messages.payment import GroundRequest
from .orders import JobOrder
from .payment import Channel
from .policy import check_commitment, draw
from .receipts import Receipt
from .schema import to_map

DRAWN: Final = 3
ENOUGH: Final = 2
"""Of three judges two decide, and one may be away."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A receipt of the payee's that a committee found wrong."""

    channel: Signed[Channel]
    order: Signed[JobOrder]
    receipt: Signed[Receipt]
    verdicts: tuple[Signed[Verdict], ...]
    mandates: tuple[Signed[Mandate], ...]


def ground_id(verdict: Verdict) -> bytes:
    """By which both sides know the ground, whoever's signatures they have: reasons are worded as each likes."""
    plain = replace(verdict, findings=tuple(replace(finding, reason="") for finding in verdict.findings))
    return content_hash(encode(to_map(plain)))


def committee(verdict: Verdict, order: Signed[JobOrder], receipt: bytes, payout_owner: bytes) -> frozenset[bytes]:
    """Owners who are to judge the receipt. Raises `Refused(unsatisfiable_assurance)` if too few were agreed on."""
    parties = {order.signer, order.record.executor, payout_owner}
    return frozenset(draw(verdict.commitment_nonce, receipt, order.record.candidates, parties, DRAWN))


def check_judged(judged: Judged, now_ms: int) -> bytes:
    """The ground's id. Raises `FallowError` unless it holds: the signatures are checked, and that the order is the payee's own
    is its affair to know."""
    channel, order, receipt = judged.channel.record, judged.order, judged.receipt
    verdict = judged.verdicts[0].record
    if (order.signer, order.record.channel, order.record.executor) != (channel.payer, judged.channel.id, channel.payee):
        raise RemoteProtocolError(Code.BAD_RECORD, "The order is not the payer's to this node on this channel.")
    if receipt.signer != channel.payee or receipt.record.order != order.id:
        raise RemoteProtocolError(Code.BAD_RECORD, "The receipt is not this node's for the order.")
    if check_commitment(verdict.commitment_nonce, verdict.policy) != order.record.check_commitment:
        raise RemoteProtocolError(Code.BAD_RECORD, "The verdict does not open what the order committed to.")
    if not any(_against(finding, channel.payee, receipt.id) for finding in verdict.findings):
        raise RemoteProtocolError(Code.BAD_RECORD, "The verdict does not refute the receipt.")
    if len({ground_id(signed.record) for signed in judged.verdicts}) != 1:
        raise RemoteProtocolError(Code.BAD_RECORD, "Those who signed do not say the same.")
    drawn = committee(verdict, order, receipt.id, channel.payout_owner)
    owners = {
        mandate.record.owner
        for signed in judged.verdicts
        for mandate in judged.mandates
        if mandate.record.owner in drawn and could_judge(mandate, signed.signer, order.record.created_ms, now_ms)
    }
    if len(owners) < ENOUGH:
        raise RemoteProtocolError(Code.UNSATISFIABLE_ASSURANCE, f"{len(owners)} of the judges drawn have signed it.")
    return ground_id(verdict)


def read_judged_untrusted(request: GroundRequest) -> Judged:
    """What the message holds, with its signatures checked and nothing else. Raises `RemoteProtocolError`."""
    channel = verify_any_signer_untrusted(Channel, request.channel)
    return Judged(
        channel,
        verify_untrusted(JobOrder, request.order, signer=channel.record.payer),
        verify_untrusted(Receipt, request.receipt, signer=channel.record.payee),
        tuple(verify_any_signer_untrusted(Verdict, one) for one in request.verdicts),
        tuple(verify_any_signer_untrusted(Mandate, one) for one in request.mandates),
    )


def _against(finding: Finding, node: bytes, receipt: bytes) -> bool:
    named = receipt in finding.evidence and receipt not in finding.due_for
    return (finding.node, finding.role, finding.standing) == (node, EXECUTOR, Standing.REFUTED) and named


def is_verifier(mandate: Signed[Mandate], node: bytes, now_ms: int) -> bool:
    """Whether the mandate makes the node its owner's verifier now."""
    try:
        check_mandate(mandate, node, VERIFIER, now_ms)
    except RemoteProtocolError:
        return False
    return True


def could_judge(mandate: Signed[Mandate], node: bytes, since_ms: int, now_ms: int) -> bool:
    """Whether the mandate has made the node its owner's verifier at some time from `since_ms` until now, and has lapsed, if it
    has, no longer ago than anything may be held."""
    try:
        at_ms = min(now_ms, ends_ms(mandate))
        check_mandate(mandate, node, VERIFIER, at_ms)
    except RemoteProtocolError:
        return False
    return at_ms >= max(since_ms - SKEW_MS, now_ms - HOLD_MS_MAX)


def was_verifier(mandate: Signed[Mandate], node: bytes) -> bool:
    """Whether the mandate has made the node its owner's verifier at any time."""
    try:
        check_mandate(mandate, node, VERIFIER, begins_ms(mandate))
    except RemoteProtocolError:
        return False
    return True
