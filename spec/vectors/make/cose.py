"""Keys, hashes and COSE_Sign1 (RFC 9052), put together by hand: only the primitives come from libraries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha512
from typing import Any

from blake3 import blake3
from nacl import bindings
from nacl.signing import SigningKey

from .cbor import encode


def hashed(*parts: bytes) -> bytes:
    """BLAKE3 over the parts, one after the other."""
    return blake3(b"".join(parts)).digest()


@dataclass(frozen=True)
class Envelope:
    """A signed record with everything that stands between its fields and its id."""

    signer: bytes
    payload: bytes
    protected: bytes
    sig_structure: bytes
    signature: bytes

    @cached_property
    def whole(self) -> bytes:
        """The envelope as it travels."""
        return sign1(self.protected, {}, self.payload, self.signature)

    @cached_property
    def id(self) -> bytes:
        return hashed(self.whole)


@dataclass(frozen=True)
class Signer:
    """Somebody with a key."""

    number: int
    """The seed is this byte, 32 times."""

    @property
    def seed(self) -> bytes:
        return bytes([self.number]) * 32

    @cached_property
    def key(self) -> bytes:
        return bytes(SigningKey(self.seed).verify_key)

    def sign(self, record: str, fields: dict[str, Any]) -> Envelope:
        """The record, signed under its own name."""
        return self.sign_payload(record, encode(fields))

    def sign_payload(self, record: str, payload: bytes, protected: bytes | None = None) -> Envelope:
        """Any bytes, signed as this record."""
        protected = encode({1: -19, 4: self.key}) if protected is None else protected
        sig_structure = encode(["Signature1", protected, f"fallow/1/{record}".encode(), payload])
        return Envelope(self.key, payload, protected, sig_structure, self.sign_bytes(sig_structure))

    def sign_again(self, record: str, payload: bytes) -> Envelope:
        """The same bytes as `sign_payload` signs, with another signature, which holds as well."""
        protected = encode({1: -19, 4: self.key})
        sig_structure = encode(["Signature1", protected, f"fallow/1/{record}".encode(), payload])
        return Envelope(self.key, payload, protected, sig_structure, self._sign_otherwise(sig_structure))

    def sign_bytes(self, message: bytes) -> bytes:
        return SigningKey(self.seed).sign(message).signature

    def _sign_otherwise(self, message: bytes) -> bytes:
        """A signature (RFC 8032, 5.1.6) whose nonce is not the one that the key prescribes: no verifier can tell."""
        reduced = bindings.crypto_core_ed25519_scalar_reduce
        expanded = bytearray(sha512(self.seed).digest()[:32])
        expanded[0] &= 248
        expanded[31] = (expanded[31] & 63) | 64
        secret = reduced(bytes(expanded) + bytes(32))
        nonce = reduced(sha512(b"another nonce" + self.seed + message).digest())
        commitment = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)
        challenge = reduced(sha512(commitment + self.key + message).digest())
        answer = bindings.crypto_core_ed25519_scalar_mul(challenge, secret)
        return commitment + bindings.crypto_core_ed25519_scalar_add(nonce, answer)


def sign1(*parts: Any) -> bytes:
    """A COSE_Sign1 of these parts: tag 18 around a list."""
    return b"\xd2" + encode(list(parts))
