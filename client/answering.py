"""Disputes that payees have opened against this client, answered from its wallet: it opens what it ordered, and shows what it
paid.

Nobody may be able to dial a client, so it asks the judges whom it trusts what there is to answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import trio

from ..protocol.disputes import Decision, Dispute
from ..protocol.envelope import Signed, claimed_signer_untrusted, verify_untrusted
from ..protocol.errors import FallowError, Refused
from ..protocol.messages import DecisionReply, DisputeRequest
from ..protocol.proofs import ProofFile
from .contesting import answer, exchange, to_answer
from .execution import Desk

AGAIN_S: Final = 3600.0
"""Between two looks: there is a day to answer."""


async def answer_disputes(desk: Desk, verifiers: Mapping[bytes, str]) -> None:
    """Asks every judge now and then, until cancelled, and answers what it can."""
    while True:
        for address in verifiers.values():
            await answer_at(desk, address)
        await trio.sleep(AGAIN_S)


async def answer_at(desk: Desk, address: str) -> int:
    """So many disputes were answered at the judge at this address."""
    answered = 0
    try:
        for dispute in await to_answer(desk.network, address, desk.wallet.payer):
            if dispute.record.accused == desk.wallet.payer:
                answered += await _answer(desk, address, dispute)
    except (FallowError, trio.TooSlowError) as error:
        logging.getLogger(__name__).info("the judge at %s cannot be asked: %s", address, error)
    return answered


async def _answer(desk: Desk, address: str, dispute: Signed[Dispute]) -> bool:
    kept, record = desk.wallet.answer(dispute.record.order), dispute.record
    vouchers = desk.wallet.vouchers_for(record.receipt)
    if kept is None and not vouchers:
        logging.getLogger(__name__).warning("a dispute about order %s cannot be answered", record.order.hex()[:8])
        return False
    nonce, policy, opening = kept or (None, None, b"")
    # The price list that the order names is in what the node last said of itself, unless its prices have changed since.
    profile = desk.book.profile(dispute.signer)
    prices = (profile.capability,) if profile else ()
    proof = ProofFile((dispute.envelope, *vouchers, *prices), (opening,) if opening else ()).encode()
    plea = answer(dispute.id, proof, desk.key, nonce=nonce, policy=policy)
    try:
        reply = await exchange(desk.network, address, DisputeRequest(dispute.envelope, plea.envelope, proof, ()))
    except Refused as refused:
        logging.getLogger(__name__).warning("the answer about order %s: %s", record.order.hex()[:8], refused)
        return False
    if isinstance(reply, DecisionReply):
        decision = verify_untrusted(Decision, reply.decision, signer=claimed_signer_untrusted(reply.decision)).record
        what = "lost, and bears its fee" if decision.loser == desk.wallet.payer else "won"
        logging.getLogger(__name__).warning(
            "the dispute about order %s is %s, says the judge at %s: %s",
            record.order.hex()[:8],
            what,
            address,
            decision.reason,
        )
    return True
