"""Inputs changed so that they get behind a reader's first check: what is decoded, altered and encoded again, and what is
signed is signed again. Deterministic: an input, a source of randomness and a blunt tool give one result.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any

import cbor2
from nacl.signing import SigningKey
from targets import KEYS

from fallow.protocol.codec import decode_untrusted
from fallow.protocol.envelope import claimed_signer_untrusted, verify_untrusted
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.limits import MANIFEST_BYTES_MAX
from fallow.protocol.records import RECORDS

Blunt = Callable[[bytes], bytes]
"""Changes bytes without knowing what they mean."""

EDGES: tuple[Any, ...] = (
    0, 1, -1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64,
    True, False, None, 0.0, float("nan"), b"", "", b"\0" * 16, b"\0" * 32, b"\xff" * 32, b"\0" * 64, "x" * 64, "x" * 65,
    "x" * 1025, "\u00e4", "\ufeff", [], {}, [[]], {"opt_x": 1}, {1: 2}, cbor2.CBORTag(2, b"\1"), cbor2.undefined,
)  # fmt: skip
FIELDS = sorted({field.name for kind in RECORDS.values() for field in fields(kind)} | {"t", "opt_", "opt_x", ""})


def mutate(given: bytes, rng: random.Random, blunt: Blunt) -> bytes:
    """Another input near to the given one."""
    changed = given
    while changed == given or rng.random() < 0.3:
        changed = blunt(changed) if rng.random() < 0.15 else _within(changed, rng, blunt)
        if rng.random() < 0.05:
            break
    return changed


def _within(encoded: bytes, rng: random.Random, blunt: Blunt) -> bytes:
    if (envelope := _parts(encoded)) is not None:
        return _signed_again(*envelope, rng, blunt)
    if encoded[:1] in (b"{", b"["):
        with suppress(ValueError, RecursionError):
            altered = _altered(json.loads(encoded), rng, blunt)
            return json.dumps(altered, default=str, skipkeys=True).encode(errors="replace")
    value = _decoded(encoded)
    if not isinstance(value, list | dict):
        return blunt(encoded)
    return _encoded(_altered(value, rng, blunt))


def _parts(encoded: bytes) -> tuple[bytes, str, Any] | None:
    """Signer, record and payload of an envelope."""
    try:
        signer = claimed_signer_untrusted(encoded, bytes_max=MANIFEST_BYTES_MAX)
    except RemoteProtocolError:
        return None
    return signer, _record_of(encoded, signer), cbor2.loads(encoded).value[2]


def _record_of(encoded: bytes, signer: bytes) -> str:
    for name, kind in RECORDS.items():
        try:
            verify_untrusted(kind, encoded, signer=signer, bytes_max=MANIFEST_BYTES_MAX)
        except RemoteProtocolError as error:
            if error.code is Code.BAD_SIGNATURE:
                continue
        return name
    return "mandate"


def _signed_again(signer: bytes, record: str, payload: bytes, rng: random.Random, blunt: Blunt) -> bytes:
    if rng.random() < 0.9:
        payload = _within(payload, rng, blunt)
    if rng.random() < 0.05:
        record = rng.choice(list(RECORDS))
    if rng.random() < 0.1 or signer not in KEYS:
        signer = rng.choice(list(KEYS))
    envelope = _sealed(KEYS[signer], record, payload)
    return blunt(envelope) if rng.random() < 0.03 else envelope


def _sealed(key: SigningKey, record: str, payload: bytes) -> bytes:
    """COSE_Sign1 over any payload, as `envelope.sign` makes it of a record."""
    protected = cbor2.dumps({1: -19, 4: bytes(key.verify_key)}, canonical=True)
    to_sign = cbor2.dumps(["Signature1", protected, f"fallow/1/{record}".encode(), payload])
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, key.sign(to_sign).signature]))


def _altered(value: Any, rng: random.Random, blunt: Blunt) -> Any:
    """The value with something changed in one place, as likely deep inside as at the top."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        return {**value, key: _altered(value[key], rng, blunt)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        return [*value[:index], _altered(value[index], rng, blunt), *value[index + 1 :]]
    if isinstance(value, bytes) and rng.random() < 0.7 and (_parts(value) or isinstance(_decoded(value), list | dict)):
        return _within(value, rng, blunt)
    return _replaced(value, rng, blunt)


def _replaced(value: Any, rng: random.Random, blunt: Blunt) -> Any:
    if rng.random() < 0.3:
        return rng.choice(EDGES)
    match value:
        case bool():
            return not value
        case int():
            return value + rng.choice((-1, 1, -(2**31), 2**31, rng.randrange(-1000, 1000), -2 * value))
        case bytes():
            return blunt(value)
        case str():
            return blunt(value.encode()).decode(errors="replace")
        case list():
            index = rng.randrange(len(value) + 1)
            extra = rng.choice([*value, rng.choice(EDGES)])
            return rng.choice(
                [
                    [*value[:index], extra, *value[index:]],
                    value[:index] + value[index + 1 :],
                    value[::-1],
                    value * rng.randrange(2, 70),
                ]
            )
        case dict():
            key = rng.choice(FIELDS)
            kept = {name: item for name, item in value.items() if name != rng.choice([*value, None])}
            return rng.choice([{**value, key: rng.choice([*value.values(), *EDGES])}, kept])
    return rng.choice(EDGES)


def _decoded(encoded: bytes) -> Any:
    try:
        return decode_untrusted(encoded, bytes_max=MANIFEST_BYTES_MAX)
    except RemoteProtocolError:
        return None


def _encoded(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)
