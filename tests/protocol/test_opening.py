"""Only the true plaintext opens what was signed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.opening import Opening, decode_opening_untrusted, open_untrusted
from fallow.protocol.orders import JobOrder
from fallow.protocol.prices import Price
from fallow.protocol.receipts import Receipt
from fallow.protocol.work import Input, Parameters, Piece, Work, transcript_next, transcript_start

CLIENT, NODE, H = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32), b"\x07" * 32
WORK = Work(((1, 2, 3),))
INPUT = Input(b"\x03" * 32, H, WORK.encode())
PIECES = tuple(Piece(tokens=(n,), values_micro=(-n,)) for n in range(4))
ORDER: Signed[JobOrder] = sign(
    JobOrder(
        H, "generate", Parameters(4), 1, 3, 4, INPUT.digest, bytes(NODE.verify_key), H,
        Price(H, "generate", 0, 1, 4, 0), H, 9, 0, bytes(16), 1000, 1000, H, 0, 0, (), None, None,
    ),
    CLIENT,
)  # fmt: skip
OPENING = Opening(ORDER.id, INPUT.salt, INPUT.work, tuple(piece.encode() for piece in PIECES))


def receipts(*ends: int) -> list[Signed[Receipt]]:
    """Receipts after so many pieces."""
    transcript, after = transcript_start(INPUT.salt, ORDER.id), [ORDER.id]
    for piece in PIECES:
        transcript = transcript_next(transcript, piece.encode())
        after.append(transcript)
    return [
        sign(Receipt(ORDER.id, n, None, 0, 0, after[end], (), "class", 0, "open"), NODE) for n, end in enumerate(ends)
    ]


@pytest.mark.parametrize("ends", [(), (0,), (4,), (2, 4), (1, 1, 3), (2, 2)])
def test_what_receipts_vouch_for_is_opened(ends: tuple[int, ...]) -> None:
    opened = open_untrusted(OPENING, ORDER, receipts(*ends))
    assert opened.work == WORK
    assert opened.tokens == tuple(range(max(ends, default=0)))
    assert decode_opening_untrusted(OPENING.encode()) == OPENING


@pytest.mark.parametrize(
    "change",
    [
        {"order": H}, {"salt": H}, {"work": Work(((1, 2, 4),)).encode()}, {"pieces": OPENING.pieces[:3]},
        {"pieces": OPENING.pieces[::-1]}, {"pieces": (b"\x00", *OPENING.pieces)},
    ],
)  # fmt: skip
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        open_untrusted(replace(OPENING, **change), ORDER, receipts(2, 4))  # type: ignore[arg-type]
    assert caught.value.code in (Code.INPUT_MISMATCH, Code.BAD_RECORD)


@given(st.binary(max_size=200))
def test_noise_is_no_opening(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_opening_untrusted(noise)
