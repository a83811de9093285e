"""One encoding per value, and nothing else is read."""

from __future__ import annotations

from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.limits import MESSAGE_ENTRIES_MAX
from fallow.protocol.messages.codec import decode_message_untrusted

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.text(max_size=40)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=40), inner, max_size=4)
)


@pytest.mark.spec("N-1")
@given(VALUES)
def test_every_value_round_trips(value: object) -> None:
    assert decode_untrusted(encode(value), bytes_max=1 << 20) == value  # type: ignore[arg-type]


@pytest.mark.spec("N-1")
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


@pytest.mark.spec("N-2", "E-4")
@given(st.binary(max_size=200))
def test_noise_is_refused_or_is_its_own_encoding(noise: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert encode(decode_untrusted(noise, bytes_max=1 << 20)) == noise


@pytest.mark.spec("N-2", "N-4")
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
        pytest.param("5b7fffffffffffffff", id="huge bytes"),
        pytest.param("d81c81d81d00", id="a list that contains itself"),
        pytest.param("c243010000", id="big number as long as the integer"),
        pytest.param("d9010062616264d81900", id="string reference"),
        pytest.param("d8236128", id="regular expression"),
        pytest.param("a1c24101", id="big number as a key"),
        pytest.param("1c", id="reserved length"),
        pytest.param("7c", id="reserved length of text"),
        pytest.param("f818", id="simple value in two bytes"),
        pytest.param("f814", id="false in two bytes"),
        pytest.param("3b8000000000000000", id="below 64 bits signed"),
        pytest.param("5800", id="length of bytes not minimal"),
        pytest.param("980101", id="length of list not minimal"),
        pytest.param("a161", id="cut in a key"),
        pytest.param("a16161", id="cut before a value"),
        pytest.param("8201", id="cut in a list"),
        pytest.param("43", id="cut in bytes"),
        pytest.param("63eda080", id="surrogate in UTF-8"),
    ],
)
def test_other_encodings_are_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_untrusted(bytes.fromhex(encoded), bytes_max=1 << 20)
    assert caught.value.code is Code.BAD_ENCODING


@given(
    value=VALUES, changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3), cut=st.booleans()
)
def test_a_lenient_reader_that_compares_with_its_own_encoding_agrees(
    value: object, changes: list[tuple[int, int]], cut: bool
) -> None:
    encoded = bytearray(encode(value))  # type: ignore[arg-type]
    for place, byte in changes:
        encoded[place % len(encoded)] = byte
    if cut:
        del encoded[-1]
    ours: object = _REFUSED
    with suppress(RemoteProtocolError):
        ours = decode_untrusted(bytes(encoded), bytes_max=1 << 20)
    assert repr(ours) == repr(_by_comparing(bytes(encoded)))


_REFUSED = object()


def _by_comparing(encoded: bytes) -> object:
    """Another way to read deterministic CBOR: leniently, and then to look whether it would be written like that."""
    try:
        value = cbor2.loads(encoded, allow_indefinite=False, allow_duplicate_keys=False, max_depth=16)
        return value if encode(value) == encoded else _REFUSED
    except (cbor2.CBORDecodeError, LocalProtocolError, ValueError, TypeError, OverflowError, RecursionError):
        return _REFUSED


def test_the_deepest_value_passes() -> None:
    assert decode_untrusted(b"\x81" * 16 + b"\x01", bytes_max=1 << 20)


@pytest.mark.parametrize(
    ("encoded", "entries"),
    [("820102", 2), ("a2616101616202", 2), ("8281018102", 4), ("80", 0), ("a1616181a0", 2)],
)
def test_entries_are_counted_over_the_whole_value(encoded: str, entries: int) -> None:
    decode_untrusted(bytes.fromhex(encoded), bytes_max=100, entries_max=entries)
    with pytest.raises(RemoteProtocolError) as caught:
        decode_untrusted(bytes.fromhex(encoded), bytes_max=100, entries_max=entries - 1)
    assert caught.value.code is Code.TOO_LARGE


def test_a_message_may_not_have_as_many_entries_as_a_record() -> None:
    entries = [1] * MESSAGE_ENTRIES_MAX
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message_untrusted(encode({"t": "heartbeat", "opt_later": list(entries)}))
    assert caught.value.code is Code.TOO_LARGE
    decode_message_untrusted(encode({"t": "heartbeat", "opt_later": list(entries[2:])}))


@pytest.mark.spec("N-3")
def test_a_message_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_untrusted(b"\xff" * 11, bytes_max=10)
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.spec("N-6")
@pytest.mark.parametrize("value", [1.5, {1: 2}, 2**63, [object()], {"a": {b"b": 1}}, (1, 2)])
def test_what_the_protocol_cannot_say_is_our_own_error(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        encode(value)  # type: ignore[arg-type]
