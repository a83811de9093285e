"""Sealing: the input to a key that exists only inside the worker, each piece of the answer to the client's secret.

HPKE (RFC 9180) base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305; the order's id is bound in on both ways, so
that nothing sealed for one order opens under another.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ...protocol.errors import Code, RemoteProtocolError

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_INPUT = b"fallow/1/input"


def seal_input(hpke_key: bytes, order_id: bytes, plaintext: bytes) -> bytes:
    """`plaintext`, readable only by the worker with the X25519 key `hpke_key`, and only for this order.

    Raises `RemoteProtocolError(stale_worker_key)` if the key is one that nobody can hold.
    """
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(hpke_key), info=_INPUT + order_id)
    except ValueError:
        raise RemoteProtocolError(Code.STALE_WORKER_KEY, "The worker's key is not an X25519 key.") from None


def open_input(private: X25519PrivateKey, order_id: bytes, sealed: bytes) -> bytes:
    """The plaintext. Raises `RemoteProtocolError(input_mismatch)` unless it was sealed to this key and order."""
    try:
        return _SUITE.decrypt(sealed, private, info=_INPUT + order_id)
    except (InvalidTag, ValueError):
        raise RemoteProtocolError(Code.INPUT_MISMATCH, "The input is not sealed to this worker and order.") from None


class PieceSealer:
    """Seals or opens the pieces of one order under the reply secret that the client chose for this order alone."""

    def __init__(self, secret: bytes, order_id: bytes) -> None:
        self._cipher = ChaCha20Poly1305(secret)
        self._order_id = order_id

    def seal(self, index: int, plaintext: bytes) -> bytes:
        """Piece number `index`, sealed. An index is used once: it is the nonce."""
        return self._cipher.encrypt(index.to_bytes(12, "big"), plaintext, self._order_id)

    def open(self, index: int, sealed: bytes) -> bytes:
        """The plaintext of piece number `index`. Raises `RemoteProtocolError(bad_encoding)` if it is anything else."""
        try:
            return self._cipher.decrypt(index.to_bytes(12, "big"), sealed, self._order_id)
        except InvalidTag:
            raise RemoteProtocolError(Code.BAD_ENCODING, f"Piece {index} is not sealed for this order.") from None
