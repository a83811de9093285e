"""COSE_Sign1 (RFC 9052) with Ed25519 (algorithm -19, RFC 9864): the one way in which Fallow signs.

The bytes received are the bytes checked; nothing signed is re-encoded before it is verified. The signing key is pinned
by the caller: an envelope's own key id is compared with it, never believed. Where anybody may sign, the call says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Generic, Protocol, TypeVar

from blake3 import blake3
from nacl.signing import SigningKey

from .codec import decode_untrusted, encode, encode_packed
from .ed25519 import check_signature_untrusted
from .errors import Code, RemoteProtocolError
from .limits import RECORD_BYTES_MAX
from .reading import read_untrusted
from .schema import to_map


class Record(Protocol):
    """A frozen dataclass that is signed under its own domain."""

    RECORD: ClassVar[str]
    """Its name: what it is signed as, so that a signature on one record never serves as another's."""


R = TypeVar("R", bound=Record)

_TAG_SIGN1 = b"\xd2"
_HEAD = _TAG_SIGN1 + bytes.fromhex("84 5826 a2 01 32 04 5820")
"""The tag, a list of four, and in it the protected header {1: -19, 4: kid} up to its 32-byte key id."""
_SIGNATURE_HEAD = b"\x58\x40"
_KEY, _UNPROTECTED, _PAYLOAD = slice(10, 42), slice(42, 43), slice(43, -66)
"""The key id, the empty unprotected header, and the payload as a byte string with its head: an envelope has one form only,
so it is compared, not parsed."""


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
    payload = encode(encode_packed(to_map(record)))
    signature = key.sign(_signed_bytes(record.RECORD, signer, payload)).signature
    return Signed(record, signer, b"".join((_HEAD, signer, b"\xa0", payload, _SIGNATURE_HEAD, signature)))


def verify_untrusted(kind: type[R], envelope: bytes, *, signer: bytes, bytes_max: int = RECORD_BYTES_MAX) -> Signed[R]:
    """The record, signed by exactly `signer` as a `kind`. Raises `RemoteProtocolError` for anything else."""
    payload = _payload_untrusted(envelope, bytes_max)
    if envelope[_KEY] != signer:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, f"The {kind.RECORD} is not signed by the key it should be.")
    signed_bytes = _signed_bytes(kind.RECORD, signer, envelope[_PAYLOAD])
    check_signature_untrusted(envelope[-64:], signed_bytes, signer, kind.RECORD)
    return Signed(read_untrusted(kind, payload, bytes_max=bytes_max), signer, envelope)


def verify_any_signer_untrusted(kind: type[R], envelope: bytes, *, bytes_max: int = RECORD_BYTES_MAX) -> Signed[R]:
    """The record, signed as a `kind` by the key that it names, which may be anybody's.

    Whose key `signer` is, and whether it may say this, is for the caller to check. Raises `RemoteProtocolError` for anything
    else.
    """
    return verify_untrusted(kind, envelope, signer=envelope[_KEY], bytes_max=bytes_max)


def claimed_signer_untrusted(envelope: bytes, *, bytes_max: int = RECORD_BYTES_MAX) -> bytes:
    """The key that the envelope says signed it: a claim, to look the right key up by or to pin on first contact."""
    _payload_untrusted(envelope, bytes_max)
    return envelope[_KEY]


def _signed_bytes(record: str, signer: bytes, payload: bytes) -> bytes:
    """The Sig_structure (RFC 9052, section 4.4) over a payload that still has its head."""
    return b"".join((_CONTEXT, _HEAD[2:], signer, _external_aad(record), payload))


_CONTEXT = b"\x84" + encode("Signature1")


@cache
def _external_aad(record: str) -> bytes:
    return encode(f"fallow/1/{record}".encode())


def _payload_untrusted(envelope: bytes, bytes_max: int) -> bytes:
    """The payload of what is an envelope in all but perhaps its signature's value."""
    framed = envelope[_PAYLOAD]
    payload = framed[_HEAD_BYTES.get(framed[:1], 1) :]
    if (
        len(envelope) > bytes_max
        or not envelope.startswith(_HEAD)
        or envelope[_UNPROTECTED] != b"\xa0"
        or encode(payload) != framed
        or envelope[-66:-64] != _SIGNATURE_HEAD
    ):
        raise _fault(envelope, bytes_max)
    return payload


_HEAD_BYTES = {b"\x58": 2, b"\x59": 3, b"\x5a": 5}
"""Of a byte string, by its first byte."""


def _fault(envelope: bytes, bytes_max: int) -> RemoteProtocolError:
    """What is wrong with something that has not the form of an envelope."""
    if len(envelope) > bytes_max:
        return RemoteProtocolError(
            Code.TOO_LARGE, f"A record of {len(envelope)} bytes exceeds the bound of {bytes_max}."
        )
    if envelope[:1] != _TAG_SIGN1:
        return RemoteProtocolError(Code.BAD_ENCODING, "Not a signed record: it does not begin as a COSE_Sign1.")
    match decode_untrusted(envelope[1:], bytes_max=bytes_max):
        case [bytes(), {**unprotected}, bytes(), bytes()] if not unprotected:
            return RemoteProtocolError(
                Code.BAD_SIGNATURE, "The signature's algorithm, key id or length is not Fallow's."
            )
        case _:
            return RemoteProtocolError(Code.BAD_ENCODING, "A signed record must have exactly its four parts.")
