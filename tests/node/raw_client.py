"""The client's half of a job, on the protocol alone: each step is the test's to make, or to make wrong."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import trio
from nacl.signing import SigningKey

from fallow.node.delivery import now_ms
from fallow.node.engine.sealing import PieceSealer, seal_input
from fallow.node.log import wall_ms
from fallow.node.network.seam import Network, Stream
from fallow.protocol.channel import ChannelState, Party
from fallow.protocol.checks import Attestation
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import Signed, sign, verify_any_signer_untrusted, verify_untrusted
from fallow.protocol.errors import NetworkError
from fallow.protocol.identity import EXECUTOR, Mandate, WorkerKey, check_mandate, cid_hash_untrusted
from fallow.protocol.job import Event, Job, Role
from fallow.protocol.limits import HEARTBEAT_MS
from fallow.protocol.messages.codec import Message, decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import ProfileReply, ProfileRequest
from fallow.protocol.messages.jobs import (
    AcceptMessage,
    AttestationMessage,
    ChunkMessage,
    FailedMessage,
    HeartbeatMessage,
    OrderMessage,
    ReceiptMessage,
    VoucherMessage,
    YieldMessage,
)
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.orders import Accept, JobOrder
from fallow.protocol.payment import LEDGER, Channel
from fallow.protocol.prices import amount_ucr_max, find_price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile
from fallow.protocol.receipts import OPEN, Delivery, Receipt
from fallow.protocol.streams import JOB_PROTOCOL, PROFILE_PROTOCOL
from fallow.protocol.work import (
    Input,
    Parameters,
    Piece,
    Work,
    decode_piece_untrusted,
    transcript_next,
    transcript_start,
)


@dataclass(frozen=True)
class Profile:
    """A node's answer about itself, verified."""

    node: bytes
    reply: ProfileReply
    mandate: Signed[Mandate]
    capability: CapabilityProfile
    connectivity: ConnectivityProfile
    worker_key: Signed[WorkerKey] | None


async def profile_of(network: Network, node: bytes) -> Profile:
    reply = decode_message_untrusted(await network.request(node, PROFILE_PROTOCOL, encode_message(ProfileRequest())))
    assert isinstance(reply, ProfileReply)
    capability = verify_untrusted(CapabilityProfile, reply.capability, signer=node).record
    connectivity = verify_untrusted(ConnectivityProfile, reply.connectivity, signer=node).record
    worker_key = verify_untrusted(WorkerKey, reply.worker_key, signer=node) if reply.worker_key else None
    mandate = verify_any_signer_untrusted(Mandate, reply.mandate)
    check_mandate(mandate, node, EXECUTOR, wall_ms())
    return Profile(node, reply, mandate, capability, connectivity, worker_key)


@dataclass
class Payer:
    """A client's key and its channel to one node."""

    profile: Profile
    limit_ucr: int = 1_000_000
    key: SigningKey = field(default_factory=SigningKey.generate)
    state: ChannelState = field(init=False)

    def __post_init__(self) -> None:
        now = wall_ms()
        payer = bytes(self.key.verify_key)
        channel = Channel(
            payer, self.profile.node, self.profile.mandate.record.owner, LEDGER, self.limit_ucr, os.urandom(16), now,
            now + 3_600_000, 0,
        )  # fmt: skip
        self.state = ChannelState(Party.PAYER, sign(channel, self.key))


@dataclass
class Ask:
    """One order in the making; `order` and `message` take what a test wants otherwise."""

    payer: Payer
    cid: str
    work: Work
    entry: str = "generate"
    max_tokens: int = 8
    checks: bytes | None = None
    salt: bytes = field(default_factory=lambda: os.urandom(32))
    secret: bytes = field(default_factory=lambda: os.urandom(32))

    def order(self, **changes: Any) -> Signed[JobOrder]:
        profile, bundle = self.payer.profile, cid_hash_untrusted(self.cid)
        assert profile.worker_key is not None
        plain = Input(self.salt, self.secret, self.work.encode())
        planned = {"generate": self.max_tokens, "score": self.work.claimed, "call": 0}[self.entry]
        calls = len(self.work.sequences)
        price = find_price(profile.capability.prices, bundle, self.entry)
        order = JobOrder(
            bundle=bundle, entry=self.entry,
            parameters=Parameters(max_tokens=self.max_tokens if self.entry == "generate" else 0),
            calls=calls, input_tokens=self.work.input_tokens, planned_tokens=planned, input_digest=plain.digest,
            executor=profile.node, worker_key=profile.worker_key.id,
            price=price,
            channel=self.payer.state.channel.id,
            amount_ucr_max=amount_ucr_max(price, calls, self.work.input_tokens, planned),
            created_ms=wall_ms(), nonce=os.urandom(16), first_chunk_ms_max=30_000, gap_ms_max=30_000,
            check_commitment=bytes(32), held_ppm=0, hold_ms=0, candidates=(), continues=None, checks=self.checks,
        )  # fmt: skip
        return sign(replace(order, **changes), self.payer.key)

    def message(self, order: Signed[JobOrder], **changes: Any) -> OrderMessage:
        worker_key = self.payer.profile.worker_key
        assert worker_key is not None
        plain = Input(self.salt, self.secret, self.work.encode())
        sealed = seal_input(worker_key.record.hpke_key, order.id, plain.encode())
        latest = self.payer.state.latest.envelope if self.payer.state.latest else None
        message = OrderMessage(order.envelope, self.payer.state.channel.envelope, latest, sealed)
        return replace(message, **changes)


