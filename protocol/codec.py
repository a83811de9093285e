"""Deterministic CBOR (RFC 8949, section 4.2.1): one encoding per value, and only that encoding is read.

Maps have text keys only, so that the length-first order of `cbor2`'s canonical form and the bytewise order of the RFC
coincide. Floats, tags, undefined and big integers do not occur.

Reading is done here, not by `cbor2`: a reader for everything that CBOR can say builds regular expressions, e-mails and
self-containing lists on a stranger's word, and 200 KB of integer keys that collide keep it busy for seconds.
"""

from __future__ import annotations

from typing import NoReturn, TypeAlias, Union

import cbor2

from .errors import Code, LocalProtocolError, RemoteProtocolError
from .limits import DEPTH_MAX, ENTRIES_MAX

Value: TypeAlias = Union[None, bool, int, bytes, str, "list[Value]", "dict[str, Value]"]

INTEGER_MAX = 2**63 - 1
"""Integers are signed 64-bit: the widest that every language reads without a big-number library."""

_UINT, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP = range(6)
"""Major types; tags and floats are the other two."""
_SIMPLE = {0xF4: False, 0xF5: True, 0xF6: None}
_LEAST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
"""The smallest argument that needs the 1, 2, 4 or 8 bytes that follow the head."""


def encode(value: Value) -> bytes:
    """The one encoding of `value`. Raises `LocalProtocolError` for what the protocol cannot say."""
    if problem := _problem(value):
        raise LocalProtocolError(Code.BAD_ENCODING, f"Cannot encode {problem}.")
    return cbor2.dumps(value, canonical=True)


def encode_packed(value: Value) -> bytes:
    """The same of what `schema.to_map` has packed, which has looked at each part of it and put it in order: in a third of the
    time."""
    return cbor2.dumps(value)


def decode_untrusted(encoded: bytes, *, bytes_max: int, entries_max: int = ENTRIES_MAX) -> Value:
    """The value that `encoded` is the one encoding of. Raises `RemoteProtocolError` for everything else."""
    if len(encoded) > bytes_max:
        raise RemoteProtocolError(
            Code.TOO_LARGE, f"A message of {len(encoded)} bytes exceeds the bound of {bytes_max}."
        )
    try:
        value, end = _value(encoded, 0, DEPTH_MAX, [entries_max])
    except IndexError:
        _refuse("it ends early")
    except UnicodeDecodeError:
        _refuse("a text is not UTF-8")
    if end != len(encoded):
        _refuse("something follows the value" if end < len(encoded) else "it ends early")
    return value


def _value(encoded: bytes, at: int, depth: int, entries_left: list[int]) -> tuple[Value, int]:
    """The value that begins at `at`, and where it ends; `IndexError` or an end beyond `encoded` if that is cut short."""
    head = encoded[at]
    major, argument = head >> 5, head & 31
    if head in _SIMPLE:
        return _SIMPLE[head], at + 1
    if argument < 24:
        at += 1
    else:
        argument, at = _wide(encoded, at + 1, argument)
    if major <= _NEGATIVE:
        if argument > INTEGER_MAX:
            _refuse("an integer is beyond 64 bits")
        return (-1 - argument if major else argument), at
    if major <= _TEXT:
        end = at + argument
        return (encoded[at:end] if major == _BYTES else encoded[at:end].decode()), end
    if major > _MAP:
        _refuse("it contains a tag, a float or a value that the protocol does not use")
    if not depth:
        _refuse(f"it is nested deeper than {DEPTH_MAX} levels")
    if argument > len(encoded) - at:
        raise IndexError
    entries_left[0] -= argument
    if entries_left[0] < 0:
        raise RemoteProtocolError(Code.TOO_LARGE, "The message has more entries than its kind may have.")
    read = _list if major == _LIST else _map
    return read(encoded, at, argument, depth - 1, entries_left)


def _wide(encoded: bytes, at: int, size: int) -> tuple[int, int]:
    """An argument that takes bytes of its own."""
    if size not in _LEAST:
        _refuse("a length is indefinite or reserved")
    end = at + (1 << size - 24)
    argument = int.from_bytes(encoded[at:end], "big")
    if argument < _LEAST[size]:
        _refuse("a number is not in its shortest form")
    return argument, end


def _list(encoded: bytes, at: int, length: int, depth: int, entries_left: list[int]) -> tuple[list[Value], int]:
    items: list[Value] = []
    for _ in range(length):
        item, at = _value(encoded, at, depth, entries_left)
        items.append(item)
    return items, at


def _map(encoded: bytes, at: int, length: int, depth: int, entries_left: list[int]) -> tuple[dict[str, Value], int]:
    entries: dict[str, Value] = {}
    last = b""
    for _ in range(length):
        start = at
        key, at = _value(encoded, at, 0, entries_left)
        if not isinstance(key, str):
            _refuse("a map's key is not text")
        if encoded[start:at] <= last:
            _refuse("a map's keys are not in order, each once")
        last = encoded[start:at]
        entries[key], at = _value(encoded, at, depth, entries_left)
    return entries, at


def _refuse(why: str) -> NoReturn:
    raise RemoteProtocolError(Code.BAD_ENCODING, f"Not deterministic CBOR: {why}.")


_PLAIN = frozenset((bytes, str, bool, type(None)))


def _problem(value: object) -> str | None:
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is int:
        return None if -INTEGER_MAX - 1 <= value <= INTEGER_MAX else "an integer beyond 64 bits"  # type: ignore[operator]  # `type()` does not narrow
    if isinstance(value, list):
        return next(filter(None, map(_problem, value)), None)
    if isinstance(value, dict):
        if any(type(key) is not str for key in value):
            return "a map key that is not text"
        return next(filter(None, map(_problem, value.values())), None)
    return f"a value of type {kind.__name__}"
