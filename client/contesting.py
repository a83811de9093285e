"""Bringing a dispute before its judges, or the answer to one, and telling the node what they decided."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    Hearing,
    Kind,
    Plea,
    check_decided,
    contradict,
    decision_id,
    forfeited_ucr_max,
    judges,
    matter_id,
    plea_untrusted,
)
from ..protocol.envelope import Signed, sign, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.grounds import ENOUGH, is_verifier
from ..protocol.identity import Mandate, content_hash, peer_key_untrusted
from ..protocol.messages.assurance import (
    DecidedReply,
    DecidedRequest,
    DecisionReply,
    DisputeRequest,
    DisputesReply,
    DisputesRequest,
    PleaReply,
)
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.refusals import RefuseMessage, refused
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.payment import Channel
from ..protocol.proofs import ProofFile
from ..protocol.receipts import Receipt
from ..protocol.streams import DISPUTE_PROTOCOL
from . import telling
from .desk import Desk
from .telling import Told
from .wallet_tellings import Telling

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
    key: SigningKey,
    now_ms: int,
    *,
    addresses: Sequence[str] = (),
) -> Decided:
    """What enough of the judges drawn have decided, countersigned by each. `key` is the claimant's.

    Where an answer is owed, each judge says first what it has heard of the accused; all of it is then shown to each. No judge
    is asked to decide, and to be paid for it, before enough of them will decide alike: they have heard the same, or the accused
    has signed two answers.

    `verifiers` are addresses by owner; `addresses` are the accused's. Raises `Refused`: `timed_out` while the accused may still
    answer, and whatever else most judges say; `unsatisfiable_assurance` if too few of them can be had, or decide the same.
    """
    drawn = judges(contested.order, contested.channel.record.payout_owner)
    bench = _Bench(network, {owner: verifiers[owner] for owner in sorted(drawn & verifiers.keys())}, dispute, now_ms)
    await bench.ask(bench.addresses, DisputeRequest(dispute.envelope, None, proof, tuple(addresses), None))
    if wanted := bench.wanted:
        pleas = {plea.record: plea.envelope for plea in bench.heard.values() if plea}
        hearing = sign(Hearing(dispute.id, tuple(pleas.values())), key).envelope
        await bench.ask(wanted, DisputeRequest(dispute.envelope, None, b"", (), hearing))
    if pairs := bench.agreed:
        decisions, mandates = zip(*pairs, strict=True)
        decided = Decided(contested.channel, contested.order, contested.receipt, dispute, decisions, mandates)
        check_decided(decided, now_ms)
        return decided
    raise bench.why_not()


@dataclass
class _Bench:
    """The judges drawn that can be asked, by owner, and what each has said so far."""

    network: Network
    addresses: Mapping[bytes, str]
    dispute: Signed[Dispute]
    now_ms: int
    heard: dict[bytes, Signed[Plea] | None] = field(default_factory=dict)
    """What of the accused; None: that it has not answered in time."""
    decided: dict[bytes, tuple[Signed[Decision], Signed[Mandate]]] = field(default_factory=dict)
    refused: dict[bytes, Refused] = field(default_factory=dict)

    @property
    def agreed(self) -> list[tuple[Signed[Decision], Signed[Mandate]]]:
        """What enough of the judges have decided the same; empty while they have not."""
        same: dict[bytes, list[tuple[Signed[Decision], Signed[Mandate]]]] = defaultdict(list)
        for decision, mandate in self.decided.values():
            same[decision_id(decision.record)].append((decision, mandate))
        return next((pairs for pairs in same.values() if len(pairs) >= ENOUGH), [])

    @property
    def wanted(self) -> set[bytes]:
        """Who is to be asked for the decision: those who will decide alike, as they have heard the same, or as the accused has
        signed two answers. Nobody while they are too few, or once enough have decided the same: whoever is left would be paid
        for nothing. It is asked where those have decided otherwise each."""
        if self.agreed:
            return set()
        undecided = self.heard.keys() - self.decided.keys()
        if contradict(plea for plea in self.heard.values() if plea):
            return undecided
        by_answer: dict[Plea | None, set[bytes]] = defaultdict(set)
        for owner, plea in self.heard.items():
            by_answer[plea.record if plea else None].add(owner)
        alike = max(by_answer.values(), key=len, default=set())
        return (alike & undecided or undecided) if len(alike) >= ENOUGH else set()

    async def ask(self, owners: Iterable[bytes], request: DisputeRequest) -> None:
        """Each of these has answered, or could not be had."""
        async with trio.open_nursery() as nursery:
            for owner in sorted(owners):
                nursery.start_soon(self._ask, owner, request)

    async def _ask(self, owner: bytes, request: DisputeRequest) -> None:
        address = self.addresses[owner]
        self.refused.pop(owner, None)
        try:
            key = peer_key_untrusted(address.rpartition("/")[2])
            reply = await exchange(self.network, address, request)
            if not isinstance(reply, PleaReply | DecisionReply):
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A judge says what it has heard, decides, or refuses.")
            plea = plea_untrusted(reply.plea, self.dispute) if reply.plea else None
            if isinstance(reply, DecisionReply):
                self.decided[owner] = self._read_untrusted(owner, key, reply)
            self.heard[owner] = plea
        except Refused as refused:
            self.refused[owner] = refused
        except (FallowError, trio.TooSlowError) as error:
            logging.getLogger(__name__).info("a judge did not decide: %s", error)

    def _read_untrusted(
        self, owner: bytes, key: bytes, reply: DecisionReply
    ) -> tuple[Signed[Decision], Signed[Mandate]]:
        decision = verify_untrusted(Decision, reply.decision, signer=key)
        mandate = verify_any_signer_untrusted(Mandate, reply.mandate)
        if decision.record.dispute != self.dispute.id:
            raise RemoteProtocolError(Code.BAD_RECORD, "The judge has decided something else.")
        if mandate.record.owner != owner or not is_verifier(mandate, key, self.now_ms):
            raise RemoteProtocolError(Code.BAD_MANDATE, "The judge does not show that it is its owner's.")
        return decision, mandate

    def why_not(self) -> Refused:
        """What most of those say who refuse, if enough have said anything."""
        refusals = list(self.refused.values())
        if refusals and len(self.heard.keys() | self.refused.keys()) >= ENOUGH:
            return max(refusals, key=lambda error: sum(error.code == other.code for other in refusals))
        if len(self.heard) >= ENOUGH and not self.decided and not self.wanted:
            message = (
                "One judge has heard the accused, and another has not: it takes the third, which cannot be had now."
            )
            return Refused(Code.UNSATISFIABLE_ASSURANCE, message)
        message = f"{len(self.decided)} of the judges drawn decided, and not enough of them the same."
        return Refused(Code.UNSATISFIABLE_ASSURANCE, message)


async def to_answer(network: Network, address: str, accused: bytes) -> list[Signed[Dispute]]:
    """What a judge has open against the key. Raises `FallowError`."""
    reply = await exchange(network, address, DisputesRequest(accused))
    if not isinstance(reply, DisputesReply):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A judge answers with disputes.")
    return [verify_any_signer_untrusted(Dispute, one) for one in reply.disputes]


async def tell(network: Network, addresses: Sequence[str], decided: Decided) -> bool:
    """Whether the payee has on disk what was decided. Raises `Refused` as the payee does, `NetworkError`."""
    request = encode_message(told_by(decided))
    frame = await network.request(decided.channel.record.payee, DISPUTE_PROTOCOL, request, addresses)
    reply = decode_message_untrusted(frame)
    if isinstance(reply, RefuseMessage):
        raise refused(reply)
    return reply == DecidedReply(decision_id(decided.decisions[0].record), 0)


async def take_off(desk: Desk, addresses: Sequence[str], decided: Decided) -> Told:
    """The payer's part of a decision is done: what it lets it take off what it holds is forfeited, and the node was told, or is
    told again; what the node owes beyond that is set off. The judges are owed their parts, whatever comes of that. Raises
    `StoreError` if the wallet or the ledger cannot be written."""
    dispute, order = decided.dispute.record, decided.order.id
    most_ucr = forfeited_ucr_max(dispute, decided.decisions[0].record)
    await telling.owe_judges(desk, decided)
    request = encode_message(told_by(decided))
    ground, channel = Ground("decision", order), decided.channel.id
    return await telling.tell(desk, Telling(matter_id(dispute), ground, channel, most_ucr, request, tuple(addresses)))


def told_by(decided: Decided) -> DecidedRequest:
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


async def exchange(network: Network, address: str, request: Message) -> Message:
    """A judge's answer. Raises `Refused` with its reason, `NetworkError`, `RemoteProtocolError`, `trio.TooSlowError`."""
    key = peer_key_untrusted(address.rpartition("/")[2])
    with trio.fail_after(JUDGE_S):
        stream = await network.open(key, DISPUTE_PROTOCOL, (address,))
        await stream.send(encode_message(request))
        message = decode_message_untrusted(await stream.receive())
        await stream.close()
    if isinstance(message, RefuseMessage):
        raise refused(message)
    return message
