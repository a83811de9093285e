"""One order on one node: sent, followed to its end, paid. Everything received is verified here, before anyone sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from ..node.engine.sealing import PieceSealer
from ..node.machine import chance
from ..node.network.seam import Stream
from ..protocol.bundle import CALL, GENERATE, SCORE
from ..protocol.channel import ChannelState
from ..protocol.checks import Attestation
from ..protocol.claims import Claim, claim_of
from ..protocol.envelope import Signed, sign, verify_untrusted
from ..protocol.errors import Code, FallowError, NetworkError, Refused, RemoteProtocolError
from ..protocol.evidence import prove
from ..protocol.job import Event, Job, JobState, Role
from ..protocol.limits import SILENCE_MS_MAX, WINDOW_TOKENS, YIELD_MS_MAX
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.jobs import (
    AcceptMessage,
    AttestationMessage,
    CancelMessage,
    ChunkMessage,
    DeclineMessage,
    FailedMessage,
    HeartbeatMessage,
    OrderMessage,
    ReceiptMessage,
    VoucherMessage,
    YieldMessage,
)
from ..protocol.messages.refusals import RefuseMessage, code_of
from ..protocol.numerics import is_within
from ..protocol.opening import Opening
from ..protocol.orders import Accept, JobOrder
from ..protocol.payment import Voucher
from ..protocol.prices import amount_ucr_max, find_price
from ..protocol.receipts import CANCELLED, FINAL, OPEN, Delivery, Receipt
from ..protocol.streams import JOB_PROTOCOL
from ..protocol.work import (
    Input,
    Piece,
    decode_piece_untrusted,
    transcript_next,
    transcript_start,
)
from .arrays import columns_of
from .desk import Desk
from .events import Attested, Broken, Delivered, ExecutionEvent, Receipted
from .nodes import Node
from .ordering import Request, order_of
from .wallet_answers import Accepted

CONNECT_S = 4.0
"""To a job stream on a node: a dial and a round trip on a bad link."""
GRACE_S = 0.05
"""After a deadline, time for what has already arrived: a loop that was held up hears late, and that is not silence."""
ORDER_S = 10.0
"""For an order to go out, as long as a node waits for it: 4 MiB at 3.5 Mbit/s."""
LEAVE_S = 1.0
"""For a node to say, by ending the stream, that it has the last voucher: a round trip and a commit."""
EVENTS_SPARE = 64
"""Room for everything but pieces in one execution's events: receipts, a yield, the end."""


