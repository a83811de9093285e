"""Encodings, records and messages, through the library's public functions."""

from __future__ import annotations

from typing import Any

from nacl.signing import SigningKey

from fallow.protocol import work
from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.ed25519 import check_signature_untrusted
from fallow.protocol.envelope import Signed, claimed_signer_untrusted, sign, verify_untrusted
from fallow.protocol.framing import Frames
from fallow.protocol.identity import content_hash
from fallow.protocol.limits import MANIFEST_BYTES_MAX, MESSAGE_BYTES_MAX, RECORD_BYTES_MAX
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.records import RECORDS
from fallow.protocol.schema import from_map_untrusted, to_map

Fields = dict[str, Any]


def signed(record: str, envelope: bytes, signer: bytes | None = None) -> Signed[Any]:
    """The record in an envelope, signed by that key or else by the one that the envelope names."""
    bytes_max = MANIFEST_BYTES_MAX if record == "manifest" else RECORD_BYTES_MAX
    signer = claimed_signer_untrusted(envelope, bytes_max=bytes_max) if signer is None else signer
    return verify_untrusted(RECORDS[record], envelope, signer=signer, bytes_max=bytes_max)


def codec(encoded: bytes) -> Fields:
    value = decode_untrusted(encoded, bytes_max=MESSAGE_BYTES_MAX)
    assert encode(value) == encoded
    return {"value": value}


def framing(reads: list[bytes]) -> Fields:
    stream = Frames()
    return {"frames": [body for received in reads for body in stream.feed_untrusted(received)]}


def ed25519(key: bytes, message: bytes, signature: bytes) -> Fields:
    check_signature_untrusted(signature, message, key, "case")
    return {}


def envelope(record: str, signer: bytes, envelope: bytes) -> Fields:
    verified = signed(record, envelope, signer)
    _, payload, sig_structure, signature = _parts(verified)
    parts = {"payload": payload, "sig_structure": sig_structure, "signature": signature}
    return {**parts, "id": verified.id, "fields": to_map(verified.record)}


def record(
    record: str, seed: bytes | None = None, fields: Fields | None = None, payload: bytes | None = None
) -> Fields:
    if payload is not None:
        read = from_map_untrusted(RECORDS[record], decode_untrusted(payload, bytes_max=RECORD_BYTES_MAX))
        return {"fields": to_map(read)}
    assert seed is not None
    made = sign(from_map_untrusted(RECORDS[record], fields), SigningKey(seed))
    protected, read_payload, sig_structure, signature = _parts(made)
    parts = {"protected": protected, "payload": read_payload, "sig_structure": sig_structure, "signature": signature}
    return {**parts, "envelope": made.envelope, "id": content_hash(made.envelope)}


def _parts(signed: Signed[Any]) -> tuple[Any, Any, bytes, Any]:
    match decode_untrusted(signed.envelope[1:], bytes_max=MANIFEST_BYTES_MAX):
        case [protected, {}, payload, signature]:
            domain = f"fallow/1/{signed.record.RECORD}".encode()
            return protected, payload, encode(["Signature1", protected, domain, payload]), signature
    raise AssertionError("verified, and yet not of four parts")


def message(frame: bytes) -> Fields:
    read = decode_message_untrusted(frame)
    assert encode_message(read) == frame or b"opt_" in frame
    return {"kind": read.KIND, "fields": to_map(read)}


def plaintext(struct: str, encoded: bytes) -> Fields:
    decoders = {
        "Work": work.decode_work_untrusted,
        "Input": work.decode_input_untrusted,
        "Piece": work.decode_piece_untrusted,
    }
    return {"fields": to_map(decoders[struct](encoded))}
