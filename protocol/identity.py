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

from .envelope import Signed, verify_untrusted
from .errors import Code, RemoteProtocolError
from .limits import ISSUER_BYTES_MAX, ISSUER_MS_MAX, MANDATE_MS_MAX, SKEW_MS, WORKER_KEY_MS_MAX
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
class Issuer:
    """The owner says: this key may sign mandates for me until then. The owner's own key can stay locked away."""

    RECORD: ClassVar[str] = "issuer"

    owner: Key
    """Who signs this."""
    issuer: Key
    """Who may sign mandates."""
    epoch: Uint
    """A higher epoch voids the owner's lower ones wherever it is seen."""
    not_before_ms: Uint
    """Of its validity, in milliseconds since 1970."""
    expires_ms: Uint
    """End of its validity."""

    def __post_init__(self) -> None:
        if not 0 < self.expires_ms - self.not_before_ms <= ISSUER_MS_MAX:
            raise ValueError("an issuer lasts at most 400 days")


@dataclass(frozen=True, slots=True)
class Mandate:
    """The owner says: this node works for me, in these roles, in this epoch, until then."""

    RECORD: ClassVar[str] = "mandate"

    node: Key
    """Whose work it is."""
    owner: Key
    """Who is paid for it."""
    roles: Annotated[tuple[Word, ...], Size(1, 8)]
    """Of `executor`, `checker`, `verifier` and `relay`; others are for later versions."""
    epoch: Uint
    """A higher epoch voids the node's lower ones wherever it is seen. No two mandates of a node share one."""
    not_before_ms: Uint
    """Of its validity, in milliseconds since 1970."""
    expires_ms: Uint
    """End of its validity."""
    issuer: Annotated[bytes, Size(1, ISSUER_BYTES_MAX)] | None
    """Envelope of the `Issuer` whose key signed this mandate; absent if the owner's own key did."""

    def __post_init__(self) -> None:
        if not 0 < self.expires_ms - self.not_before_ms <= MANDATE_MS_MAX:
            raise ValueError("a mandate lasts at most seven days")


@dataclass(frozen=True, slots=True)
class WorkerKey:
    """The node says: input sealed to this key is opened only inside the worker that now runs."""

    RECORD: ClassVar[str] = "worker-key"

    node: Key
    """Who signs this."""
    hpke_key: Key
    """X25519, for HPKE with HKDF-SHA256 and ChaCha20-Poly1305."""
    not_before_ms: Uint
    """Of its validity, in milliseconds since 1970."""
    expires_ms: Uint
    """End of its validity; the worker may end before."""

    def __post_init__(self) -> None:
        if not 0 < self.expires_ms - self.not_before_ms <= WORKER_KEY_MS_MAX:
            raise ValueError("a worker key lasts at most an hour")


def check_current(not_before_ms: int, expires_ms: int, now_ms: int, what: str) -> None:
    """Raises `RemoteProtocolError(expired)` unless `now_ms` lies in the time window, give or take the clocks' skew."""
    if not not_before_ms - SKEW_MS <= now_ms <= expires_ms + SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, f"The {what} is not valid at this time.")


def check_mandate(mandate: Signed[Mandate], node: bytes, role: str, now_ms: int) -> None:
    """Raises `RemoteProtocolError` unless the mandate lets `node` act in `role` now, by its owner or the owner's issuer."""
    record = mandate.record
    if record.node != node or role not in record.roles:
        raise RemoteProtocolError(Code.BAD_MANDATE, f"The mandate does not make this node a {role} of its owner.")
    check_issued(mandate, now_ms)
    check_current(record.not_before_ms, record.expires_ms, now_ms, "mandate")


def begins_ms(mandate: Signed[Mandate]) -> int:
    """The earliest time at which the mandate can hold, give or take the clocks' skew: its issuer's window has begun, too.

    Raises `RemoteProtocolError` unless its owner or the owner's issuer has signed it."""
    issuer, own_ms = _issuer_of(mandate), mandate.record.not_before_ms
    return max(own_ms, issuer.not_before_ms if issuer else own_ms) - SKEW_MS


def ends_ms(mandate: Signed[Mandate]) -> int:
    """The latest time at which the mandate can hold, give or take the clocks' skew: its issuer's window has not ended, either.

    Raises `RemoteProtocolError` unless its owner or the owner's issuer has signed it."""
    issuer, own_ms = _issuer_of(mandate), mandate.record.expires_ms
    return min(own_ms, issuer.expires_ms if issuer else own_ms) + SKEW_MS


def check_issued(mandate: Signed[Mandate], at_ms: int) -> Issuer | None:
    """The issuer who signed the mandate, None if the owner did. Raises `RemoteProtocolError` unless it was one of them,
    entitled to it at `at_ms`."""
    issuer = _issuer_of(mandate)
    if issuer is not None:
        check_current(issuer.not_before_ms, issuer.expires_ms, at_ms, "mandate's issuer")
    return issuer


def check_epoch(record: Mandate | Issuer, seen_epoch: int) -> None:
    """Raises `RemoteProtocolError(bad_mandate)` if one of a higher epoch has been seen for the same node or owner.

    Of mandates, only what the node itself named in a profile counts as seen: anybody can sign one for a stranger's node.
    """
    if record.epoch < seen_epoch:
        what = f"The {record.RECORD} of epoch {record.epoch} was replaced by that of epoch {seen_epoch}."
        raise RemoteProtocolError(Code.BAD_MANDATE, what)


def _issuer_of(mandate: Signed[Mandate]) -> Issuer | None:
    """Who signed the mandate for its owner, None if the owner did. Raises `RemoteProtocolError` if it was neither."""
    record = mandate.record
    if record.issuer is None:
        if mandate.signer != record.owner:
            raise RemoteProtocolError(Code.BAD_MANDATE, "The mandate is not signed by the owner that it names.")
        return None
    issuer = verify_untrusted(Issuer, record.issuer, signer=record.owner, bytes_max=ISSUER_BYTES_MAX).record
    if issuer.owner != record.owner or issuer.issuer != mandate.signer:
        raise RemoteProtocolError(Code.BAD_MANDATE, "The mandate's issuer is not one of the owner that it names.")
    return issuer