@dataclass
class Execution:
    """An order under way. Read `events` to the end; answer each `Receipted` by `pay`, or `refuse_to_pay`."""

    desk: Desk
    node: Node
    request: Request
    order: Signed[JobOrder]
    input: Input
    channel: ChannelState
    stream: Stream
    sealer: PieceSealer
    delivery: Delivery
    job: Job
    events: trio.MemoryReceiveChannel[ExecutionEvent]
    _out: trio.MemorySendChannel[ExecutionEvent]
    accept: Signed[Accept] | None = None
    paid_on_stream: Signed[Voucher] | None = None
    """The last voucher that went out on it."""
    _lock: trio.Lock = field(default_factory=trio.Lock)
    _pieces: list[bytes] = field(default_factory=list)
    """Encoded, as they came."""
    _leaving: str = ""
    _piece: Piece | None = None
    _attestation: Signed[Attestation] | None = None
    _unpaid: list[Signed[Receipt]] = field(default_factory=list)
    """Kept, and not answered."""
    _keeping: bool = False
    """A receipt has come, and is told once it is on disk."""

    def opening(self) -> Opening:
        """What was asked and answered, in plain: it fits the order's digest and the receipts' transcripts."""
        return Opening(self.order.id, self.input.salt, self.input.work, tuple(self._pieces))

    async def pay(self, receipted: Receipted) -> None:
        """The voucher is on disk and sent; if the stream was lost, it is brought to the node on another one."""
        receipt, claim = receipted.receipt, self._claim(receipted)
        voucher = await self.desk.wallet.pay(self.channel, receipt, claim, self.desk.now_ms())
        self._unpaid.remove(receipt)
        event = Event.VOUCHER if receipt.record.end == OPEN else Event.SETTLE
        if await self._send(event, VoucherMessage(voucher.envelope)):
            self.paid_on_stream = voucher
        else:
            self.desk.settler.add(self.node.addresses, self.channel)

    async def stop(self, reason: str) -> None:
        """The executor is asked to stop, or, after its final receipt, told that it is not paid; `reason` says why."""
        if self.job.state is JobState.CLOSING:
            await self._send(Event.DECLINE, DeclineMessage(reason[:200]))
        else:
            await self.cancel(reason)

    async def cancel(self, reason: str) -> None:
        """The executor is asked to stop, for no fault of its own: of a final receipt that is here nothing is said yet."""
        if self.job.state is not JobState.CLOSING:
            await self._send(Event.CANCEL, CancelMessage(reason[:200]))

    async def _pay_the_rest(self) -> None:
        """What was delivered until the executor heard that the client has enough is paid: it was nobody's fault.

        Unless our caller had a receipt and left it unpaid: then that was why it left.
        """
        deadline = trio.current_time() + YIELD_MS_MAX / 1000
        while not self.job.ended:
            event = None
            with trio.move_on_at(deadline):
                event = await self.events.receive()
            if event is None and self._keeping:  # it came in time
                event = await self.events.receive()
            if event is None:
                return
            if isinstance(event, Receipted):
                if self._unpaid[0] is not event.receipt:
                    return
                await self.pay(event)

    async def _begin(self, order: OrderMessage) -> None:
        """The order has gone out, and the job's time counts from here. If the stream is lost, `events` tell why."""
        try:
            with trio.fail_after(ORDER_S):
                await self.stream.send(encode_message(order))
        except trio.TooSlowError:
            self._break(
                NetworkError(Code.TIMED_OUT, f"The order did not reach node {self.node.key.hex()[:8]} in time.")
            )
        except NetworkError as error:
            self._break(error)
        else:
            self.job = Job(Role.CLIENT, *self.request.bounds_ms, _now())
            self.job.send(Event.ORDER, _now())

    async def _send(self, event: Event, message: Message) -> bool:
        """Whether the message is on its way. If it is no longer in place, or the stream is lost, `events` tell why."""
        try:
            async with self._lock:
                if not self.job.may_send(event):
                    return False
                self.job.send(event, _now())
                with trio.fail_after(SILENCE_MS_MAX / 1000):
                    await self.stream.send(encode_message(message))
        except (NetworkError, trio.TooSlowError):
            return False
        return True

    async def _read(self) -> None:
        try:
            while not self.job.ended:
                await self._on_message(decode_message_untrusted(await self.stream.receive()))
        except FallowError as error:
            self._break(error)

    async def _beat(self) -> None:
        while not self.job.ended:
            await trio.sleep_until(self.job.heartbeat_due_ms() / 1000)
            if not self.job.ended and self.job.heartbeat_due_ms() <= _now():
                await self._send(Event.HEARTBEAT, HeartbeatMessage())

    async def _watch(self) -> None:
        while not self.job.ended:
            await trio.sleep_until(self.job.deadline_ms() / 1000)
            if self.job.deadline_ms() > _now():
                continue
            busy = self._keeping
            await trio.sleep(GRACE_S)
            if busy or self._keeping:
                continue  # we have not listened: a disk that is slow is not the node's silence
            try:
                self.job.expire(_now())
            except RemoteProtocolError as error:
                silent = self.job.quiet_ms(_now()) >= SILENCE_MS_MAX
                # It may be the way there that fell silent: nobody has broken a rule.
                self._break(NetworkError(error.code, error.message) if silent else error)

    def _break(self, error: FallowError) -> None:
        if self.job.state not in (JobState.SETTLED, JobState.UNSETTLED):
            self.job.state = JobState.BROKEN
            self._tell(Broken(error))

    def _tell(self, event: ExecutionEvent) -> None:
        try:
            self._out.send_nowait(event)
        except trio.BrokenResourceError:
            pass  # nobody listens any more
        except trio.WouldBlock:
            raise RemoteProtocolError(Code.TOO_LARGE, "The node sent more than its order can bring.") from None

    async def _on_message(self, message: Message) -> None:
        match message:
            case HeartbeatMessage():
                self.job.receive(Event.HEARTBEAT, _now())
            case ChunkMessage(index, sealed):
                self.job.receive(Event.CHUNK, _now())
                self._on_chunk(index, sealed)
            case ReceiptMessage(envelope):
                await self._on_receipt(envelope)
            case AttestationMessage(envelope):
                self._on_attestation(envelope)
            case AcceptMessage(envelope):
                self._on_accept(envelope)
            case YieldMessage(reason):
                self.job.receive(Event.YIELD, _now())
                self._leaving = reason or "the owner needs the machine"
            case RefuseMessage(code, detail, retry_after_ms):
                self.job.receive(Event.REFUSE, _now())
                if code_of(code) is Code.CREDIT_EXHAUSTED:
                    await self.desk.wallet.leave(self.channel)
                raise Refused(code_of(code), f"Node {self.node.key.hex()[:8]} refused: {detail}", retry_after_ms)
            case FailedMessage(code, detail):
                self.job.receive(Event.FAILED, _now())
                raise Refused(code_of(code), f"Node {self.node.key.hex()[:8]} gave up: {detail}")
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"An executor does not send a {message.KIND}.")

    def _on_accept(self, envelope: bytes) -> None:
        accept = verify_untrusted(Accept, envelope, signer=self.node.key)
        self._compare(self.accept, accept)
        self.job.receive(Event.ACCEPT, _now())
        if accept.record.order != self.order.id:
            raise RemoteProtocolError(Code.BAD_RECORD, "The node accepted another order than ours.")
        if accept.record.mandate != self.node.mandate.id:
            raise RemoteProtocolError(Code.BAD_MANDATE, "The node accepted under another mandate than it had shown.")
        self.accept = accept
        self.delivery.numerics_class = accept.record.numerics_class

    def _on_chunk(self, index: int, sealed: bytes) -> None:
        encoded = self.sealer.open(index, sealed)
        piece = decode_piece_untrusted(encoded)
        tokens = len(piece.values_micro)
        if (tokens == 0) is not (self.request.entry == CALL) or (self.request.entry == CALL and len(self._pieces)):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node delivered an empty piece, or a second result.")
        if index != len(self._pieces) or tokens + self.delivery.tokens > self.request.planned_tokens:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node delivered something out of order, or too much.")
        if self.request.entry == GENERATE and len(piece.tokens) != tokens:
            raise RemoteProtocolError(Code.BAD_RECORD, "The node delivered tokens without their proof values.")
        if self.request.entry == CALL and piece.shape != (self.request.calls, columns_of(self.request.manifest)):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node's result is not one row for each input.")
        if self.request.entry == GENERATE and self.delivery.window_full:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node went on without the receipt that was due.")
        self._pieces.append(encoded)
        self._piece = piece
        self.delivery.add(tokens, piece.values_micro, transcript_next(self.delivery.transcript, encoded))
        self._tell(Delivered(piece))

    def _on_attestation(self, envelope: bytes) -> None:
        attestation = verify_untrusted(Attestation, envelope, signer=self.node.key)
        self._compare(self._attestation, attestation)
        self.job.receive(Event.ATTESTATION, _now())
        record, piece = attestation.record, self._piece
        if self._attestation or (record.order, record.subject) != (self.order.id, self.request.checks):
            raise RemoteProtocolError(Code.BAD_RECORD, "The attestation is not about what was to be checked.")
        if not is_within(record.numerics_class, self.delivery.numerics_class) or piece is None:
            raise RemoteProtocolError(Code.BAD_RECORD, "The attestation is of another class than was agreed.")
        found = (record.values_micro, record.gaps_micro, record.masses_ppm)
        if found != (piece.values_micro, piece.gaps_micro, piece.masses_ppm):
            raise RemoteProtocolError(Code.BAD_RECORD, "The attestation says something else than the checker's result.")
        self._attestation = attestation
        self._tell(Attested(attestation))

    async def _on_receipt(self, envelope: bytes) -> None:
        receipt = self._compared_untrusted(envelope)
        if receipt.record.end == OPEN and receipt.record.tokens < WINDOW_TOKENS:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node asks for a voucher before the window is full.")
        if receipt.record.end == CANCELLED and self.job.state is JobState.RUNNING:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node counts as cancelled what was not.")
        self.job.receive(Event.RECEIPT if receipt.record.end == OPEN else Event.FINAL, _now())
        before = self.delivery.amount_ucr
        self.delivery.received(receipt)
        if receipt.record.end == FINAL:
            self._check_complete()
        told = Receipted(receipt, receipt.record.amount_ucr - before, self._leaving, self.desk.now_ms())
        self._keeping = True
        try:
            await self.desk.wallet.keep_receipt(receipt, self.node.owner, self.channel, self._claim(told))
        finally:
            self._keeping = False
        self._unpaid.append(receipt)
        self._tell(told)

    def _compared_untrusted(self, envelope: bytes) -> Signed[Receipt]:
        receipt, known = verify_untrusted(Receipt, envelope, signer=self.node.key), self.delivery.receipts
        if receipt.record.sequence < len(known):
            self._compare(known[receipt.record.sequence], receipt)
        return receipt

    def _compare(self, one: Signed[Any] | None, other: Signed[Any]) -> None:
        """Raises `RemoteProtocolError(contradiction)`, and everybody hears of it, if the node may sign but one of them."""
        if one is not None and prove((one, other)):
            self.desk.accuse((one, other))
            kind = other.record.RECORD
            message = f"Node {self.node.key.hex()[:8]} has signed two of the record {kind} where it may sign one."
            raise RemoteProtocolError(Code.CONTRADICTION, message)

    def hear_out_untrusted(self, frame: bytes) -> None:
        """What comes after the last voucher changes nothing, unless it contradicts what came before."""
        with suppress(RemoteProtocolError):
            if isinstance(message := decode_message_untrusted(frame), ReceiptMessage):
                self._compared_untrusted(message.receipt)

    def _claim(self, receipted: Receipted) -> Claim:
        order = self.order.record
        return claim_of(receipted.added_ucr, order.held_ppm, order.hold_ms, receipted.arrived_ms)

    def _check_complete(self) -> None:
        """A call has its one piece; a check all claimed tokens; a text that ends early must end by itself (`text`)."""
        if self.request.entry == CALL and len(self._pieces) != 1:
            raise RemoteProtocolError(Code.BAD_RECORD, "The node wants its call paid without one result.")
        if self.request.entry == SCORE and not (
            self._attestation and self.delivery.tokens == self.request.planned_tokens
        ):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node checked fewer tokens than it was asked to.")


