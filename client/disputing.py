"""Held pay is forfeited: the judges drawn for a refuted receipt are asked, and what they sign is brought to the node.

The plaintext goes to them alone, whom payer and payee agreed on before the work. Who accuses falsely gets no signature, and has
paid the checks on which the accusation rests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from ..node.network.seam import Stream
from ..protocol.channel import ChannelState, Ground
from ..protocol.checks import Finding, Standing, Verdict
from ..protocol.envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.grounds import ENOUGH, Judged, check_judged, committee, ground_id
from ..protocol.identity import EXECUTOR, Mandate, content_hash, peer_key_untrusted
from ..protocol.messages.assurance import VerdictReply, VerdictRequest
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.payment import GroundRequest
from ..protocol.messages.refusals import RefuseMessage, refused
from ..protocol.orders import JobOrder
from ..protocol.receipts import Receipt
from ..protocol.streams import VERDICT_PROTOCOL
from .answers import Proof
from .desk import Desk
from .nodes import Node
from .telling import tell
from .wallet_tellings import Telling

TRIED_MAX: Final = 3
"""Receipts of one verdict for which judges are sought: others are drawn for each, and one is enough."""
ASK_S: Final = 60.0
"""For a judge's answer: it runs the work again, beside whatever else it does."""


@dataclass(frozen=True, slots=True)
class Forfeited:
    """What came of one dispute."""

    node: bytes
    ucr: int
    judges: int
    told: bool
    """The node has it on its disk, too; else it is told again."""


async def settle_disputes(
    desk: Desk, verifiers: Mapping[bytes, str], nodes: Mapping[bytes, Node], verdict: Signed[Verdict], proof: Proof
) -> list[Forfeited]:
    """For every executor that the verdict refutes and of whose pay something is held, a committee was asked.

    What enough of its judges sign is forfeited, on disk, and the node was told.
    """
    found = []
    for finding in verdict.record.findings:
        if (finding.role, finding.standing) != (EXECUTOR, Standing.REFUTED):
            continue
        for id in _channels(finding, proof.records):
            channel = await desk.wallet.state_of(id, desk.now_ms())
            if channel is None or not channel.held_ucr(desk.now_ms()):
                continue
            judged = await _judged(desk, verifiers, verdict, finding, channel, proof)
            if judged is not None:
                found.append(await _forfeit(desk, nodes.get(finding.node), channel, judged))
    return found


def _channels(finding: Finding, records: Iterable[Signed[Any]]) -> list[bytes]:
    """Those on which the node's work was ordered: by now there may be a new one to it."""
    orders = [signed.record for signed in records if isinstance(signed.record, JobOrder)]
    return sorted({order.channel for order in orders if order.executor == finding.node})


async def _judged(
    desk: Desk,
    verifiers: Mapping[bytes, str],
    verdict: Signed[Verdict],
    finding: Finding,
    channel: ChannelState,
    proof: Proof,
) -> Judged | None:
    """The first refuted receipt for which enough of the judges drawn have signed the verdict; None if there is none."""
    for order, receipt in _refuted(finding, channel, proof.records)[:TRIED_MAX]:
        try:
            drawn = committee(verdict.record, order, receipt.id, channel.channel.record.payout_owner)
        except Refused as refused:  # the node had agreed to fewer than make a committee
            _log("nobody can judge a receipt: %s", refused)
            continue
        request = encode_message(VerdictRequest(verdict.id, proof.file(openings=True)))
        answers: list[tuple[Signed[Verdict], Signed[Mandate]]] = []
        async with trio.open_nursery() as nursery:
            for owner in sorted(drawn & verifiers.keys()):
                nursery.start_soon(_ask, desk, verifiers[owner], request, verdict.record, answers)
        judged = Judged(
            channel.channel, order, receipt, tuple(v for v, _ in answers), tuple(mandate for _, mandate in answers)
        )
        if len(answers) >= ENOUGH:
            try:
                check_judged(judged, desk.now_ms())
            except FallowError as error:
                _log("the judges' word does not hold: %s", error)
                continue
            return judged
        _log("%d of the judges drawn could be had, or came to the same", len(answers))
    return None


def _refuted(
    finding: Finding, channel: ChannelState, records: Iterable[Signed[Any]]
) -> list[tuple[Signed[JobOrder], Signed[Receipt]]]:
    """Receipts on the channel that the finding withholds, and their orders, as far as these named judges: first those about
    which others were asked."""
    known = {signed.id: signed for signed in records}
    pairs = []
    for id in finding.evidence:
        signed = known.get(id)
        if id in finding.due_for or signed is None or not isinstance(signed.record, Receipt):
            continue
        order = known.get(signed.record.order)
        own = order and isinstance(order.record, JobOrder) and order.record.channel == channel.channel.id
        if order and own and order.record.candidates:
            pairs.append((order, signed))
    checked = {one.record.checks for one in known.values() if isinstance(one.record, JobOrder)}
    return sorted(pairs, key=lambda pair: pair[1].id not in checked)


async def _ask(
    desk: Desk,
    address: str,
    request: bytes,
    verdict: Verdict,
    answers: list[tuple[Signed[Verdict], Signed[Mandate]]],
) -> None:
    """One judge's signature, if it comes to the same."""
    try:
        key = peer_key_untrusted(address.rpartition("/")[2])
        with trio.fail_after(ASK_S):
            stream = await desk.network.open(key, VERDICT_PROTOCOL, (address,))
            await stream.send(request)
            reply = await read_reply(stream)
            await stream.close()
        signed = verify_untrusted(Verdict, reply.verdict, signer=key)
        mandate = verify_any_signer_untrusted(Mandate, reply.mandate)
        if ground_id(signed.record) != ground_id(verdict):
            raise RemoteProtocolError(Code.BAD_RECORD, "The judge has signed another verdict than it was asked about.")
    except (FallowError, trio.TooSlowError) as error:
        return _log("a judge did not sign: %s", error)
    answers.append((signed, mandate))


async def read_reply(stream: Stream) -> VerdictReply:
    """What the verifier came to. Raises `Refused` with its reason, `NetworkError`, `RemoteProtocolError`."""
    message = decode_message_untrusted(await stream.receive())
    if isinstance(message, RefuseMessage):
        raise refused(message)
    if not isinstance(message, VerdictReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A verifier answers with a verdict, or refuses.")
    return message


async def _forfeit(desk: Desk, node: Node | None, channel: ChannelState, judged: Judged) -> Forfeited:
    ground = Ground("verdict", ground_id(judged.verdicts[0].record))
    request = GroundRequest(
        judged.channel.envelope,
        judged.order.envelope,
        judged.receipt.envelope,
        0,
        tuple(signed.envelope for signed in judged.verdicts),
        tuple(mandate.envelope for mandate in judged.mandates),
    )
    most_ucr, where = channel.held_ucr(desk.now_ms()), node.addresses if node else ()
    matter = content_hash(ground.id + channel.channel.id)  # one verdict may refute several nodes
    telling = Telling(matter, ground, channel.channel.id, most_ucr, encode_message(request), tuple(where))
    told = await tell(desk, telling)
    return Forfeited(channel.channel.record.payee, told.ucr, len(judged.verdicts), told.arrived)


def _log(message: str, *given: object) -> None:
    logging.getLogger(__name__).info(message, *given)
