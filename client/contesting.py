"""Bringing a dispute before its judges, or the answer to one, and telling the node what they decided."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio
from nacl.signing import SigningKey

from ..node.network.seam import Network
from ..protocol.channel import Ground
from ..protocol.disputes import (
    ANSWERS,
    BY_PAYER,
    Decided,
    Decision,
    Dispute,
    Kind,
    Plea,
    check_decided,
    decision_id,
    forfeited_ucr_max,
    judges,
    matter_id,
)
from ..protocol.envelope import Signed, claimed_signer_untrusted, sign, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.grounds import ENOUGH, is_verifier
from ..protocol.identity import Mandate, content_hash, peer_key_untrusted
from ..protocol.messages import (
    DISPUTE_PROTOCOL,
    DecidedReply,
    DecidedRequest,
    DecisionReply,
    DisputeRequest,
    DisputesReply,
    DisputesRequest,
    Message,
    RefuseMessage,
    decode_message_untrusted,
    encode_message,
)
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel
from ..protocol.proofs import ProofFile
from ..protocol.receipts import Receipt
from . import telling
from .execution import Desk
from .telling import Told
from .wallet import Telling

JUDGE_S: Final = 60.0
"""For a judge's answer: it runs the work again, beside whatever else it does."""


@dataclass(frozen=True, slots=True)
class Contested:
    """One order of which the two sides do not agree."""

    channel: Signed[Channel]
    order: Signed[JobOrder]
    receipt: Signed[Receipt]


def shown(records: Sequence[Signed[Any]], openings: Sequence[Opening] = ()) -> bytes:
    """What one side shows, as its signature names it."""
    return ProofFile(tuple(one.envelope for one in records), tuple(one.encode() for one in openings)).encode()


def claim(
    kind: Kind, contested: Contested, proof: bytes, key: SigningKey, now_ms: int, *, fee_ucr: int, answer_ms: int
) -> Signed[Dispute]:
    """The claim of one side of the order against the other."""
    order = contested.order
    accused = order.record.executor if kind in BY_PAYER else order.signer
    record = Dispute(
        str(kind), accused, order.id, contested.receipt.id, fee_ucr, answer_ms, now_ms, content_hash(proof)
    )
    return sign(record, key)


def answer(
    dispute: bytes, proof: bytes, key: SigningKey, *, nonce: bytes | None = None, policy: str | None = None
) -> Signed[Plea]:
    """The payer's answer, which shows this, and opens how the work was to be checked."""
    return sign(Plea(dispute, ANSWERS, content_hash(proof), nonce, policy), key)


async def bring(
    network: Network,
    verifiers: Mapping[bytes, str],
    contested: Contested,
    dispute: Signed[Dispute],
    proof: bytes,
    now_ms: int,
    *,
    plea: Signed[Plea] | None = None,
    addresses: Sequence[str] = (),
) -> Decided:
    """What enough of the judges drawn have decided, countersigned by each. The accused brings its plea the same way.

    `verifiers` are addresses by owner; `addresses` are the accused's. Raises `Refused`: `timed_out` while the accused may still
    answer, and whatever else most judges say; `unsatisfiable_assurance` if too few of them can be had, or decide the same.
    """
    drawn = judges(contested.order, contested.channel.record.payout_owner)
    request = DisputeRequest(dispute.envelope, plea.envelope if plea else None, proof, tuple(addresses))
    answers: list[tuple[Signed[Decision], Signed[Mandate]]] = []
    refusals: list[Refused] = []
    async with trio.open_nursery() as nursery:
        for owner in drawn & verifiers.keys():
            nursery.start_soon(_ask, network, owner, verifiers[owner], request, dispute, now_ms, answers, refusals)
    alike: dict[bytes, list[tuple[Signed[Decision], Signed[Mandate]]]] = defaultdict(list)
    for decision, mandate in answers:
        alike[decision_id(decision.record)].append((decision, mandate))
    for pairs in alike.values():
        if len(pairs) >= ENOUGH:
            decisions, mandates = zip(*pairs, strict=True)
            decided = Decided(contested.channel, contested.order, contested.receipt, dispute, decisions, mandates)
            check_decided(decided, now_ms)
            return decided
    if refusals and len(answers) + len(refusals) >= ENOUGH:
        raise max(refusals, key=lambda error: sum(error.code == other.code for other in refusals))
    message = f"{len(answers)} of the {len(drawn)} judges drawn decided, and not enough of them the same."
    raise Refused(Code.UNSATISFIABLE_ASSURANCE, message)


