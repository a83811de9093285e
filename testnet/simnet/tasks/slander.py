"""A client that accuses honest nodes by gossip: of what their records do not prove, or of what others have done.

Caught: each peer looks for itself before it believes or passes on anything, and holds it against whoever sent what proves
nothing. Ten such in a minute and it is not let in.
"""

from __future__ import annotations

from typing import Final

import trio

from ....protocol.envelope import Signed, sign
from ....protocol.errors import FallowError
from ....protocol.evidence import Evidence, Fault
from ....protocol.identity import peer_id
from ....protocol.messages.assurance import EvidenceMessage
from ....protocol.messages.codec import encode_message
from ....protocol.streams import EVIDENCE_PROTOCOL
from ...adversaries.customer import Customer, Outcome, bought

TOKENS: Final = 40
"""Two windows, so two receipts."""
ASK_S: Final = 5.0
NOTE: Final = "look for yourselves"


async def slander(customer: Customer, wanted: bytes | None) -> list[Outcome]:
    """A text is bought and paid, and its receipts are shown as what they are not. Raises `FallowError` if there is none."""
    node = await customer.node(wanted=wanted)
    async with customer.job(node, TOKENS) as execution:
        _, receipts = await bought(execution)
    key, shown = customer.desk.key, tuple(each.envelope for each in receipts[:2])
    if len(shown) < 2:
        return []  # so short a text gives no chance
    order = execution.order.envelope
    owed_ucr = receipts[-1].record.amount_ucr
    outcomes = []
    for trick, evidence in (
        ("two-windows", Evidence(str(Fault.EQUIVOCATION), node.key, shown, NOTE)),
        ("anothers", Evidence(str(Fault.RETRACTION), node.key, (order, shown[0]), NOTE)),
    ):
        stopped_by = await _tell(customer, sign(evidence, key))
        outcomes.append(Outcome("slanderer", trick, peer_id(node.key), TOKENS, owed_ucr, owed_ucr, stopped_by))
    return outcomes


async def _tell(customer: Customer, evidence: Signed[Evidence]) -> str:
    """What each peer made of it: the code by which the last refused it; empty if any took it, or there was nobody."""
    network, frame, stopped_by = customer.desk.network, encode_message(EvidenceMessage(evidence.envelope)), ""
    for peer in network.peers():
        try:
            with trio.fail_after(ASK_S):
                await network.request(peer, EVIDENCE_PROTOCOL, frame)
            return ""
        except FallowError as error:
            stopped_by = str(error.code)
        except trio.TooSlowError:
            stopped_by = "timeout"
    return stopped_by
