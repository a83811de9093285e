"""Frozen dataclasses to CBOR maps and back, with every bound stated in the field's type.

A field's annotation is its schema: `Annotated[bytes, Size(32, 32)]`, `Annotated[int, Between(0, 9)]`, a nested
dataclass, `tuple[X, ...]` with a `Size`, or `X | None` for a field that may be absent (never null).

Forward compatibility: an unknown field whose name begins with `opt_` is ignored, any other refuses the record. A new
field that old readers may overlook is therefore named `opt_...`; everything else needs a new record version.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .codec import INTEGER_MAX, Value
from .errors import Code, LocalProtocolError, RemoteProtocolError
from .limits import TEXT_BYTES_MAX

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """Length of bytes, UTF-8 text or a tuple, both ends included."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Between:
    """An integer's range, both ends included."""

    least: int
    most: int


Hash = Annotated[bytes, Size(32, 32)]
"""BLAKE3, 32 bytes."""
Key = Annotated[bytes, Size(32, 32)]
"""An Ed25519 or X25519 public key."""
Nonce = Annotated[bytes, Size(16, 16)]
Signature = Annotated[bytes, Size(64, 64)]
Uint = Annotated[int, Between(0, INTEGER_MAX)]
Ppm = Annotated[int, Between(0, 1_000_000)]
"""Millionths."""
Text = Annotated[str, Size(0, TEXT_BYTES_MAX)]
Word = Annotated[str, Size(1, 64)]
"""A name: of a bundle, an entry, a role, a kind."""


def to_map(instance: object) -> dict[str, Value]:
    """The CBOR map of a record or message, in its order. Raises `LocalProtocolError` if a field is out of its bounds."""
    try:
        return _pack(type(instance), instance)
    except _Problem as problem:
        raise LocalProtocolError(Code.BAD_RECORD, f"{type(instance).__name__}: {problem}.") from None


def from_map_untrusted(kind: type[T], value: Value) -> T:
    """The record or message that `value` is. Raises `RemoteProtocolError` if any field is missing, unknown or wrong."""
    try:
        return cast(T, _unpack(kind, value))
    except _Problem as problem:
        raise RemoteProtocolError(Code.BAD_RECORD, f"{kind.__name__}: {problem}.") from None


class _Problem(Exception):
    """What is wrong with a field, said where it is found and worded where it is known whose fault it is."""


_Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    optional: bool
    pack: _Check
    unpack: _Check


@cache
def _fields(kind: type[Any]) -> tuple[_Field, ...]:
    """In the order in which deterministic CBOR has them: names are ASCII."""
    hints = get_type_hints(kind, include_extras=True)
    names = sorted((field.name for field in fields(kind)), key=lambda name: (len(name), name))
    return tuple(_field(name, hints[name]) for name in names)


def _field(name: str, hint: Any) -> _Field:
    optional = get_origin(hint) in (Union, types.UnionType)
    if optional:
        (hint,) = (arm for arm in get_args(hint) if arm is not type(None))
    return _Field(name, optional, _converter(name, hint, _pack), _converter(name, hint, _unpack))


def _converter(name: str, hint: Any, nested: Callable[[type, Any], Any]) -> _Check:
    bound: Size | Between | None = None
    if get_origin(hint) is Annotated:
        hint, bound = get_args(hint)
    if get_origin(hint) is tuple:
        return _tuple_converter(name, _converter(name, get_args(hint)[0], nested), cast(Size, bound), nested)
    if hint is int:
        return _int_check(name, cast(Between, bound))
    if hint is bool:
        return _type_check(name, bool)
    if hint in (bytes, str):
        return _sized_check(name, hint, cast(Size, bound))
    return lambda value: nested(hint, value)


def _int_check(name: str, bound: Between) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not int or not bound.least <= value <= bound.most:
            raise _Problem(f"{name} must be an integer from {bound.least} to {bound.most}")
        return value

    return check


def _type_check(name: str, kind: type) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise _Problem(f"{name} must be {kind.__name__}")
        return value

    return check


def _sized_check(name: str, kind: type, bound: Size) -> _Check:
    def check(value: Any) -> Any:
        length = len(value.encode()) if type(value) is str else len(value) if type(value) is bytes else -1
        if type(value) is not kind or not bound.least <= length <= bound.most:
            raise _Problem(f"{name} must be {kind.__name__} of {bound.least} to {bound.most} bytes")
        return value

    return check


def _tuple_converter(name: str, convert: _Check, bound: Size, nested: object) -> _Check:
    wanted, result = (tuple, list) if nested is _pack else (list, tuple)

    def check(value: Any) -> Any:
        if type(value) is not wanted or not bound.least <= len(value) <= bound.most:
            raise _Problem(f"{name} must be a list of {bound.least} to {bound.most} items")
        return result(map(convert, value))

    return check


def _pack(kind: type[Any], instance: Any) -> dict[str, Value]:
    if type(instance) is not kind:
        raise _Problem(f"{instance!r} is not a {kind.__name__}")
    packed: dict[str, Value] = {}
    for field in _fields(kind):  # type: ignore[arg-type]  # classes are hashable; type[Any] hides it
        value = getattr(instance, field.name)
        if value is None and field.optional:
            continue
        packed[field.name] = field.pack(value)
    return packed


def _unpack(kind: type, value: Value) -> Any:
    if not isinstance(value, dict):
        raise _Problem("not a map")
    known: dict[str, Any] = {}
    for field in _fields(kind):
        if field.name in value:
            known[field.name] = field.unpack(value[field.name])
        elif field.optional:
            known[field.name] = None
        else:
            raise _Problem(f"{field.name} is missing")
    for key in value:
        if key not in known and not (type(key) is str and key.startswith("opt_")):  # msgpack has other keys too
            raise _Problem(f"unknown field {key[:80]!r}")
    try:
        return kind(**known)
    except ValueError as error:
        raise _Problem(str(error)) from None
