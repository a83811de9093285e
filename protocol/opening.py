"""Showing what was asked and answered under one order, so that somebody else can check it: no signature is needed, since
only the true plaintext fits the digests that were signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from .codec import encode
from .envelope import Signed
from .errors import Code, RemoteProtocolError
from .identity import salted_digest
from .limits import MESSAGE_BYTES_MAX, OUTPUT_TOKENS_MAX
from .orders import JobOrder
from .reading import read_untrusted
from .receipts import Receipt
from .schema import Hash, Key, Size, to_map
from .work import Piece, Work, decode_piece_untrusted, decode_work_untrusted, transcript_next, transcript_start


@dataclass(frozen=True, slots=True)
class Opening:
    """The plaintext of one order: what was given, and the pieces that came."""

    order: Hash
    """Id of the order."""
    salt: Key
    """Of the order's input digest and of its transcript."""
    work: Annotated[bytes, Size(1, MESSAGE_BYTES_MAX)]
    """What was asked: a `Work`, encoded."""
    pieces: Annotated[tuple[Annotated[bytes, Size(1, MESSAGE_BYTES_MAX)], ...], Size(0, OUTPUT_TOKENS_MAX)]
    """Encoded pieces, in their order."""

    def encode(self) -> bytes:
        """The bytes that are passed on."""
        return encode(to_map(self))


@dataclass(frozen=True, slots=True)
class Opened:
    """An opening that was found to fit its order and receipts."""

    work: Work
    pieces: tuple[Piece, ...]
    """As far as receipts vouch for them."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Every token of the answer."""
        return tuple(token for piece in self.pieces for token in piece.tokens)


def decode_opening_untrusted(encoded: bytes) -> Opening:
    """Raises `RemoteProtocolError` unless `encoded` is an `Opening`."""
    return read_untrusted(Opening, encoded, bytes_max=2 * MESSAGE_BYTES_MAX)


def asked_untrusted(opening: Opening, order: Signed[JobOrder]) -> Work:
    """What was asked, whatever came of it. Raises `RemoteProtocolError` unless it fits the order's digest."""
    if opening.order != order.id or salted_digest(opening.salt, opening.work) != order.record.input_digest:
        raise RemoteProtocolError(Code.INPUT_MISMATCH, "The opening is not of this order's input.")
    return decode_work_untrusted(opening.work)


def open_untrusted(opening: Opening, order: Signed[JobOrder], receipts: Sequence[Signed[Receipt]]) -> Opened:
    """What was asked and answered. Raises `RemoteProtocolError` unless it fits the order's digest and every receipt's
    transcript; pieces after the last receipt, for which nobody signed, are left out."""
    work = asked_untrusted(opening, order)
    pieces: list[Piece] = []
    transcript = transcript_start(opening.salt, order.id)
    vouched = 0
    wanted = [signed.record.transcript for signed in receipts if signed.record.transcript != order.id]
    for encoded in opening.pieces:
        pieces.append(decode_piece_untrusted(encoded))
        transcript = transcript_next(transcript, encoded)
        while wanted and transcript == wanted[0]:
            del wanted[0]
            vouched = len(pieces)
    if wanted:
        raise RemoteProtocolError(Code.INPUT_MISMATCH, "The opened pieces are not those that a receipt vouches for.")
    return Opened(work, tuple(pieces[:vouched]))
