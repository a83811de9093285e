"""One accepted job, from its first piece to its last voucher: the executor's side of `protocol.job`.

Three tasks: one delivers, one listens, one keeps time. Only the delivering one decides what is sent, so that receipts
and pieces keep their order; the listener changes the job's state and wakes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio
from nacl.signing import SigningKey

from ..protocol.bundle import SCORE
from ..protocol.checks import TEACHER_FORCED, Attestation
from ..protocol.envelope import sign, verify_untrusted
from ..protocol.errors import Code, EngineError, RemoteProtocolError
from ..protocol.job import Event, Job, JobState
from ..protocol.limits import YIELD_MS_MAX
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.jobs import (
    AttestationMessage,
    CancelMessage,
    ChunkMessage,
    DeclineMessage,
    FailedMessage,
    HeartbeatMessage,
    ReceiptMessage,
    VoucherMessage,
    YieldMessage,
)
from ..protocol.numerics import narrowed
from ..protocol.payment import Voucher
from ..protocol.receipts import CANCELLED, FINAL, OPEN, YIELDED, Delivery
from .accounts import Account, Accounts
from .engine.answers import Answer
from .engine.messages import EnginePiece
from .network.seam import Stream

GRACE_S = 0.05
"""After a deadline, time for what has already arrived: a loop that was held up hears late, and that is not silence."""


@dataclass(slots=True)
class _Stop:
    """Why a job is to end before its work does."""

    end: str
    reason: str = ""


class Session:
    """One job being delivered. `run` returns when the job has ended; `stop` ends it early."""

    def __init__(
        self, stream: Stream, job: Job, delivery: Delivery, account: Account, accounts: Accounts, key: SigningKey
    ) -> None:
        self.job = job
        self.delivery = delivery
        self._stream = stream
        self._account = account
        self._accounts = accounts
        self._key = key
        self._paid = 0
        self._writing = trio.Lock()
        self._woken = trio.Event()
        self._waiting = trio.CancelScope()
        self._stop: _Stop | None = None
        self._at_disk = False
        """Whether the next message waits for the journal."""
        self._noticed = False
        """Whether the client has been told that the owner is back, or is being told."""

    def stop(self, end: str, reason: str = "") -> None:
        """The job ends now, with a receipt for what was delivered: `yielded` (which beats all) or `cancelled`."""
        if self._stop is None or end == YIELDED:
            self._stop = _Stop(end, reason)
        self._waiting.cancel()
        self._wake()

    @property
    def unpaid_ucr(self) -> int:
        """What was claimed and has no voucher yet."""
        paid = self.delivery.receipts[self._paid - 1].record.amount_ucr if self._paid else 0
        return self.delivery.amount_ucr - paid

    async def send(self, event: Event, message: Message) -> None:
        """The message is on its way, as a legal move of the job."""
        async with self._writing:
            self.job.send(event, now_ms())
            await self._stream.send(encode_message(message))

    async def run(self, answer: Answer, release: Callable[[], None]) -> None:
        """Everything was delivered, receipted and paid for, or the job ended in the way that its state says.

        `release` is called as soon as the worker has nothing more to do for the job. Raises `RemoteProtocolError` or
        `NetworkError` when the client broke the protocol, fell silent or left.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            nursery.start_soon(self._expire)
            nursery.start_soon(self._beat)
            nursery.start_soon(self._notice_at_disk)
            try:
                await self._deliver(answer)
            except EngineError as error:
                await self.send(Event.FAILED, FailedMessage(str(error.code), _for_the_client(error)))
            finally:
                release()
            if not self.job.ended:
                await self._finish()
            nursery.cancel_scope.cancel()

    async def _deliver(self, answer: Answer) -> None:
        """Pieces and receipts went out until the work was complete or the job was stopped."""
        while piece := await self._next(answer):
            if self.delivery.tokens + piece.tokens > self.delivery.order.record.planned_tokens:
                # Only the worker can read what is claimed; price cap and credit were checked for what is planned.
                raise EngineError(Code.INPUT_MISMATCH, "The work is for more tokens than the order plans.")
            self.delivery.add(piece.tokens, piece.values_micro, piece.transcript, piece.ran)
            await self.send(Event.CHUNK, ChunkMessage(piece.index, piece.sealed))
            if piece.end:
                if self.delivery.order.record.entry == SCORE:
                    if self.delivery.tokens != self.delivery.order.record.planned_tokens:
                        raise EngineError(
                            Code.INPUT_MISMATCH, "The work claims other than the tokens that the order plans."
                        )
                    await self._attest(piece)
                return await self._issue(FINAL)
            if self.delivery.window_full:
                await self._issue(OPEN)

    async def _next(self, answer: Answer) -> EnginePiece | None:
        """The next piece, once it may go out; None when the job is stopped."""
        piece = None
        with trio.CancelScope() as self._waiting:
            try:
                while self._stop is None and not self.job.may_deliver():
                    await self._changed()
                if self._stop is None:
                    piece = await anext(answer, None)
            except EngineError:
                # A yield kills the worker under its jobs: that is no failure of theirs.
                if self._stop is None:
                    raise
        return piece

    async def _finish(self) -> None:
        """The final receipt is out and answered, or the client refused to."""
        stop = self._stop
        if self.job.state is not JobState.CLOSING:
            assert stop is not None, "an answer ends with a piece that says so"
            if stop.end == YIELDED:
                with trio.move_on_after(YIELD_MS_MAX / 1000):
                    await self._notice()
                    await self._issue(YIELDED)
                    await self._settled()
                return
            await self._issue(CANCELLED)
        await self._settled()

    async def _settled(self) -> None:
        """The client has answered the final receipt. A yield shortens the wait."""
        while not self.job.ended:
            if self._stop and self._stop.end == YIELDED:
                with trio.move_on_after(YIELD_MS_MAX / 1000):
                    await self._ended()
                return
            await self._changed()

    async def _ended(self) -> None:
        while not self.job.ended:
            await self._changed()

    async def _issue(self, end: str) -> None:
        """The receipt that is due is signed, on disk and sent."""
        before = self.delivery.amount_ucr
        receipt = sign(self.delivery.next_receipt(end), self._key)
        order, added_ucr = self.delivery.order.record, receipt.record.amount_ucr - before
        self._at_disk = True
        self._wake()
        await self._accounts.claim(self._account, order, receipt, added_ucr)
        self._at_disk = False
        self.delivery.issued(receipt)
        await self.send(Event.RECEIPT if end == OPEN else Event.FINAL, ReceiptMessage(receipt.envelope))

    async def _notice(self) -> None:
        """The client knows that the owner is back, unless the job has come to its last receipt by itself; said once."""
        if self._stop is None or self._noticed:
            return
        self._noticed = True
        async with self._writing:
            if self.job.may_send(Event.YIELD):
                self.job.send(Event.YIELD, now_ms())
                await self._stream.send(encode_message(YieldMessage(self._stop.reason)))

    async def _notice_at_disk(self) -> None:
        """The notice does not wait for a receipt that is being written; in any other place, whoever delivers gives it."""
        while not (self._at_disk and self._stop and self._stop.end == YIELDED):
            await self._changed()
        await self._notice()

    async def _attest(self, piece: EnginePiece) -> None:
        order = self.delivery.order
        assert order.record.checks is not None, "serving accepts no score order without a subject"
        attestation = Attestation(
            subject=order.record.checks,
            order=order.id,
            method=TEACHER_FORCED,
            values_micro=piece.values_micro,
            gaps_micro=piece.gaps_micro,
            masses_ppm=piece.masses_ppm,
            numerics_class=narrowed(self.delivery.numerics_class, piece.ran),
        )
        await self.send(Event.ATTESTATION, AttestationMessage(sign(attestation, self._key).envelope))

    async def _listen(self) -> None:
        """Everything that the client sends has its effect, until the job has ended."""
        while not self.job.ended:
            await self._take_untrusted(await self._stream.receive())
            self._wake()

    async def _take_untrusted(self, frame: bytes) -> None:
        if self.job.ended:
            return  # sent before the client knew that the job had failed
        message = decode_message_untrusted(frame)
        match message:
            case HeartbeatMessage():
                self.job.receive(Event.HEARTBEAT, now_ms())
            case VoucherMessage():
                await self._take_voucher_untrusted(message.voucher)
            case CancelMessage():
                self.job.receive(Event.CANCEL, now_ms())
                self.stop(CANCELLED)
            case DeclineMessage():
                self.job.receive(Event.DECLINE, now_ms())
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"A client may not send {message.KIND} during a job.")

    async def _take_voucher_untrusted(self, envelope: bytes) -> None:
        """The voucher answers the oldest unpaid receipt, holds, and is on disk before delivery goes on."""
        voucher = verify_untrusted(Voucher, envelope, signer=self._account.state.channel.record.payer)
        unpaid = self.delivery.receipts[self._paid :]
        if not unpaid or voucher.record.receipt != unpaid[0].id:
            # [REJECT] Any other voucher would lift the bound on unpaid work without paying for it.
            raise RemoteProtocolError(Code.UNPAID, "The voucher does not name the oldest unpaid receipt of this job.")
        await self._accounts.honour(self._account, voucher)
        self._paid += 1
        self.job.receive(Event.VOUCHER if unpaid[0].record.end == OPEN else Event.SETTLE, now_ms())

    async def _expire(self) -> None:
        """Raises `RemoteProtocolError(timed_out)` when a bound of the job has passed."""
        while not self.job.ended:
            await trio.sleep_until(self.job.deadline_ms() / 1000)
            if now_ms() >= self.job.deadline_ms():
                await trio.sleep(GRACE_S)
                self.job.expire(now_ms())

    async def _beat(self) -> None:
        """Says that we are here when nothing else does."""
        while not self.job.ended:
            await trio.sleep_until(self.job.heartbeat_due_ms() / 1000)
            async with self._writing:
                if not self.job.ended and now_ms() >= self.job.heartbeat_due_ms():
                    self.job.send(Event.HEARTBEAT, now_ms())
                    await self._stream.send(encode_message(HeartbeatMessage()))

    def _wake(self) -> None:
        self._woken.set()
        self._woken = trio.Event()

    async def _changed(self) -> None:
        await self._woken.wait()


def _for_the_client(error: EngineError) -> str:
    """What was wrong with the work is the client's to know. What is wrong here names this machine's files and libraries."""
    ours = error.code in (Code.WORKER_FAILED, Code.WORKER_DIED)
    return "The node's worker could not go on; its owner finds the reason in its log." if ours else error.message


def now_ms() -> int:
    """Milliseconds on this machine's monotonic clock."""
    return int(trio.current_time() * 1000)
