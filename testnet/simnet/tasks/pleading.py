"""What simulated clients answer in disputes: the truth, by the client's own code, or another prompt than they had ordered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from ....client.answering import Given, answer_at
from ....client.contesting import answer, exchange, to_answer
from ....client.desk import Desk
from ....protocol.disputes import Dispute
from ....protocol.envelope import Signed
from ....protocol.errors import FallowError
from ....protocol.messages.assurance import DisputeRequest
from ....protocol.opening import decode_opening_untrusted
from ....protocol.proofs import ProofFile
from ....protocol.work import decode_work_untrusted

LOOK_S: Final = 20.0
"""As the client's own hour is to the day that judges give: three looks in the time to answer."""


async def plead(desk: Desk, judges: Mapping[bytes, str]) -> None:
    """Every judge is asked now and then what there is to answer, and answered, until cancelled."""
    given: Given = {}
    while True:
        for owner, address in judges.items():
            await answer_at(desk, owner, address, given)
        await trio.sleep(LOOK_S)


async def open_another(desk: Desk, judges: Mapping[bytes, str]) -> None:
    """The same, but that what is opened was never ordered: it is not what the work answers to."""
    answered = set[tuple[str, bytes]]()
    while True:
        for address in judges.values():
            with suppress(FallowError, trio.TooSlowError):
                for dispute in await to_answer(desk.network, address, desk.wallet.payer):
                    request = _another(desk, dispute)
                    if request is not None and (address, dispute.id) not in answered:
                        answered.add((address, dispute.id))
                        await exchange(desk.network, address, request)
        await trio.sleep(LOOK_S)


def _another(desk: Desk, dispute: Signed[Dispute]) -> DisputeRequest | None:
    kept = desk.wallet.answer(dispute.record.order)
    if kept is None:
        return None
    opening = decode_opening_untrusted(kept.opening)
    work = decode_work_untrusted(opening.work)
    other = replace(work, sequences=tuple(each[::-1] for each in work.sequences))
    false = replace(opening, work=other.encode())
    proof = ProofFile((dispute.envelope,), (false.encode(),)).encode()
    plea = answer(dispute.id, proof, desk.key, nonce=kept.nonce, policy=kept.policy)
    return DisputeRequest(dispute.envelope, plea.envelope, proof, (), None)
