"""The judges drawn for a refuted receipt are asked whether they come to the same verdict: each runs the work again.

The plaintext goes to them alone, whom payer and payee agreed on before the work. Who accuses falsely gets no signature, and has
paid the checks on which the accusation rests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ..node.network.seam import Stream
from ..protocol.channel import ChannelState
from ..protocol.checks import Finding, Verdict
from ..protocol.envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.grounds import ENOUGH, Judged, check_judged, committee, ground_id
from ..protocol.identity import Mandate, peer_key_untrusted
from ..protocol.messages.assurance import VerdictReply
from ..protocol.messages.codec import decode_message_untrusted
from ..protocol.messages.refusals import RefuseMessage, refused
from ..protocol.orders import JobOrder
from ..protocol.receipts import Receipt
from ..protocol.streams import VERDICT_PROTOCOL
from .desk import Desk

TRIED_MAX: Final = 3
"""Receipts of one verdict for which judges are sought: others are drawn for each, and one is enough."""
ASK_S: Final = 60.0
"""For a judge's answer: it runs the work again, beside whatever else it does."""
LEAVE_S: Final = 1.0
"""To tell a judge that it is not heard any more."""

Refuted = Sequence[tuple[Signed[JobOrder], Signed[Receipt]]]
"""Receipts that may be judged, each with its order."""


_FINAL: Final = frozenset(
    {Code.REJECTED, Code.INPUT_MISMATCH, Code.UNSATISFIABLE_ASSURANCE, Code.BAD_RECORD, Code.BAD_SIGNATURE}
)
"""What a judge says who comes to something else, and would again. Whatever else one says, another time it may sign."""


@dataclass
class _Heard:
    """What the judges of one receipt have said."""

    verdicts: list[Signed[Verdict]] = field(default_factory=list)
    mandates: list[Signed[Mandate]] = field(default_factory=list)
    away: int = 0
    """Those that could not be had, or could not do it: they may sign another time."""


async def ask_judges(
    desk: Desk,
    verifiers: Mapping[bytes, str],
    verdict: Verdict,
    request: bytes,
    channel: ChannelState,
    refuted: Refuted,
) -> tuple[Judged | None, bool]:
    """The first of the receipts for which enough of the judges drawn have signed the verdict, None if there is none; and then,
    whether there may be one another time. `verifiers` says where each owner's can be asked."""
    later = False
    for order, receipt in refuted[:TRIED_MAX]:
        try:
            drawn = committee(verdict, order, receipt.id, channel.channel.record.payout_owner)
        except Refused as refused:  # the node had agreed to fewer than make a committee
            _log("nobody can judge a receipt: %s", refused)
            continue
        heard = _Heard(away=len(drawn - verifiers.keys()))
        async with trio.open_nursery() as nursery:
            for owner in sorted(drawn & verifiers.keys()):
                nursery.start_soon(_ask, desk, verifiers[owner], request, verdict, heard)
        judged = Judged(channel.channel, order, receipt, tuple(heard.verdicts), tuple(heard.mandates))
        if len(heard.verdicts) >= ENOUGH:
            try:
                check_judged(judged, desk.now_ms())
            except FallowError as error:
                _log("the judges' word does not hold: %s", error)
                later |= heard.away > 0
                continue
            return judged, False
        _log("%d of the judges drawn came to the same, %d could not be had", len(heard.verdicts), heard.away)
        later |= len(heard.verdicts) + heard.away >= ENOUGH
    return None, later


def refuted_by(finding: Finding, channel: ChannelState, records: Iterable[Signed[Any]]) -> Refuted:
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


async def _ask(desk: Desk, address: str, request: bytes, verdict: Verdict, heard: _Heard) -> None:
    """One judge's signature, if it comes to the same."""
    try:
        key = peer_key_untrusted(address.rpartition("/")[2])
        with trio.fail_after(ASK_S):
            stream = await desk.network.open(key, VERDICT_PROTOCOL, (address,))
            try:
                await stream.send(request)
                reply = await read_reply(stream)
            finally:  # it has said all that it has to say, or is not heard any more
                with trio.move_on_after(LEAVE_S, shield=True):
                    await stream.reset()
        signed = verify_untrusted(Verdict, reply.verdict, signer=key)
        mandate = verify_any_signer_untrusted(Mandate, reply.mandate)
        if ground_id(signed.record) != ground_id(verdict):
            raise RemoteProtocolError(Code.BAD_RECORD, "The judge has signed another verdict than it was asked about.")
    except (FallowError, trio.TooSlowError) as error:
        heard.away += not (isinstance(error, FallowError) and error.code in _FINAL)
        return _log("a judge did not sign: %s", error)
    heard.verdicts.append(signed)
    heard.mandates.append(mandate)


async def read_reply(stream: Stream) -> VerdictReply:
    """What the verifier came to. Raises `Refused` with its reason, `NetworkError`, `RemoteProtocolError`."""
    message = decode_message_untrusted(await stream.receive())
    if isinstance(message, RefuseMessage):
        raise refused(message)
    if not isinstance(message, VerdictReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A verifier answers with a verdict, or refuses.")
    return message


def _log(message: str, *given: object) -> None:
    logging.getLogger(__name__).info(message, *given)
