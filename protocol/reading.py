"""A record straight from its encoding, where it is exactly what its schema says: four times as fast as by way of a map.

This is a shortcut and nothing else. Whatever it does not expect, an unknown field or anything wrong, it leaves to
`codec` and `schema`, which read it again and say what it is; what it does accept, they would accept as the same record.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .codec import decode_untrusted, encode
from .schema import Between, Size, from_map_untrusted

T = TypeVar("T")

_Reader = Callable[[bytes, int], tuple[Any, int]]
"""From an encoding and a place in it: the value that begins there, and where it ends."""


_UINT, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP = (major << 5 for major in range(6))
"""Major types, where they stand in a head."""


def read_untrusted(kind: type[T], encoded: bytes, *, bytes_max: int) -> T:
    """The `kind` that `encoded` is the one encoding of. Raises `RemoteProtocolError` for everything else."""
    if len(encoded) <= bytes_max:
        try:
            instance, end = _record(kind)(encoded, 0)  # type: ignore[arg-type]  # classes are hashable; type[T] hides it
            if end == len(encoded):
                return cast(T, instance)
        except (_Unexpected, IndexError, ValueError):
            pass
    return from_map_untrusted(kind, decode_untrusted(encoded, bytes_max=bytes_max))


def read_tagged_untrusted(kind: type[T], tag: str, encoded: bytes) -> T | None:
    """The `kind` that `encoded` is the one encoding of, with its tag under `t`; None if it may be none, or not quite."""
    try:
        instance, end = _record(kind, tag)(encoded, 0)  # type: ignore[arg-type]  # as above
    except (_Unexpected, IndexError, ValueError):
        return None
    return cast(T, instance) if end == len(encoded) else None


class _Unexpected(Exception):
    """Not what the shortcut is for."""


@cache
def _record(kind: type[Any], tag: str = "") -> _Reader:
    """A function written for this one record, as `dataclasses` writes its `__init__`: a loop over fields costs half again.

    With a tag, for that message. Nothing of it comes from elsewhere than the class: names of its fields, bounds of their types.
    """
    hints = get_type_hints(kind, include_extras=True)
    names: dict[str, Any] = {"kind": kind, "new": object.__new__, "wide": _wide, "wide_int": _wide_int}
    names["Unexpected"] = _Unexpected
    lines = [
        "def read(encoded, at):",
        f"    left = encoded[at] ^ {_MAP}",
        "    at += 1",
        "    if left > 23: left, at = wide(encoded, at, left)",
    ]
    if tag:  # the shortest key stands first
        names["the_tag"] = encode("t") + encode(tag)
        lines.append("    if not encoded.startswith(the_tag, at): raise Unexpected")
        lines.append(f"    left, at = left - 1, at + {len(names['the_tag'])}")
    for before, name in sorted((encode(field.name), field.name) for field in fields(kind)):
        hint, bound = _bare(hints[name])
        if hint is bytes and bound.least == bound.most:  # the head of a hash, say, is the same each time
            before += encode(bytes(bound.least))[: -bound.least]
        names[f"before_{name}"] = before
        if (in_place := _lines_in_place(name, hint, bound)) is None:
            names[f"read_{name}"] = _reader(hint, bound)
        lines += [
            f"    if encoded.startswith(before_{name}, at):",
            f"        at += {len(before)}",
            *("        " + line for line in in_place or [f"its_{name}, at = read_{name}(encoded, at)"]),
            "        left -= 1",
            "    else:",
            f"        its_{name} = None" if _is_optional(hints[name]) else "        raise Unexpected",
        ]
    lines += ["    if left: raise Unexpected", "    instance = new(kind)"]
    for field in fields(kind):  # what the `__init__` of a frozen class with slots does, in half the time
        names[f"set_{field.name}"] = getattr(kind, field.name).__set__
        lines.append(f"    set_{field.name}(instance, its_{field.name})")
    if hasattr(kind, "__post_init__"):
        lines.append("    instance.__post_init__()")
    lines.append("    return instance, at")
    exec("\n".join(lines), names)
    return cast(_Reader, names["read"])


def _lines_in_place(name: str, hint: Any, bound: Any) -> list[str] | None:
    """For hashes, texts and integers, which are nearly all: a call would cost more than what it does."""
    if hint is bytes and bound.least == bound.most:
        return [f"its_{name} = encoded[at:at + {bound.least}]", f"at += {bound.least}"]
    if hint is str:
        return [
            f"length = encoded[at] ^ {_TEXT}",
            "at += 1",
            "if length > 23: length, at = wide(encoded, at, length)",
            f"if not {bound.least} <= length <= {bound.most}: raise Unexpected",
            f"its_{name} = encoded[at:at + length].decode()",
            "at += length",
        ]
    if hint is int:
        return [
            "number = encoded[at]",
            "at += 1",
            "if number > 23:",
            "    if number == 0x18 and encoded[at] > 23: number, at = encoded[at], at + 1",
            "    elif number == 0x19 and encoded[at]: number, at = encoded[at] << 8 | encoded[at + 1], at + 2",
            "    else: number, at = wide_int(encoded, at, number)",
            f"if not {bound.least} <= number <= {bound.most}: raise Unexpected",
            f"its_{name} = number",
        ]
    return None


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _bare(hint: Any) -> tuple[Any, Any]:
    """The type and its bound, without what else an annotation says."""
    if _is_optional(hint):
        hint = next(arm for arm in get_args(hint) if arm is not type(None))
    return get_args(hint) if get_origin(hint) is Annotated else (hint, None)


def _reader(hint: Any, bound: Any) -> _Reader:
    if get_origin(hint) is tuple:
        return _tuple_reader(get_args(hint)[0], bound)
    if hint is bool:
        return _bool
    if hint is bytes:
        return _bytes_reader(bound)
    if hint is str:
        return _text_reader(bound)
    return _record(hint)


def _wide(encoded: bytes, at: int, argument: int) -> tuple[int, int]:
    """The argument that follows a head of the right major type, and where it ends; of a wrong one, `argument` is over 27."""
    if argument > 27:
        raise _Unexpected
    return _wide_int(encoded, at, argument)


_WIDE = {
    major | 24 + power: (1 << power, (1 << 4 * (1 << power)) if power else 24, -(major >> 5))
    for major in (_UINT, _NEGATIVE)
    for power in range(4)
}
"""Heads of integers with bytes of their own: how many, the least argument that needs them, and what makes it the integer
by exclusive or (-1 - x is ~x)."""


def _wide_int(encoded: bytes, at: int, head: int) -> tuple[int, int]:
    """The integer, not below 24, that begins with this head before `at`."""
    if head == 0x1B:  # a time
        value = int.from_bytes(encoded[at : at + 8], "big")
        if value < 1 << 32:
            raise _Unexpected
        return value, at + 8
    if head in _WIDE:
        size, needed, flip = _WIDE[head]
        end = at + size
        value = int.from_bytes(encoded[at:end], "big")
        if value < needed:
            raise _Unexpected
        return value ^ flip, end
    if not 0x20 <= head < 0x38:
        raise _Unexpected
    return 0x1F - head, at


def _bool(encoded: bytes, at: int) -> tuple[bool, int]:
    if encoded[at] & 0xFE != 0xF4:
        raise _Unexpected
    return encoded[at] == 0xF5, at + 1


def _bytes_reader(bound: Size, major: int = _BYTES) -> _Reader:
    least, most = bound.least, bound.most

    def read(encoded: bytes, at: int) -> tuple[bytes, int]:
        length = encoded[at] ^ major
        at += 1
        if length > 23:
            length, at = _wide(encoded, at, length)
        if not least <= length <= most:
            raise _Unexpected
        end = at + length
        return encoded[at:end], end

    return read


def _text_reader(bound: Size) -> _Reader:
    read_bytes = _bytes_reader(bound, _TEXT)

    def read(encoded: bytes, at: int) -> tuple[str, int]:
        text, end = read_bytes(encoded, at)
        return text.decode(), end

    return read


def _tuple_reader(hint: Any, bound: Size) -> _Reader:
    least, most = bound.least, bound.most
    read_items = _items_reader(*_bare(hint))

    def read(encoded: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        length = encoded[at] ^ _LIST
        at += 1
        if length > 23:
            length, at = _wide(encoded, at, length)
        if not least <= length <= most:
            raise _Unexpected
        return read_items(encoded, at, length)

    return read


_ItemsReader = Callable[[bytes, int, int], tuple[tuple[Any, ...], int]]
"""Reads so many items."""


def _items_reader(hint: Any, bound: Any) -> _ItemsReader:
    """Hashes and numbers come by the hundred, and have loops of their own."""
    if hint is int:
        return _ints_reader(bound)
    if hint is bytes and bound.least == bound.most:
        return _hashes_reader(bound.least)
    read_item = _reader(hint, bound)

    def read(encoded: bytes, at: int, length: int) -> tuple[tuple[Any, ...], int]:
        items = []
        for _ in range(length):
            item, at = read_item(encoded, at)
            items.append(item)
        return tuple(items), at

    return read


def _ints_reader(bound: Between) -> _ItemsReader:
    """Two or four bytes and a sign, as proof values and tokens have, are read in place."""
    least, most = bound.least, bound.most

    def read(encoded: bytes, at: int, length: int) -> tuple[tuple[int, ...], int]:
        items = []
        for _ in range(length):
            value = encoded[at]
            at += 1
            if value > 23:
                if value == 0x39 or value == 0x19:
                    argument = encoded[at] << 8 | encoded[at + 1]
                    at += 2
                    if argument < 256:
                        raise _Unexpected
                    value = argument if value == 0x19 else ~argument
                elif value == 0x3A or value == 0x1A:
                    argument = encoded[at] << 24 | encoded[at + 1] << 16 | encoded[at + 2] << 8 | encoded[at + 3]
                    at += 4
                    if argument < 65_536:
                        raise _Unexpected
                    value = argument if value == 0x1A else ~argument
                else:
                    value, at = _wide_int(encoded, at, value)
            items.append(value)
        if items and (min(items) < least or max(items) > most):
            raise _Unexpected
        return tuple(items), at

    return read


def _hashes_reader(size: int) -> _ItemsReader:
    head = encode(bytes(size))[:-size]
    heads = [(index, bytes([byte])) for index, byte in enumerate(head)]
    skip, step = len(head), len(head) + size

    def read(encoded: bytes, at: int, length: int) -> tuple[tuple[bytes, ...], int]:
        end = at + step * length
        together = encoded[at:end]
        if any(together[index::step] != byte * length for index, byte in heads):
            raise _Unexpected
        return tuple([together[start : start + size] for start in range(skip, len(together), step)]), end

    return read
