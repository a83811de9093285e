"""Page 00: where the codec's bounds lie, and that `opt_` fields are passed over wherever they stand."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.identity import check_current
from fallow.protocol.limits import DEPTH_MAX, ENTRIES_MAX, MESSAGE_BYTES_MAX, MESSAGE_ENTRIES_MAX, SKEW_MS
from fallow.protocol.messages.codec import decode_message_untrusted
from fallow.protocol.schema import from_map_untrusted, to_map

ROOT = Path(__file__).parent.parent.parent

_spec = importlib.util.spec_from_file_location("fallow_test_records", ROOT / "tests/protocol/records.py")
assert _spec and _spec.loader
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)


def refused(code: Code, encoded: bytes, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_untrusted(encoded, bytes_max=bytes_max)
    assert caught.value.code is code


@pytest.mark.spec("N-4", "L-3")
@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x61a"], ids=["lists", "maps"])
def test_nesting_is_counted_with_the_outermost_and_the_empty_ones(head: bytes) -> None:
    for innermost, own in ((b"\x01", 0), (b"\x80", 1), (b"\xa0", 1)):
        assert decode_untrusted(head * (DEPTH_MAX - own) + innermost, bytes_max=100)
        refused(Code.BAD_ENCODING, head * (DEPTH_MAX - own + 1) + innermost)


@pytest.mark.spec("N-3", "L-1", "L-3")
def test_bytes_are_counted_before_they_are_read() -> None:
    assert decode_untrusted(b"\x43abc", bytes_max=4) == b"abc"
    refused(Code.TOO_LARGE, b"\xff" * 5, bytes_max=4)


@pytest.mark.spec("N-5", "L-1", "L-3")
def test_entries_are_counted_over_all_lists_and_maps_of_a_value() -> None:
    most: list[Any] = [[True] * (ENTRIES_MAX - 3), {"a": 1}]
    assert decode_untrusted(encode(most), bytes_max=MESSAGE_BYTES_MAX) == most
    refused(Code.TOO_LARGE, encode([*most, 1]))
    pieces = {"t": "profile-request", "opt_a": [1] * (MESSAGE_ENTRIES_MAX - 2)}
    decode_message_untrusted(encode(pieces))
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message_untrusted(encode({**pieces, "opt_b": 1}))
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.spec("N-8", "N-9")
@pytest.mark.parametrize("record", examples.RECORDS, ids=lambda record: str(record.RECORD))
def test_every_structure_passes_over_later_fields_and_refuses_strange_ones(record: Any) -> None:
    plain = to_map(record)
    for path in _structures(record):
        for name, value in (("opt_", None), ("opt_later", [{"deep": {}}])):
            assert from_map_untrusted(type(record), _with(plain, path, name, value)) == record
        for name in ("later", "Opt_later", " opt_later"):
            with pytest.raises(RemoteProtocolError) as caught:
                from_map_untrusted(type(record), _with(plain, path, name, 1))
            assert caught.value.code is Code.BAD_RECORD


@pytest.mark.spec("N-10")
def test_times_are_taken_with_the_clocks_skew_on_both_sides() -> None:
    begin, end = 10**12, 10**12 + 5_000
    for now_ms in (begin - SKEW_MS, begin, end + SKEW_MS):
        check_current(begin, end, now_ms, "record")
    for now_ms in (begin - SKEW_MS - 1, end + SKEW_MS + 1):
        with pytest.raises(RemoteProtocolError) as caught:
            check_current(begin, end, now_ms, "record")
        assert caught.value.code is Code.EXPIRED


def test_the_types_of_the_page_are_those_of_the_schema() -> None:
    page, cddl = (ROOT / "spec/00-notation.md").read_text("utf-8"), (ROOT / "spec/fallow.cddl").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| `([^`]+)` \|", page, re.MULTILINE)
    assert len(rows) == 10
    for name, kind in rows:
        assert f"\n{name} = {kind}\n" in cddl, name


def _structures(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where a record has maps: at its top, and wherever another structure is within."""
    if isinstance(value, tuple):
        return [found for index, item in enumerate(value) for found in _structures(item, (*path, index))]
    if not is_dataclass(value):
        return []
    within = [found for f in fields(value) for found in _structures(getattr(value, f.name), (*path, f.name))]
    return [path, *within]


def _with(value: Any, path: tuple[str | int, ...], name: str, added: Any) -> Any:
    if not path:
        return {**value, name: added}
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], name, added)  # type: ignore[index]
    return copy
