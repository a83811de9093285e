"""Deterministic CBOR (RFC 8949, section 4.2.1): one encoding per value, and only that encoding is read.

Maps have text keys only, so that the length-first order of `cbor2`'s canonical form and the bytewise order of the RFC
coincide. Floats, tags, undefined and big integers do not occur.
"""

from __future__ import annotations

from typing import TypeAlias, Union

import cbor2

from .errors import Code, LocalProtocolError, RemoteProtocolError
from .limits import DEPTH_MAX

Value: TypeAlias = Union[None, bool, int, bytes, str, "list[Value]", "dict[str, Value]"]

INTEGER_MAX = 2**63 - 1
"""Integers are signed 64-bit: the widest that every language reads without a big-number library."""


def encode(value: Value) -> bytes:
    """The one encoding of `value`. Raises `LocalProtocolError` for what the protocol cannot say."""
    if problem := _problem(value):
        raise LocalProtocolError(Code.BAD_ENCODING, f"Cannot encode {problem}.")
    return cbor2.dumps(value, canonical=True)


def decode_untrusted(encoded: bytes, *, bytes_max: int) -> Value:
    """The value that `encoded` is the one encoding of. Raises `RemoteProtocolError` for everything else.

    Lenient decoders accept trailing bytes, wide integers and unsorted maps; comparing with our own encoding is what
    excludes all of it at once.
    """
    if len(encoded) > bytes_max:
        raise RemoteProtocolError(
            Code.TOO_LARGE, f"A message of {len(encoded)} bytes exceeds the bound of {bytes_max}."
        )
    try:
        value = cbor2.loads(encoded, allow_indefinite=False, allow_duplicate_keys=False, max_depth=DEPTH_MAX)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as error:
        raise RemoteProtocolError(Code.BAD_ENCODING, f"Not CBOR: {error}.") from None
    if problem := _problem(value):
        raise RemoteProtocolError(Code.BAD_ENCODING, f"The message contains {problem}.")
    if cbor2.dumps(value, canonical=True) != encoded:
        raise RemoteProtocolError(Code.BAD_ENCODING, "The message is not in its one deterministic encoding.")
    checked: Value = value
    return checked


def _problem(value: object) -> str | None:
    kind = type(value)
    if kind is bytes or kind is str or kind is bool or value is None:
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
