"""Who is who: keys, their text forms, and the mandate that ties a node to its owner.

An Ed25519 public key is an identity. As a libp2p peer id it is written in base58 (`12D3Koo...`); a bundle is written as
a CID. Both are only text forms of 32 bytes.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, ClassVar

from blake3 import blake3

from .envelope import Signed
from .errors import Code, RemoteProtocolError
from .limits import MANDATE_MS_MAX, SKEW_MS, WORKER_KEY_MS_MAX
from .schema import Key, Size, Uint, Word

_PEER_ID_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash of libp2p's protobuf for an Ed25519 public key."""
_CID_PREFIX = bytes.fromhex("01551e20")
"""CIDv1, raw, BLAKE3, 32 bytes."""
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

EXECUTOR, CHECKER, VERIFIER, RELAY = "executor", "checker", "verifier", "relay"
ROLES = (EXECUTOR, CHECKER, VERIFIER, RELAY)


def peer_id(key: bytes) -> str:
    """A node key as people and libp2p write it."""
    number, text = int.from_bytes(_PEER_ID_PREFIX + key, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" + text  # base58 writes the multihash's leading zero byte as a "1"


def peer_key_untrusted(text: str) -> bytes:
    """The key in a peer id. Raises `RemoteProtocolError` unless it is one of an Ed25519 key."""
    number = 0
    for digit in text[:64]:
        number = number * 58 + _BASE58.find(digit) if digit in _BASE58 else 0
    decoded = number.to_bytes(64, "big")[-38:]
    if peer_id(decoded[6:]) != text:
        raise RemoteProtocolError(Code.BAD_ENCODING, f"{text[:80]!r} is not a peer id.")
    return decoded[6:]


def short(key: bytes) -> str:
    """The last eight characters of a peer id: enough to tell peers apart on a screen, never to decide anything."""
    return peer_id(key)[-8:]


def content_hash(content: bytes) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(content).digest()


def cid(content_hash: bytes) -> str:
    """A content hash as a CIDv1 in base32."""
    return "b" + base64.b32encode(_CID_PREFIX + content_hash).decode().rstrip("=").lower()


def cid_hash_untrusted(text: str) -> bytes:
    """The hash in a CID. Raises `RemoteProtocolError` unless it is a CIDv1 of raw bytes by BLAKE3."""
    try:
        body = base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))
    except (binascii.Error, ValueError):
        body = b""
    if len(body) != 36 or body[:4] != _CID_PREFIX or cid(body[4:]) != text:
        raise RemoteProtocolError(Code.BAD_ENCODING, f"{text[:80]!r} is not a content id.")
    return body[4:]


def salted_digest(salt: bytes, plaintext: bytes) -> bytes:
    """A commitment to `plaintext` that does not let a short one be guessed."""
    return blake3(salt + plaintext).digest()


@dataclass(frozen=True, slots=True)
class Mandate:
    """The owner says: this node works for me, in these roles, in this epoch, until then."""

    RECORD: ClassVar[str] = "mandate"

    node: Key
    owner: Key
    roles: Annotated[tuple[Word, ...], Size(1, 8)]
    epoch: Uint
    """A higher epoch voids lower ones wherever it is seen."""
    not_before_ms: Uint
    expires_ms: Uint

    def __post_init__(self) -> None:
        if not 0 < self.expires_ms - self.not_before_ms <= MANDATE_MS_MAX:
            raise ValueError("a mandate lasts at most seven days")


@dataclass(frozen=True, slots=True)
class WorkerKey:
    """The node says: input sealed to this key is opened only inside the worker that now runs."""

    RECORD: ClassVar[str] = "worker-key"

    node: Key
    hpke_key: Key
    """X25519, for HPKE with HKDF-SHA256 and ChaCha20-Poly1305."""
    not_before_ms: Uint
    expires_ms: Uint

    def __post_init__(self) -> None:
        if not 0 < self.expires_ms - self.not_before_ms <= WORKER_KEY_MS_MAX:
            raise ValueError("a worker key lasts at most an hour")


def check_current(not_before_ms: int, expires_ms: int, now_ms: int, what: str) -> None:
    """Raises `RemoteProtocolError(expired)` unless `now_ms` lies in the time window, give or take the clocks' skew."""
    if not not_before_ms - SKEW_MS <= now_ms <= expires_ms + SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, f"The {what} is not valid at this time.")


def check_mandate(mandate: Signed[Mandate], node: bytes, role: str, now_ms: int) -> None:
    """Raises unless the mandate lets `node` act in `role` now for the owner who signed it."""
    record = mandate.record
    if mandate.signer != record.owner or record.node != node or role not in record.roles:
        raise RemoteProtocolError(Code.BAD_MANDATE, f"The mandate does not make this node a {role} of its owner.")
    check_current(record.not_before_ms, record.expires_ms, now_ms, "mandate")
