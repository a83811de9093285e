"""The notation of the vectors (`spec/vectors/README.md`): JSON to values and back."""

from __future__ import annotations

from typing import Any

_EXACT = 2**53 - 1


def value_of(written: Any) -> Any:
    """The value that the notation stands for."""
    match written:
        case {"b": str(digits)} if len(written) == 1:
            return bytes.fromhex(digits)
        case {"i": str(digits)} if len(written) == 1:
            return int(digits)
        case dict():
            return {key: value_of(item) for key, item in written.items()}
        case list():
            return list(map(value_of, written))
        case _:
            return written


def written(value: Any) -> Any:
    """How the vectors write the value."""
    match value:
        case bytes():
            return {"b": value.hex()}
        case dict():
            return {key: written(item) for key, item in value.items()}
        case list() | tuple():
            return list(map(written, value))
        case int() if not -_EXACT <= value <= _EXACT:
            return {"i": str(value)}
        case _:
            return value
