"""YAML as people read it, of maps, lists, texts, numbers and truth values. What it writes, every reader of YAML 1.1 or 1.2
reads as the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value]"

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
"""In YAML 1.1 these are no texts, however they are capitalised."""


def documents(*values: Value) -> str:
    """The values, each a document."""
    return "".join(f"---\n{to_yaml(value)}" for value in values)


def to_yaml(value: Value) -> str:
    """The value as one document's text."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Value) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [line for key, item in value.items() for line in _entry(f"{_text(key)}:", item, "  ")]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [line for item in value for line in _item(item)]
    return [_scalar(value)]


def _entry(head: str, value: Value, indent: str) -> list[str]:
    if isinstance(value, str | int) or not value:
        return [f"{head} {_scalar(value)}"]
    return [head, *(indent + line for line in _lines(value))]


def _item(value: Value) -> list[str]:
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _text(text: str) -> str:
    """As it is where nobody can take it for something else; else in double quotes."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
    return text if plain else f'"{"".join(map(_letter, text))}"'


def _letter(letter: str) -> str:
    """Printable ASCII as it is; the rest by its number, whole: JSON's pairs of surrogates are not put together by all."""
    number = ord(letter)
    if letter in '"\\':
        return f"\\{letter}"
    return letter if 0x20 <= number < 0x7F else f"\\U{number:08X}"
