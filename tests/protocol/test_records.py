"""Every record: signed, verified, and refused in every way in which it can be wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import nacl.bindings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.envelope import sign, verify_any_signer_untrusted, verify_untrusted
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.records import RECORDS as REGISTERED
from fallow.protocol.records import identify_untrusted
from fallow.protocol.schema import from_map_untrusted, to_map

_spec = importlib.util.spec_from_file_location("fallow_test_records", Path(__file__).with_name("records.py"))
assert _spec and _spec.loader
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)

EXAMPLES = pytest.mark.parametrize("record", examples.RECORDS, ids=lambda record: record.RECORD)


def test_every_record_has_an_example() -> None:
    assert {record.RECORD for record in examples.RECORDS} == set(REGISTERED)


@pytest.mark.spec("I-3")
@EXAMPLES
def test_signed_records_verify_and_are_recognised(record: Any) -> None:
    signed = sign(record, examples.KEY)
    assert verify_untrusted(type(record), signed.envelope, signer=examples.A) == signed
    assert verify_any_signer_untrusted(type(record), signed.envelope) == signed
    assert identify_untrusted(signed.envelope) == signed


@pytest.mark.spec("I-6")
@EXAMPLES
def test_another_key_is_refused(record: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_untrusted(type(record), sign(record, examples.KEY).envelope, signer=examples.B)
    assert caught.value.code is Code.BAD_SIGNATURE


@pytest.mark.spec("I-7")
@EXAMPLES
def test_a_record_is_not_accepted_as_another_kind(record: Any) -> None:
    envelope = sign(record, examples.KEY).envelope
    for other in examples.RECORDS:
        if type(other) is not type(record):
            with pytest.raises(RemoteProtocolError) as caught:
                verify_untrusted(type(other), envelope, signer=examples.A)
            assert caught.value.code is Code.BAD_SIGNATURE


@pytest.mark.spec("I-7")
@given(record=st.sampled_from(examples.RECORDS), place=st.integers(0, 10**6))
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_is_refused(record: Any, place: int) -> None:
    envelope = bytearray(sign(record, examples.KEY).envelope)
    envelope[place // 8 % len(envelope)] ^= 1 << place % 8
    with pytest.raises(RemoteProtocolError):
        verify_untrusted(type(record), bytes(envelope), signer=examples.A)
    with pytest.raises(RemoteProtocolError):
        verify_any_signer_untrusted(type(record), bytes(envelope))
    with pytest.raises(RemoteProtocolError):
        identify_untrusted(bytes(envelope))


@pytest.mark.spec("N-7", "N-8", "N-9")
@EXAMPLES
def test_fields_missing_unknown_or_null_are_refused(record: Any) -> None:
    fields = to_map(record)
    for name in fields:
        without = {key: value for key, value in fields.items() if key != name}
        if type(record).__dataclass_fields__[name].type.endswith("| None"):
            from_map_untrusted(type(record), without)
        else:
            with pytest.raises(RemoteProtocolError):
                from_map_untrusted(type(record), without)
        with pytest.raises(RemoteProtocolError):
            from_map_untrusted(type(record), {**fields, name: None})
    with pytest.raises(RemoteProtocolError):
        from_map_untrusted(type(record), {**fields, "unheard_of": 1})
    assert from_map_untrusted(type(record), {**fields, "opt_later": 1}) == record


@pytest.mark.spec("N-7")
@EXAMPLES
def test_fields_of_another_type_are_refused(record: Any) -> None:
    fields = to_map(record)
    for name, value in fields.items():
        for wrong in (1.0 if False else "x" * 100_000, -1, b"", [[]], {"a": 1}, True):
            if type(wrong) is type(value):
                continue
            with pytest.raises(RemoteProtocolError) as caught:
                from_map_untrusted(type(record), {**fields, name: wrong})
            assert caught.value.code is Code.BAD_RECORD


@pytest.mark.spec("E-4")
@given(noise=st.binary(max_size=300))
def test_noise_is_never_a_record(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        identify_untrusted(noise)


@pytest.mark.spec("I-4")
def test_trailing_bytes_after_an_envelope_are_refused() -> None:
    envelope = sign(examples.RECORDS[0], examples.KEY).envelope
    with pytest.raises(RemoteProtocolError):
        identify_untrusted(envelope + b"\x00")


@pytest.mark.spec("I-4")
def test_a_signed_payload_in_another_encoding_is_refused() -> None:
    """The signature holds, the bytes inside are not deterministic: nobody may sign what others would re-encode."""
    record = examples.RECORDS[0]
    fields = to_map(record)
    name = next(iter(fields))
    payload = bytes([0xA0 + len(fields) + 1]) + encode(fields)[1:] + encode(name) + encode(fields[name])
    protected = bytes.fromhex("a2013204") + b"\x58\x20" + examples.A
    to_sign = encode(["Signature1", protected, f"fallow/1/{record.RECORD}".encode(), payload])
    signature = examples.KEY.sign(to_sign).signature
    envelope = b"\xd2" + encode([protected, {}, payload, signature])
    with pytest.raises(RemoteProtocolError) as caught:
        verify_untrusted(type(record), envelope, signer=examples.A)
    assert caught.value.code is Code.BAD_ENCODING


def test_small_order_and_malleable_signatures_are_refused() -> None:
    record = examples.RECORDS[0]
    parts = decode_untrusted(sign(record, examples.KEY).envelope[1:], bytes_max=1 << 20)
    assert isinstance(parts, list) and isinstance(parts[3], bytes)
    order = 2**252 + 27742317777372353535851937790883648493
    signature = parts[3][:32] + (int.from_bytes(parts[3][32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(RemoteProtocolError):
        verify_untrusted(type(record), b"\xd2" + encode([parts[0], {}, parts[2], signature]), signer=examples.A)
    small = bytes(31) + b"\x80"
    protected = bytes.fromhex("a2013204") + b"\x58\x20" + small
    with pytest.raises(RemoteProtocolError):
        verify_untrusted(type(record), b"\xd2" + encode([protected, {}, parts[2], small + bytes(32)]), signer=small)
    assert nacl.bindings.crypto_sign_BYTES == 64


@pytest.mark.spec("N-6")
def test_our_own_bad_record_is_our_own_error() -> None:
    from dataclasses import replace

    with pytest.raises(LocalProtocolError):
        sign(replace(examples.PRICE, call_ucr=-1), examples.KEY)  # type: ignore[type-var]
