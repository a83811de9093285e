"""What was taken unchecked, and is found wrong by a later look, becomes a verdict: for one, judges can be asked.

The work is the same that its order was committed to, so the later check belongs to it. The order's own side is what the wallet
keeps for judges; without that (an order that names too few judges, or one of a wallet of an older version) nothing of the pay
can be forfeited, and the fault is this client's own affair.
"""

from __future__ import annotations

from ..protocol.envelope import Signed
from ..protocol.opening import decode_opening_untrusted
from ..protocol.policy import ADAPTIVE, Policy
from ..protocol.receipts import Receipt
from .bundles import ClientBundle
from .dossier import Dossier
from .panel import Panel
from .team import Team


async def reopen(
    team: Team, bundle: ClientBundle, last: Signed[Receipt], policy: Policy, nonce: bytes, panel: Panel
) -> bool:
    """The verdict that follows from what the panel has found about one order's work, whose receipt `last` is, is signed and on
    disk, with what judges are to be asked about. False: there is no room for that now.

    True, too, where nothing could come of it: nothing is held of the pay, or what judges would have to see is not there. Nor
    does anything but under `adaptive`: by the others, what was not drawn stands. Raises `FallowError`.
    """
    wallet, now_ms = team.desk.wallet, team.desk.now_ms()
    answered, chain = await wallet.answered(last)
    if policy.kind != ADAPTIVE or answered is None or answered.order is None or answered.accepted is None:
        return True
    channel = await wallet.state_of(answered.order.record.channel, now_ms)
    if channel is not None and not channel.held_ucr(
        now_ms
    ):  # else another process of this client has it, and brings the case
        return True
    if chain[0].record.sequence:
        return True
    dossier = Dossier(bundle.signed, policy, team.auditor.anchors, nonce)
    accepted = answered.accepted
    dossier.recall(
        decode_opening_untrusted(answered.opening), accepted.mandate, answered.order, accepted.accept, *chain
    )
    for execution in panel.executions:
        dossier.ordered(execution)
    for place in panel.places:
        dossier.keep(*(one for one in (place.attestation, place.final and place.final.receipt) if one))
    await dossier.close(wallet, now_ms)
    return not dossier.unheard