@dataclass
class Conversation:
    """One job with one node. `run` plays the honest client, from order to settlement."""

    ask: Ask
    stream: Stream
    order: Signed[JobOrder]
    job: Job
    delivery: Delivery
    pieces: list[Piece] = field(default_factory=list)
    attestation: Attestation | None = None
    refused: RefuseMessage | None = None
    failed: FailedMessage | None = None
    yielded: YieldMessage | None = None
    _writing: trio.Lock = field(default_factory=trio.Lock)

    @classmethod
    async def begin(
        cls, network: Network, ask: Ask, order: Signed[JobOrder] | None = None, **changes: Any
    ) -> Conversation:
        """The order is on its way."""
        order = order or ask.order()
        price = find_price(ask.payer.profile.capability.prices, cid_hash_untrusted(ask.cid), ask.entry)
        delivery = Delivery(order, price, "", transcript_start(ask.salt, order.id))
        stream = await network.open(ask.payer.profile.node, JOB_PROTOCOL)
        job = Job(Role.CLIENT, order.record.first_chunk_ms_max, order.record.gap_ms_max, now_ms())
        talk = cls(ask, stream, order, job, delivery)
        await talk.send(Event.ORDER, ask.message(order, **changes))
        return talk

    async def send(self, event: Event, message: Message) -> None:
        async with self._writing:
            self.job.send(event, now_ms())
            await self.stream.send(encode_message(message))

    async def beat(self) -> None:
        """We are here, until cancelled."""
        while not self.job.ended:
            await trio.sleep(HEARTBEAT_MS / 1000)
            async with self._writing:
                if not self.job.ended:
                    self.job.send(Event.HEARTBEAT, now_ms())
                    await self.stream.send(encode_message(HeartbeatMessage()))

    async def pay(self, receipt: Signed[Receipt]) -> None:
        """The voucher that answers the receipt is on its way."""
        sequence = receipt.record.sequence
        before = self.delivery.receipts[sequence - 1].record.amount_ucr if sequence else 0
        state, added = self.ask.payer.state, receipt.record.amount_ucr - before
        voucher = sign(state.pay(receipt.id, Claim(added), wall_ms()), self.ask.payer.key)
        state.paid(voucher, Claim(added))
        event = Event.VOUCHER if receipt.record.end == OPEN else Event.SETTLE
        await self.send(event, VoucherMessage(voucher.envelope))

    async def next(self) -> Message:
        """The node's next message other than a heartbeat, verified and taken into account."""
        while True:
            message = decode_message_untrusted(await self.stream.receive())
            self._take(message)
            if not isinstance(message, HeartbeatMessage):
                return message

    async def run(self) -> None:
        """The job has ended, every receipt paid for."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.beat)
            while not self.job.ended:
                if isinstance(await self.next(), ReceiptMessage):
                    await self.pay(self.delivery.receipts[-1])
            nursery.cancel_scope.cancel()
        await self.closed()

    async def closed(self) -> None:
        """The node has ended the stream: everything that we sent has had its effect."""
        with suppress(NetworkError):  # what else it may be, `stream_closed` aside, is the network's own tests' matter
            while True:
                await self.stream.receive()

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for piece in self.pieces for token in piece.tokens)

    def _take(self, message: Message) -> None:
        node, now = self.ask.payer.profile.node, now_ms()
        match message:
            case HeartbeatMessage():
                self.job.receive(Event.HEARTBEAT, now)
            case AcceptMessage():
                self.job.receive(Event.ACCEPT, now)
                accept = verify_untrusted(Accept, message.accept, signer=node).record
                assert accept.order == self.order.id
                self.delivery.numerics_class = accept.numerics_class
            case RefuseMessage():
                self.job.receive(Event.REFUSE, now)
                self.refused = message
            case ChunkMessage():
                self.job.receive(Event.CHUNK, now)
                assert message.index == len(self.pieces)
                plain = PieceSealer(self.ask.secret, self.order.id).open(message.index, message.sealed)
                piece = decode_piece_untrusted(plain)
                self.pieces.append(piece)
                transcript = transcript_next(self.delivery.transcript, plain)
                self.delivery.add(len(piece.values_micro), piece.values_micro, transcript)
            case ReceiptMessage():
                receipt = verify_untrusted(Receipt, message.receipt, signer=node)
                self.job.receive(Event.RECEIPT if receipt.record.end == OPEN else Event.FINAL, now)
                self.delivery.received(receipt)
            case AttestationMessage():
                self.job.receive(Event.ATTESTATION, now)
                self.attestation = verify_untrusted(Attestation, message.attestation, signer=node).record
            case YieldMessage():
                self.job.receive(Event.YIELD, now)
                self.yielded = message
            case FailedMessage():
                self.job.receive(Event.FAILED, now)
                self.failed = message
            case _:
                raise AssertionError(f"a node does not send {message!r}")