@asynccontextmanager
async def execute(desk: Desk, node: Node, request: Request) -> AsyncIterator[Execution]:
    """The order is on its way; its events follow. Leaving the block ends it: cancelled at the node if it still runs.

    Raises `Refused` if the channel's credit does not cover it, `NetworkError` if the node cannot be reached.
    """
    price = find_price(node.capability.prices, request.bundle, request.entry)
    needed = amount_ucr_max(price, request.calls, request.work.input_tokens, request.planned_tokens)
    channel = await desk.wallet.channel(node.key, node.owner, needed, desk.now_ms())
    work = Input(chance().randbytes(32), chance().randbytes(32), request.work.encode())
    order = sign(order_of(desk, node, request, channel, work.digest), desk.key)
    assert node.worker_key is not None
    sealed = desk.seal(node.worker_key.record.hpke_key, order.id, work.encode())
    stream = await _open(desk, node)
    out, events = trio.open_memory_channel[ExecutionEvent](request.planned_tokens + EVENTS_SPARE)
    execution = Execution(
        desk,
        node,
        request,
        order,
        work,
        channel,
        stream,
        PieceSealer(work.reply_secret, order.id),
        Delivery(order, price, "", transcript_start(work.salt, order.id)),
        Job(Role.CLIENT, *request.bounds_ms, _now()),
        events,
        out,
    )
    latest = channel.latest.envelope if channel.latest else None
    first = OrderMessage(order.envelope, channel.channel.envelope, latest, sealed)
    failure: FallowError | None = None
    try:
        async with trio.open_nursery() as nursery:
            await execution._begin(first)
            nursery.start_soon(execution._read)
            nursery.start_soon(execution._beat)
            nursery.start_soon(execution._watch)
            try:
                yield execution
            except FallowError as error:
                failure = error  # raised below, so that the nursery does not wrap it
            if not execution.job.ended:
                leave = execution.cancel if execution._keeping and failure is None else execution.stop
                await leave("the client has left")
                if failure is None:
                    await execution._pay_the_rest()
            # A heartbeat cut off half-way would reset the stream, and a voucher under way with it.
            # Free again afterwards: a window may be judged, and paid, when we have left.
            with trio.move_on_after(SILENCE_MS_MAX / 1000):
                async with execution._lock:
                    nursery.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        # Whoever is cut off has decided nothing: what is unpaid then, the next process pays.
        await desk.wallet.refuse(execution._unpaid)
        if failure:
            raise failure
    finally:
        if execution._lock.statistics().owner is trio.lowlevel.current_task():
            execution._lock.release()  # a receipt that is judged later is paid later
        confirmed = False
        with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_S):
            confirmed = await _leave(execution)
        # Whoever cannot answer before them has lost, and that its caller has gone is no answer.
        if order.record.candidates:
            with trio.CancelScope(shield=True):  # as long as a commit takes
                accepted = Accepted(execution.accept, node.mandate) if execution.accept else None
                await desk.wallet.keep_answer(order, execution.opening(), request.opens, desk.now_ms(), accepted)
        if (voucher := execution.paid_on_stream) and confirmed:
            desk.wallet.confirmed(channel.channel.id, voucher.id)
        elif voucher:
            desk.settler.add(node.addresses, channel)
        if execution.job.state is JobState.SETTLED:
            desk.book.worked(node.key, well=True)


