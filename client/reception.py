"""What a node sends under one order: each message is verified here, before anyone sees it.

The job's own machine says which message is in place; where a node may sign one record and has signed two, that is found before,
and everybody hears of it. Each `take_...` raises `RemoteProtocolError` for what cannot be, with the code of the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Final

import trio

from ..node.engine.sealing import PieceSealer
from ..protocol.bundle import CALL, GENERATE, SCORE
from ..protocol.checks import Attestation
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.evidence import prove
from ..protocol.job import Event, Job, JobState
from ..protocol.limits import WINDOW_TOKENS
from ..protocol.messages.codec import decode_message_untrusted
from ..protocol.messages.jobs import ReceiptMessage
from ..protocol.numerics import is_within
from ..protocol.opening import Opening
from ..protocol.orders import Accept, JobOrder
from ..protocol.receipts import CANCELLED, FINAL, OPEN, Delivery, Receipt
from ..protocol.work import Input, Piece, decode_piece_untrusted, transcript_next
from .arrays import columns_of
from .nodes import Node
from .ordering import Request

_PARTS: Final = {
    GENERATE: ("tokens", "values_micro"),
    SCORE: ("values_micro", "gaps_micro", "masses_ppm"),
    CALL: ("tensor", "shape"),
}
"""What a piece has, by the order's entry: with anything else, an answer could be too large to be shown to judges."""
FLOAT32_BYTES: Final = 4


