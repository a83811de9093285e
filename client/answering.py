"""Disputes that payees have opened against this client, answered from its wallet: it opens what it ordered, and shows what it
paid.

Nobody may be able to dial a client, so it asks the judges whom it trusts what there is to answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import trio

from ..protocol.disputes import BY_PAYER, Decision, Dispute, judges
from ..protocol.envelope import Signed, verify_any_signer_untrusted
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.messages.assurance import DecisionReply, DisputeRequest
from ..protocol.orders import JobOrder
from ..protocol.proofs import ProofFile
from .contesting import answer as plea_of
from .contesting import exchange, to_answer
from .desk import Desk
from .wallet_answers import PLEAS_MAX

AGAIN_S: Final = 3600.0
"""Between two looks: there is a day to answer."""

Given: TypeAlias = dict[tuple[str, bytes], DisputeRequest]
"""What was answered, by judge and dispute, until it is known what it came to."""


async def answer_disputes(desk: Desk, verifiers: Mapping[bytes, str]) -> None:
    """Asks every judge now and then, until cancelled, and answers what it can."""
    given: Given = {}
    while True:
        for owner, address in verifiers.items():
            await answer_at(desk, owner, address, given)
        await trio.sleep(AGAIN_S)


async def answer_at(desk: Desk, owner: bytes, address: str, given: Given | None = None) -> int:
    """So many disputes were answered at the judge of this owner, at this address; of those `given` before, it is said what they
    came to."""
    answered, given = 0, {} if given is None else given
    try:
        for (judge, id), request in list(given.items()):
            if judge == address and await _came_to(desk, address, request):
                del given[judge, id]
        for dispute in await to_answer(desk.network, address, desk.wallet.payer):
            if dispute.record.accused != desk.wallet.payer:
                continue
            try:
                answer = await _answer(desk, owner, dispute)
                await exchange(desk.network, address, answer)
            except Refused as refused:  # by us, or by the judge
                order = dispute.record.order.hex()[:8]
                why = (order, address, refused.message, refused.code)
                logging.getLogger(__name__).warning("a dispute about order %s is not answered at %s: %s [%s]", *why)
                continue
            answered += 1
            given[address, dispute.id] = replace(answer, plea=None, proof=b"")
    except (FallowError, trio.TooSlowError) as error:
        logging.getLogger(__name__).info("the judge at %s cannot be asked: %s", address, error)
    return answered


async def _answer(desk: Desk, judge: bytes, dispute: Signed[Dispute]) -> DisputeRequest:
    """The answer, which is on disk: the same for each judge, also after a restart. `judge` is the owner of who asks.

    Raises `Refused`: `wrong_executor` for a claim of somebody else than who was to work on the order, `unsatisfiable_assurance`
    for a judge who was not drawn for it, `input_mismatch` if there is nothing to show, `too_large` if as many answers are kept
    as there may be.
    """
    record = dispute.record
    kept = desk.wallet.answer(record.order)
    if kept is not None and kept.order is None:
        kept = None  # by an older wallet, which does not say whose work it was, nor who may judge it
    _check(desk, judge, dispute, kept.order if kept else None)
    if known := desk.wallet.plea(dispute.id):
        return DisputeRequest(dispute.envelope, *known, (), None)
    vouchers = desk.wallet.vouchers_for(record.receipt, dispute.signer)
    if kept is None and not vouchers:
        raise Refused(Code.INPUT_MISMATCH, "What would answer it is not kept.")
    openings = (kept.opening,) if kept else ()
    proof = ProofFile((dispute.envelope, *vouchers), openings).encode()
    opens = (kept.nonce, kept.policy) if kept else (None, None)
    plea = plea_of(dispute.id, proof, desk.key, nonce=opens[0], policy=opens[1])
    if (given := await desk.wallet.keep_plea(plea, proof, desk.now_ms())) is None:
        raise Refused(Code.TOO_LARGE, f"{PLEAS_MAX} answers are kept, and no more.")
    return DisputeRequest(dispute.envelope, *given, (), None)


def _check(desk: Desk, judge: bytes, dispute: Signed[Dispute], order: Signed[JobOrder] | None) -> None:
    """What answers shows plaintext: to the judges alone to whom both sides agreed, and for a claim of the other side."""
    by_payer = dispute.record.kind in BY_PAYER
    if by_payer or not desk.wallet.has_paid(dispute.signer) or (order and order.record.executor != dispute.signer):
        raise Refused(Code.WRONG_EXECUTOR, "It is not by who was to work on the order.")
    if order is None:
        return  # there is a voucher to show at most, to whoever it was signed for
    payout_owner = desk.wallet.payout_owner(order.record.channel)
    if payout_owner is None or judge not in judges(order, payout_owner):
        raise Refused(Code.UNSATISFIABLE_ASSURANCE, "The judge was not drawn for the order.")


async def _came_to(desk: Desk, address: str, request: DisputeRequest) -> bool:
    """Whether the judge has decided: what, is said once."""
    try:
        reply = await exchange(desk.network, address, request)
    except Refused:
        return True  # it knows nothing of it any more
    if not isinstance(reply, DecisionReply):
        return False
    decision = verify_any_signer_untrusted(Decision, reply.decision).record
    what = "lost, and bears its fee" if decision.loser == desk.wallet.payer else "won"
    dispute = decision.dispute.hex()[:8]
    logging.getLogger(__name__).warning(
        "the dispute %s is %s, says the judge at %s: %s", dispute, what, address, decision.reason
    )
    return True
