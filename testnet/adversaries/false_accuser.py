"""A client that says of good work that it is wrong, to have back what it pays for it.

    python -m fallow.testnet.adversaries.false_accuser --bootstrap ADDRESS --home DIR --bundle NAME

Two tricks: `accuses` brings the work before the judges whom both sides agreed on; `accuses-again` does it once more. Caught:
the judges run the work themselves, the claim is dismissed and the claimant bears the fee; before it has paid that it is not
heard again.
"""

from __future__ import annotations

from typing import Any

import trio

from ...client.contesting import Contested, bring, claim, shown, take_off
from ...client.nodes import Node
from ...client.tribunal import ANSWER_MS
from ...protocol.disputes import UPHELD, Kind
from ...protocol.envelope import Signed
from ...protocol.errors import FallowError
from ...protocol.identity import peer_id
from .customer import Customer, Outcome, bought, main

TOKENS = 40
FEE_UCR = 9
"""Three for each of the judges: one that is owed less than one micro-credit is owed nothing."""


async def accuse(customer: Customer, wanted: bytes | None) -> list[Outcome]:
    """A text is bought and paid, and then said to be wrong. Raises `FallowError` if there is none to be had."""
    node = await customer.node(wanted=wanted)
    async with customer.job(node, TOKENS) as execution:
        tokens, receipts = await bought(execution)
        contested = Contested(execution.channel.channel, execution.order, receipts[-1])
        records: list[Signed[Any]] = [customer.manifest, node.mandate, contested.channel, execution.order, *receipts]
        proof = shown(records, [execution.opening()])
    owed_ucr = receipts[-1].record.amount_ucr
    outcomes = []
    for trick in ("accuses", "accuses-again"):
        back_ucr, stopped_by = await _accuse(customer, node, contested, proof)
        outcomes.append(
            Outcome("false-accuser", trick, peer_id(node.key), tokens, owed_ucr, owed_ucr - back_ucr, stopped_by)
        )
    return outcomes


async def _accuse(customer: Customer, node: Node, contested: Contested, proof: bytes) -> tuple[int, str]:
    """What the accuser has back, and what kept it from having more: the judges' word, or the code of their refusal."""
    desk = customer.desk
    dispute = claim(Kind.WRONG, contested, proof, desk.key, desk.now_ms(), fee_ucr=FEE_UCR, answer_ms=ANSWER_MS)
    try:
        decided = await bring(
            desk.network, customer.judges, contested, dispute, proof, desk.key, desk.now_ms(), addresses=node.addresses
        )
    except (FallowError, trio.TooSlowError) as error:
        return 0, str(error.code) if isinstance(error, FallowError) else "timeout"
    outcome = decided.decisions[0].record.outcome
    if outcome != UPHELD:
        return 0, outcome
    return (await take_off(desk, node.addresses, decided)).ucr, ""


if __name__ == "__main__":
    main(accuse)
