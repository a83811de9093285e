"""COSE_Sign1 (RFC 9052) with Ed25519 (algorithm -19, RFC 9864): the one way in which Fallow signs.

The bytes received are the bytes checked; nothing signed is re-encoded before it is verified. The signing key is pinned
by the caller: an envelope's own key id is compared with it, never believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import nacl.bindings
from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from .codec import Value, decode_untrusted, encode
from .errors import Code, RemoteProtocolError
from .limits import RECORD_BYTES_MAX
from .schema import from_map_untrusted, to_map


class Record(Protocol):
    """A frozen dataclass that is signed under its own domain."""

    RECORD: ClassVar[str]
    """Its name: what it is signed as, so that a signature on one record never serves as another's."""


R = TypeVar("R", bound=Record)

_TAG_SIGN1 = b"\xd2"
_PROTECTED = bytes.fromhex("a2013204") + b"\x58\x20"
"""The protected header {1: -19, 4: kid} up to its 32-byte key id: there is only one form, so it is compared, not parsed."""


@dataclass(frozen=True, slots=True)
class Signed(Generic[R]):
    """A record whose signature was made or checked by this process."""

    record: R
    signer: bytes
    """The signer's Ed25519 public key."""
    envelope: bytes
    """The exact bytes that were signed and are passed on."""

    @property
    def id(self) -> bytes:
        """BLAKE3 of the envelope: how other records refer to this one."""
        return blake3(self.envelope).digest()


def sign(record: R, key: SigningKey) -> Signed[R]:
    """The record in an envelope signed by `key`."""
    signer = bytes(key.verify_key)
    protected = _PROTECTED + signer
    payload = encode(to_map(record))
    signature = key.sign(_signed_bytes(record.RECORD, protected, payload)).signature
    return Signed(record, signer, _TAG_SIGN1 + encode([protected, {}, payload, signature]))


def verify_untrusted(kind: type[R], envelope: bytes, *, signer: bytes, bytes_max: int = RECORD_BYTES_MAX) -> Signed[R]:
    """The record, signed by exactly `signer` as a `kind`. Raises `RemoteProtocolError` for anything else."""
    protected, payload, signature = _open(envelope, bytes_max)
    if protected != _PROTECTED + signer:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, f"The {kind.RECORD} is not signed by the key it should be.")
    try:
        nacl.bindings.crypto_sign_open(signature + _signed_bytes(kind.RECORD, protected, payload), signer)
    except (BadSignatureError, ValueError):
        raise RemoteProtocolError(Code.BAD_SIGNATURE, f"The signature on the {kind.RECORD} does not hold.") from None
    record = from_map_untrusted(kind, decode_untrusted(payload, bytes_max=bytes_max))
    return Signed(record, signer, envelope)


def claimed_signer_untrusted(envelope: bytes, *, bytes_max: int = RECORD_BYTES_MAX) -> bytes:
    """The key that the envelope says signed it: a claim, to look the right key up by or to pin on first contact."""
    protected, _, _ = _open(envelope, bytes_max)
    return protected[len(_PROTECTED) :]


def _signed_bytes(record: str, protected: bytes, payload: bytes) -> bytes:
    return encode(["Signature1", protected, f"fallow/1/{record}".encode(), payload])


def _open(envelope: bytes, bytes_max: int) -> tuple[bytes, bytes, bytes]:
    if envelope[:1] != _TAG_SIGN1:
        raise RemoteProtocolError(Code.BAD_ENCODING, "Not a signed record: it does not begin as a COSE_Sign1.")
    parts: Value = decode_untrusted(envelope[1:], bytes_max=bytes_max)
    match parts:
        case [bytes(protected), {**unprotected}, bytes(payload), bytes(signature)] if not unprotected:
            pass
        case _:
            raise RemoteProtocolError(Code.BAD_ENCODING, "A signed record must have exactly its four parts.")
    if len(protected) != len(_PROTECTED) + 32 or protected[: len(_PROTECTED)] != _PROTECTED or len(signature) != 64:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The signature's algorithm, key id or length is not Fallow's.")
    return protected, payload, signature
