"""What is sealed opens with the right key under the right order, and not otherwise."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fallow.node.engine.sealing import PieceSealer, open_input, seal_input
from fallow.protocol.errors import Code, RemoteProtocolError

ORDER, OTHER = b"o" * 32, b"p" * 32


@pytest.mark.spec("J-16")
def test_input_opens_for_its_key_and_order_only() -> None:
    private, stranger = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    sealed = seal_input(private.public_key().public_bytes_raw(), ORDER, b"secret")
    assert open_input(private, ORDER, sealed) == b"secret"
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for key, order, attempt in (
        (stranger, ORDER, sealed),
        (private, OTHER, sealed),
        (private, ORDER, altered),
        (private, ORDER, sealed[:20]),
        (private, ORDER, b""),
        (private, ORDER, bytes(80)),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            open_input(key, order, attempt)
        assert caught.value.code == Code.INPUT_MISMATCH


@pytest.mark.spec("J-15")
@pytest.mark.parametrize("key", [b"", bytes(32), b"\1" + bytes(31)], ids=["empty", "zero", "low order"])
def test_nothing_is_sealed_to_a_key_that_nobody_holds(key: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        seal_input(key, ORDER, b"secret")
    assert caught.value.code == Code.STALE_WORKER_KEY


@pytest.mark.spec("J-18")
def test_pieces_open_at_their_index_under_their_order_only() -> None:
    sealer = PieceSealer(b"s" * 32, ORDER)
    sealed = sealer.seal(3, b"piece")
    assert PieceSealer(b"s" * 32, ORDER).open(3, sealed) == b"piece"
    for wrong, index in (
        (sealer, 2),
        (PieceSealer(b"s" * 32, OTHER), 3),
        (PieceSealer(b"t" * 32, ORDER), 3),
    ):
        with pytest.raises(RemoteProtocolError):
            wrong.open(index, sealed)