@dataclass
class Reception:
    """All that has come from one node under one order."""

    node: Node
    request: Request
    order: Signed[JobOrder]
    input: Input
    sealer: PieceSealer
    delivery: Delivery
    """What it has delivered and signed for, counted."""
    accuse: Callable[[tuple[Signed[Any], Signed[Any]]], None]
    """Called with two records of which it may have signed but one."""
    accept: Signed[Accept] | None = None
    pieces: list[bytes] = field(default_factory=list)
    """Encoded, as they came."""
    _piece: Piece | None = None
    _attestation: Signed[Attestation] | None = None

    def take_accept(self, envelope: bytes, job: Job) -> None:
        """The node has accepted the order, under the mandate that it had shown."""
        accept = verify_untrusted(Accept, envelope, signer=self.node.key)
        self._compare(self.accept, accept)
        job.receive(Event.ACCEPT, now_ms())
        if accept.record.order != self.order.id:
            raise RemoteProtocolError(Code.BAD_RECORD, "The node accepted another order than ours.")
        if accept.record.mandate != self.node.mandate.id:
            raise RemoteProtocolError(Code.BAD_MANDATE, "The node accepted under another mandate than it had shown.")
        self.accept = accept
        self.delivery.numerics_class = accept.record.numerics_class

    def take_piece(self, index: int, sealed: bytes) -> Piece:
        """The next piece, opened: of the form, and no more, than was ordered."""
        encoded = self.sealer.open(index, sealed)
        piece = decode_piece_untrusted(encoded)
        tokens = len(piece.values_micro)
        if any(getattr(piece, each.name) for each in fields(piece) if each.name not in _PARTS[self.request.entry]):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node's piece has what is no part of such an answer.")
        if (tokens == 0) is not (self.request.entry == CALL) or (self.request.entry == CALL and len(self.pieces)):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node delivered an empty piece, or a second result.")
        if index != len(self.pieces) or tokens + self.delivery.tokens > self.request.planned_tokens:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node delivered something out of order, or too much.")
        if self.request.entry == GENERATE and len(piece.tokens) != tokens:
            raise RemoteProtocolError(Code.BAD_RECORD, "The node delivered tokens without their proof values.")
        if self.request.entry == CALL and (
            piece.shape != (self.request.calls, columns_of(self.request.manifest))
            or len(piece.tensor) != FLOAT32_BYTES * prod(piece.shape)
        ):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node's result is not one row for each input.")
        if self.request.entry == GENERATE and self.delivery.window_full:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node went on without the receipt that was due.")
        self.pieces.append(encoded)
        self._piece = piece
        self.delivery.add(tokens, piece.values_micro, transcript_next(self.delivery.transcript, encoded))
        return piece

    def take_attestation(self, envelope: bytes, job: Job) -> Signed[Attestation]:
        """What a checker signs of the result that it has delivered."""
        attestation = verify_untrusted(Attestation, envelope, signer=self.node.key)
        self._compare(self._attestation, attestation)
        job.receive(Event.ATTESTATION, now_ms())
        record, piece = attestation.record, self._piece
        if self._attestation or (record.order, record.subject) != (self.order.id, self.request.checks):
            raise RemoteProtocolError(Code.BAD_RECORD, "The attestation is not about what was to be checked.")
        if not is_within(record.numerics_class, self.delivery.numerics_class) or piece is None:
            raise RemoteProtocolError(Code.BAD_RECORD, "The attestation is of another class than was agreed.")
        found = (record.values_micro, record.gaps_micro, record.masses_ppm)
        if found != (piece.values_micro, piece.gaps_micro, piece.masses_ppm):
            raise RemoteProtocolError(Code.BAD_RECORD, "The attestation says something else than the checker's result.")
        self._attestation = attestation
        return attestation

    def take_receipt(self, envelope: bytes, job: Job) -> Signed[Receipt]:
        """The next receipt, of all that was delivered since the last one."""
        receipt = self._compared_untrusted(envelope)
        if receipt.record.end == OPEN and receipt.record.tokens < WINDOW_TOKENS:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node asks for a voucher before the window is full.")
        if receipt.record.end == CANCELLED and job.state is JobState.RUNNING:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The node counts as cancelled what was not.")
        job.receive(Event.RECEIPT if receipt.record.end == OPEN else Event.FINAL, now_ms())
        self.delivery.received(receipt)
        if receipt.record.end == FINAL:
            self._check_complete()
        return receipt

    def hear_out_untrusted(self, frame: bytes) -> None:
        """What comes after the last voucher changes nothing, unless it contradicts what came before."""
        with suppress(RemoteProtocolError):
            if isinstance(message := decode_message_untrusted(frame), ReceiptMessage):
                self._compared_untrusted(message.receipt)

    def opening(self) -> Opening:
        """What was asked and answered, in plain: it fits the order's digest and the receipts' transcripts."""
        return Opening(self.order.id, self.input.salt, self.input.work, tuple(self.pieces))

    def _compared_untrusted(self, envelope: bytes) -> Signed[Receipt]:
        receipt, known = verify_untrusted(Receipt, envelope, signer=self.node.key), self.delivery.receipts
        if receipt.record.sequence < len(known):
            self._compare(known[receipt.record.sequence], receipt)
        return receipt

    def _compare(self, one: Signed[Any] | None, other: Signed[Any]) -> None:
        """Raises `RemoteProtocolError(contradiction)`, and everybody hears of it, if the node may sign but one of them."""
        if one is not None and prove((one, other)):
            self.accuse((one, other))
            kind = other.record.RECORD
            message = f"Node {self.node.key.hex()[:8]} has signed two of the record {kind} where it may sign one."
            raise RemoteProtocolError(Code.CONTRADICTION, message)

    def _check_complete(self) -> None:
        """A call has its one piece; a check all claimed tokens; a text that ends early must end by itself (`text`)."""
        if self.request.entry == CALL and len(self.pieces) != 1:
            raise RemoteProtocolError(Code.BAD_RECORD, "The node wants its call paid without one result.")
        if self.request.entry == SCORE and not (
            self._attestation and self.delivery.tokens == self.request.planned_tokens
        ):
            raise RemoteProtocolError(Code.BAD_RECORD, "The node checked fewer tokens than it was asked to.")


def now_ms() -> int:
    """Milliseconds on trio's own clock, for a job's durations."""
    return int(trio.current_time() * 1000)