async def to_answer(network: Network, address: str, accused: bytes) -> list[Signed[Dispute]]:
    """What a judge has open against the key. Raises `FallowError`."""
    reply = await exchange(network, address, DisputesRequest(accused))
    if not isinstance(reply, DisputesReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A judge answers with disputes.")
    return [verify_untrusted(Dispute, one, signer=claimed_signer_untrusted(one)) for one in reply.disputes]


async def tell(network: Network, addresses: Sequence[str], decided: Decided) -> bool:
    """Whether the payee has on disk what was decided. Raises `NetworkError`."""
    request = encode_message(_told_by(decided))
    frame = await network.request(decided.channel.record.payee, DISPUTE_PROTOCOL, request, addresses)
    return decode_message_untrusted(frame) == DecidedReply(decision_id(decided.decisions[0].record), 0)


async def take_off(desk: Desk, addresses: Sequence[str], decided: Decided) -> Told:
    """The payer's part of a decision is done: what it lets it take off what it holds is forfeited, and the node was told, or is
    told again; what the node owes beyond that is set off."""
    dispute, order = decided.dispute.record, decided.order.id
    most_ucr = forfeited_ucr_max(dispute, decided.decisions[0].record)
    request = encode_message(_told_by(decided))
    ground, channel = Ground("decision", order), decided.channel.id
    return await telling.tell(desk, Telling(matter_id(dispute), ground, channel, most_ucr, request, tuple(addresses)))


def _told_by(decided: Decided) -> DecidedRequest:
    """The message that tells it, with nothing taken off."""
    return DecidedRequest(
        decided.channel.envelope,
        decided.order.envelope,
        decided.receipt.envelope,
        decided.dispute.envelope,
        0,
        tuple(one.envelope for one in decided.decisions),
        tuple(one.envelope for one in decided.mandates),
    )


async def _ask(
    network: Network,
    owner: bytes,
    address: str,
    request: DisputeRequest,
    dispute: Signed[Dispute],
    now_ms: int,
    answers: list[tuple[Signed[Decision], Signed[Mandate]]],
    refusals: list[Refused],
) -> None:
    try:
        key = peer_key_untrusted(address.rpartition("/")[2])
        reply = await exchange(network, address, request)
        if not isinstance(reply, DecisionReply):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A judge answers with a decision, or refuses.")
        decision = verify_untrusted(Decision, reply.decision, signer=key)
        mandate = verify_untrusted(Mandate, reply.mandate, signer=claimed_signer_untrusted(reply.mandate))
        if decision.record.dispute != dispute.id:
            raise RemoteProtocolError(Code.BAD_RECORD, "The judge has decided something else.")
        if mandate.record.owner != owner or not is_verifier(mandate, key, now_ms):
            raise RemoteProtocolError(Code.BAD_MANDATE, "The judge does not show that it is its owner's.")
        answers.append((decision, mandate))
    except Refused as refused:
        refusals.append(refused)
    except (FallowError, trio.TooSlowError) as error:
        logging.getLogger(__name__).info("a judge did not decide: %s", error)


async def exchange(network: Network, address: str, request: Message) -> Message:
    """A judge's answer. Raises `Refused` with its reason, `NetworkError`, `RemoteProtocolError`, `trio.TooSlowError`."""
    key = peer_key_untrusted(address.rpartition("/")[2])
    with trio.fail_after(JUDGE_S):
        stream = await network.open(key, DISPUTE_PROTOCOL, (address,))
        await stream.send(encode_message(request))
        message = decode_message_untrusted(await stream.receive())
        await stream.close()
    if isinstance(message, RefuseMessage):
        code = Code(message.code) if message.code in Code.__members__.values() else Code.BAD_RECORD
        raise Refused(code, message.detail, message.retry_after_ms)
    return message
