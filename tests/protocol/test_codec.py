"""One encoding per value, and nothing else is read."""

from __future__ import annotations

from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.text(max_size=40)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=40), inner, max_size=4)
)


@given(VALUES)
def test_every_value_round_trips(value: object) -> None:
    assert decode_untrusted(encode(value), bytes_max=1 << 20) == value  # type: ignore[arg-type]


@given(VALUES)
def test_map_keys_are_in_bytewise_order(value: object) -> None:
    def check(part: object) -> None:
        if isinstance(part, dict):
            keys = [cbor2.dumps(key) for key in part]
            assert keys == sorted(keys)
            for inner in part.values():
                check(inner)
        if isinstance(part, list):
            for inner in part:
                check(inner)

    check(cbor2.loads(encode(value)))  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_noise_is_refused_or_is_its_own_encoding(noise: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert encode(decode_untrusted(noise, bytes_max=1 << 20)) == noise


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("1800", id="integer not minimal"),
        pytest.param("5f4101ff", id="indefinite bytes"),
        pytest.param("9f01ff", id="indefinite list"),
        pytest.param("bf616101ff", id="indefinite map"),
        pytest.param("a2616101616102", id="duplicate key"),
        pytest.param("a2616201616101", id="keys unsorted"),
        pytest.param("a10102", id="integer key"),
        pytest.param("a1410102", id="bytes key"),
        pytest.param("f90000", id="float"),
        pytest.param("fb3ff0000000000000", id="double"),
        pytest.param("f7", id="undefined"),
        pytest.param("f0", id="simple value"),
        pytest.param("c001", id="tag"),
        pytest.param("d81c00", id="shared reference"),
        pytest.param("1bffffffffffffffff", id="beyond 64 bits signed"),
        pytest.param("c249010101010101010101", id="big number"),
        pytest.param("0000", id="trailing byte"),
        pytest.param("6261", id="truncated"),
        pytest.param("62fffe", id="invalid UTF-8"),
        pytest.param("", id="empty"),
        pytest.param("81" * 17 + "01", id="too deep"),
        pytest.param("9bffffffffffffffff", id="huge list"),
        pytest.param("bb7fffffffffffffff", id="huge map"),
    ],
)
def test_other_encodings_are_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_untrusted(bytes.fromhex(encoded), bytes_max=1 << 20)
    assert caught.value.code is Code.BAD_ENCODING


def test_a_message_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_untrusted(b"\xff" * 11, bytes_max=10)
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.parametrize("value", [1.5, {1: 2}, 2**63, [object()], {"a": {b"b": 1}}, (1, 2)])
def test_what_the_protocol_cannot_say_is_our_own_error(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        encode(value)  # type: ignore[arg-type]
