"""Deterministic CBOR (RFC 8949, 4.2.1), written from the RFC: what is tested has no part in the vectors."""

from __future__ import annotations

from typing import Any

UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)


def encode(value: Any) -> bytes:
    """The one encoding of a value."""
    if isinstance(value, bool) or value is None:
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return head(UINT, value) if value >= 0 else head(NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return head(BYTES, len(value)) + value
    if isinstance(value, str):
        return head(TEXT, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return raw_map(*pairs)
    return head(ARRAY, len(value)) + b"".join(map(encode, value))


def raw_map(*pairs: tuple[bytes, bytes]) -> bytes:
    """A map of pairs that are encoded already, in the order given."""
    return head(MAP, len(pairs)) + b"".join(key + item for key, item in pairs)


def head(major: int, number: int, width: int | None = None) -> bytes:
    """The head of an item. With `width`, the number takes so many bytes whether it needs them or not."""
    if width is None:
        width = next(size for size, most in ((0, 24), (1, 2**8), (2, 2**16), (4, 2**32), (8, 2**64)) if number < most)
    first = number if width == 0 else 23 + width.bit_length()
    return bytes([major << 5 | first]) + (number.to_bytes(width, "big") if width else b"")
