"""Every bound of a type holds on both ways of reading a record, and what a later version adds is treated by one rule."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.protocol.codec import Value, decode_untrusted, encode, encode_packed
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.limits import MESSAGE_BYTES_MAX
from fallow.protocol.messages.codec import Message, decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import BlobReply, Probe, ProbeReply, ProfileReply, ProfileRequest
from fallow.protocol.messages.jobs import HeartbeatMessage
from fallow.protocol.messages.payment import RailsReply
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.reading import read_tagged_untrusted, read_untrusted
from fallow.protocol.schema import Between, Size, from_map_untrusted, to_map

_spec = importlib.util.spec_from_file_location("fallow_test_records", Path(__file__).with_name("records.py"))
assert _spec and _spec.loader
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)

BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Inner:
    count: Annotated[int, Between(-1000, 70_000)]
    note: Annotated[str, Size(0, 30)] | None


@dataclass(frozen=True, slots=True)
class Outer:
    """Every type that a field can have."""

    name: Annotated[str, Size(1, 8)]
    key: Annotated[bytes, Size(4, 4)]
    blob: Annotated[bytes, Size(1, 300)]
    wide: Annotated[int, Between(0, 2**63 - 1)]
    flag: bool
    inner: Inner
    numbers: Annotated[tuple[Annotated[int, Between(-(2**63), 2**63 - 1)], ...], Size(0, 30)]
    inners: Annotated[tuple[Inner, ...], Size(1, 2)]
    maybe: Annotated[bytes, Size(2, 2)] | None
    last: Inner | None

    def __post_init__(self) -> None:
        if self.wide == 13:
            raise ValueError("13 is out of the question")


INNERS = st.builds(Inner, st.integers(-1000, 70_000), st.none() | st.text(max_size=7))
OUTERS = st.builds(
    Outer,
    st.text(min_size=1, max_size=2),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=1, max_size=300),
    st.integers(0, 2**63 - 1).filter(lambda number: number != 13),
    st.booleans(),
    INNERS,
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30).map(tuple),
    st.lists(INNERS, min_size=1, max_size=2).map(tuple),
    st.none() | st.binary(min_size=2, max_size=2),
    st.none() | INNERS,
)
EXAMPLE = Outer(
    "name", b"four", b"b" * 300, 2**33, True, Inner(1, None), (*range(-12, 12), -70_000, 300),
    (Inner(2, "twenty-six characters long"),), None, Inner(3, "three"),
)  # fmt: skip
"""With every width that a head can have."""


def code_of(read: Any, *args: Any, **keywords: Any) -> Any:
    try:
        return read(*args, **keywords)
    except RemoteProtocolError as error:
        return error.code, error.message


def by_map(kind: type[Any], encoded: bytes) -> Any:
    return from_map_untrusted(kind, decode_untrusted(encoded, bytes_max=BYTES_MAX))


@given(OUTERS)
def test_any_instance_comes_back_by_both_ways(instance: Outer) -> None:
    encoded = encode(to_map(instance))
    assert read_untrusted(Outer, encoded, bytes_max=BYTES_MAX) == by_map(Outer, encoded) == instance
    assert encode_packed(to_map(instance)) == encoded


@given(
    record=st.sampled_from((EXAMPLE, *examples.RECORDS)),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
    cut=st.integers(-1, 2),
)
@settings(max_examples=1000, deadline=None)
def test_both_ways_say_the_same_of_anything_altered(record: Any, changes: list[tuple[int, int]], cut: int) -> None:
    encoded = bytearray(encode(to_map(record)))
    for place, byte in changes:
        encoded[place % len(encoded)] = byte
    altered = bytes(encoded) + b"\0" if cut < 0 else bytes(encoded[: len(encoded) - cut])
    read = code_of(read_untrusted, type(record), altered, bytes_max=BYTES_MAX)
    assert read == code_of(by_map, type(record), altered)


MESSAGES: tuple[Message, ...] = (
    Probe(bytes(range(16)), None), Probe(bytes(16), b"witness"), ProbeReply(bytes(16)), HeartbeatMessage(), ProfileRequest(),
    ProfileReply(b"mandate", b"c" * 300, b"connectivity", None, "ready", ("a", "b"), 3, (b"one", b"w" * 30)),
    RefuseMessage("busy", "no room", 70_000), BlobReply(None), BlobReply(b"content"), BlobReply(None, (bytes(32),)),
    RailsReply(("ledger",), ("here",)),
)  # fmt: skip


def message_by_map(frame: bytes) -> Message:
    value = decode_untrusted(frame, bytes_max=MESSAGE_BYTES_MAX)
    if not isinstance(value, dict) or (kind := KINDS.get(value.pop("t", None))) is None:
        raise RemoteProtocolError(Code.BAD_ENCODING, "The frame is not a message of this protocol.")
    return from_map_untrusted(kind, value)


KINDS: dict[Any, type[Message]] = {kind.KIND: kind for kind in get_args(Message)}


@given(
    message=st.sampled_from(MESSAGES),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
    cut=st.integers(-1, 2),
)
@settings(max_examples=1000, deadline=None)
def test_both_ways_say_the_same_of_a_message_altered(
    message: Message, changes: list[tuple[int, int]], cut: int
) -> None:
    frame = bytearray(encode_message(message))
    for place, byte in changes:
        frame[place % len(frame)] = byte
    altered = bytes(frame) + b"\0" if cut < 0 else bytes(frame[: len(frame) - cut])
    assert code_of(decode_message_untrusted, altered) == code_of(message_by_map, altered)


def test_the_shortcut_is_taken_by_every_message_as_it_is_sent() -> None:
    for message in MESSAGES:
        assert read_tagged_untrusted(type(message), message.KIND, encode_message(message)) == message
        other = next(each for each in MESSAGES if type(each) is not type(message))
        assert read_tagged_untrusted(type(other), other.KIND, encode_message(message)) is None


def test_both_ways_say_the_same_of_every_single_byte_altered() -> None:
    encoded = encode(to_map(EXAMPLE))
    places = [place for place in range(len(encoded)) if encoded[place : place + 2] != b"bb"]
    for place in places:
        for byte in range(256):
            altered = encoded[:place] + bytes([byte]) + encoded[place + 1 :]
            read = code_of(read_untrusted, Outer, altered, bytes_max=BYTES_MAX)
            assert read == code_of(by_map, Outer, altered), (place, byte)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "ninebytes"), ("name", "\u00e4" * 5), ("name", b"name"), ("name", 1),
        ("key", b"fiver"), ("key", b"two"), ("key", "four"), ("key", None),
        ("blob", b""), ("blob", bytes(301)), ("wide", -1), ("wide", True), ("wide", "1"), ("wide", b"\x01"), ("wide", 13),
        ("flag", 1), ("flag", None), ("inner", []), ("inner", None), ("inner", {"count": 70_001}), ("inner", {}),
        ("inner", {"count": -1001}), ("inner", {"count": 1, "note": None}), ("numbers", [True]), ("numbers", ["1"]),
        ("numbers", [1] * 31), ("numbers", {}), ("inners", []), ("inners", [{"count": 1}] * 3), ("inners", [1]),
        ("maybe", None), ("maybe", b"one"), ("last", {"count": 1, "odd": 1}),
    ],
)  # fmt: skip
def test_a_value_beyond_its_type_is_refused(field: str, value: Value) -> None:
    encoded = encode({**to_map(EXAMPLE), field: value})
    with pytest.raises(RemoteProtocolError) as caught:
        read_untrusted(Outer, encoded, bytes_max=BYTES_MAX)
    assert caught.value.code is Code.BAD_RECORD


def _fields_added(value: Value, name: str) -> list[Value]:
    """The value with the field added in one of its maps, for each of its maps."""
    if isinstance(value, list):
        return [
            [*value[:index], changed, *value[index + 1 :]]
            for index, item in enumerate(value)
            for changed in _fields_added(item, name)
        ]
    if isinstance(value, dict):
        inside: list[Value] = [
            {**value, key: changed} for key, item in value.items() for changed in _fields_added(item, name)
        ]
        return [{**value, name: {"any": [1, None]}}, *inside]
    return []


@pytest.mark.parametrize("record", [EXAMPLE, *examples.RECORDS], ids=lambda record: type(record).__name__)
def test_an_unknown_field_is_ignored_or_refused_by_its_name_wherever_it_stands(record: Any) -> None:
    for name in ("opt_", "opt_x", "opt_" + "x" * 200):
        for value in _fields_added(to_map(record), name):
            assert read_untrusted(type(record), encode(value), bytes_max=BYTES_MAX) == record
    for name in ("a", "new", "opt", "Opt_x", "later_opt_", ""):
        for value in _fields_added(to_map(record), name):
            with pytest.raises(RemoteProtocolError) as caught:
                read_untrusted(type(record), encode(value), bytes_max=BYTES_MAX)
            assert caught.value.code is Code.BAD_RECORD


def test_too_many_bytes_are_refused_unread() -> None:
    encoded = encode(to_map(EXAMPLE))
    assert read_untrusted(Outer, encoded, bytes_max=len(encoded)) == EXAMPLE
    with pytest.raises(RemoteProtocolError) as caught:
        read_untrusted(Outer, encoded, bytes_max=len(encoded) - 1)
    assert caught.value.code is Code.TOO_LARGE


def test_what_is_ignored_is_still_counted_and_still_deterministic() -> None:
    deep: Value = 1
    for _ in range(16):
        deep = [deep]
    for value in (deep, [1] * (1 << 20)):
        with pytest.raises(RemoteProtocolError) as caught:
            read_untrusted(Outer, encode({**to_map(EXAMPLE), "opt_x": value}), bytes_max=1 << 22)
        assert caught.value.code in (Code.BAD_ENCODING, Code.TOO_LARGE)


def test_our_own_bad_value_is_our_own_error() -> None:
    with pytest.raises(LocalProtocolError):
        to_map(Inner(70_001, None))