async def _leave(execution: Execution) -> bool:
    """The stream has ended; true if the node has every voucher that was sent on it.

    A node that was paid to the end closes the stream once the last voucher is on its disk. What was sent on a stream
    that broke, or to a node whose connection is gone, may have got lost in any buffer between.
    """
    settled = execution.job.state is JobState.SETTLED
    with suppress(NetworkError):
        while settled:
            execution.hear_out_untrusted(await execution.stream.receive())
    with suppress(NetworkError):
        await (execution.stream.close() if settled else execution.stream.reset())
    return settled and execution.node.key in execution.desk.network.peers()


async def _open(desk: Desk, node: Node) -> Stream:
    try:
        with trio.fail_after(CONNECT_S):
            return await desk.network.open(node.key, JOB_PROTOCOL, node.addresses, watched=True)
    except trio.TooSlowError:
        raise NetworkError(Code.PEER_UNREACHABLE, f"Node {node.key.hex()[:8]} did not answer in time.") from None


def way_broke(error: FallowError) -> bool:
    """Whether the way to the node may be what failed, a relay on it say: the node may be reached by another one."""
    return isinstance(error, NetworkError) and error.code in _OF_THE_WAY


_OF_THE_WAY = frozenset({Code.STREAM_CLOSED, Code.PEER_UNREACHABLE, Code.TIMED_OUT, Code.RELAY_REFUSED})


def _now() -> int:
    """Milliseconds on trio's own clock, for the job's durations."""
    return int(trio.current_time() * 1000)
