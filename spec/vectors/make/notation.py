"""How cases and files of vectors are written: the notation that `spec/vectors/README.md` specifies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EXACT = 2**53 - 1
"""The largest integer that every reader of JSON keeps exactly."""


@dataclass(frozen=True)
class Case:
    """One input, and what a reader makes of it."""

    words: str
    """The id without the file's name."""
    about: str
    input: dict[str, Any]
    expect: dict[str, Any]


def refused(words: str, about: str, input: dict[str, Any], code: str, **more: int) -> Case:
    """A case that every reader refuses with this code."""
    return Case(words, about, input, {"code": code, **more})


def notation(value: object) -> object:
    """The value as JSON can say it."""
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, Mapping):
        return {key: notation(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [notation(item) for item in value]
    if isinstance(value, int) and not -EXACT <= value <= EXACT:
        return {"i": str(value)}
    return value


def file_text(kind: str, about: str, cases: Iterable[Case], requirements: Mapping[str, list[str]]) -> str:
    """The text of one file: one line for each part of a case, so that a change can be read."""
    written = ",\n".join(_case_text(f"{kind}/{case.words}", case, requirements) for case in cases)
    return f'{{"format": 1, "kind": {_line(kind)}, "about": {_line(about)}, "cases": [\n{written}\n]}}\n'


def _case_text(id: str, case: Case, requirements: Mapping[str, list[str]]) -> str:
    named = sorted(requirements.get(id, []), key=lambda requirement: (requirement[0], int(requirement[2:])))
    head = f'"id": {_line(id)}, "requirements": {_line(named)},\n  "about": {_line(case.about)}'
    return f' {{{head},\n  "input": {_map_text(case.input)},\n  "expect": {_map_text(case.expect)}}}'


def _map_text(fields: dict[str, Any]) -> str:
    parts = [f"{_line(key)}: {_line(notation(value))}" for key, value in fields.items()]
    return "{" + ",\n    ".join(parts) + "}"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
