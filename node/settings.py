"""How one setting is read from a TOML table, and what is said of one that cannot be: its name, its line, what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from ..protocol.errors import Code, ConfigError

TEXTS_MAX: Final = 64
"""Entries of a list of texts, where nothing bounds them closer."""


class SettingError(ConfigError):
    """What is wrong with one setting; `named` is its place in the file, `preferences.end_hour` say."""

    def __init__(self, named: str, problem: str, where: str = "") -> None:
        super().__init__(Code.BAD_CONFIG, f"{where}Setting `{named}`: {problem}.")
        self.named = named
        self.problem = problem


def bad(name: str, problem: str) -> SettingError:
    """The error, to be raised."""
    return SettingError(name, problem)


def strange(name: str, known: Iterable[str], what: str = "setting") -> SettingError:
    """The error for a name that nobody knows: what was meant, or which there are."""
    names = sorted(known)
    prefix, _, last = name.rpartition(".")
    near = get_close_matches(last.lower(), names, 1, 0.6)
    meant = f"did you mean `{prefix + '.' if prefix else ''}{near[0]}`?" if near else ""
    there = f"there are {', '.join(names)}" if len(names) <= 16 else "docs/owner.md has them all"
    return bad(name, f"there is no such {what}; {meant or there}".rstrip("?") + ("?" if meant else ""))


def only(table: Mapping[str, object], known: Iterable[str], prefix: str = "", what: str = "setting") -> None:
    """Raises `SettingError` for the first name in the table that is not known."""
    names = list(known)
    for name in table:
        if name not in names:
            raise strange(prefix + name, names, what)


def table_of(table: Mapping[str, object], name: str, prefix: str = "") -> Mapping[str, object]:
    """The table of this name; empty if there is none."""
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise bad(prefix + name, "must be a table")
    return value


def tables_of(table: Mapping[str, object], name: str, most: int, prefix: str = "") -> list[Mapping[str, object]]:
    """The tables of an array of this name, as `[[name]]` writes them."""
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise bad(prefix + name, f"must be tables, each under [[{prefix + name}]]")
    if len(value) > most:
        raise bad(prefix + name, f"there are at most {most}, not {len(value)}")
    return value


def integer(table: Mapping[str, object], name: str, default: int, least: int, most: int, prefix: str = "") -> int:
    value = table.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise bad(prefix + name, f"must be a whole number from {least} to {most}")
    return value


def number(
    table: Mapping[str, object], name: str, default: float, least: float, most: float, prefix: str = ""
) -> float:
    value = table.get(name, default)
    if (
        isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most
    ):  # NaN is not, either
        raise bad(prefix + name, f"must be a number from {least:g} to {most:g}")
    return float(value)


def flag(table: Mapping[str, object], name: str, prefix: str = "", *, default: bool = False) -> bool:
    value = table.get(name, default)
    if not isinstance(value, bool):
        raise bad(prefix + name, "must be true or false")
    return value


def text(table: Mapping[str, object], name: str, default: str = "", prefix: str = "", most: int = 1024) -> str:
    value = table.get(name, default)
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        raise bad(prefix + name, f"must be a text of at most {most} characters")
    return value


def texts(
    table: Mapping[str, object], name: str, default: tuple[str, ...] = (), most: int = TEXTS_MAX, prefix: str = ""
) -> tuple[str, ...]:
    value = table.get(name, list(default))
    if not isinstance(value, list) or len(value) > most or not all(isinstance(v, str) and v for v in value):
        raise bad(prefix + name, f"must be a list of at most {most} texts")
    return tuple(value)


def public_keys(table: Mapping[str, object], name: str, most: int, prefix: str = "") -> tuple[bytes, ...]:
    """Public keys in hex, each once, in ascending order: profiles and orders list them so."""
    keys = texts(table, name, (), most, prefix)
    if odd := next((key for key in keys if not re.fullmatch("[0-9a-f]{64}", key)), None):
        raise bad(prefix + name, f"{odd[:80]!r} is no public key of 64 hex digits (`fallow owner show` prints one)")
    return tuple(sorted({bytes.fromhex(key) for key in keys}))


def word(table: Mapping[str, object], name: str, allowed: Iterable[str], prefix: str = "") -> str | None:
    value, words = table.get(name), list(allowed)
    if value is not None and value not in words:
        near = get_close_matches(value.lower(), words, 1, 0.6) if isinstance(value, str) else []
        raise bad(
            prefix + name, f"must be one of {', '.join(words)}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return value if isinstance(value, str) else None


def located(error: SettingError, path: Path, source: str) -> SettingError:
    """The error with the file and the line at which its setting stands, if that can be found."""
    line = line_of(source, error.named)
    return SettingError(error.named, error.problem, f"{path}{f', line {line}' if line else ''}: ")


def line_of(source: str, named: str) -> int | None:
    """The line, from 1, at which a setting stands in a TOML text; of the table that it should be in, if it does not.

    The text is known to be TOML. Names that are dotted, quoted or in inline tables are found at the line that begins them.
    """
    wanted = re.sub(r"\[(\d+)\]", r".\1", named).split(".")
    best, found = 0, None
    for at, path in _keys(source):
        depth = _common(wanted, path)
        if depth > best:
            best, found = depth, at
    return found


def _common(one: list[str], other: list[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _keys(source: str) -> Iterable[tuple[int, list[str]]]:
    """Each line that names something, and the whole path of what it names; in arrays of tables, with its number from 0."""
    table: list[str] = []
    counted: dict[tuple[str, ...], int] = {}
    inside = ""
    for at, line in enumerate(source.splitlines(), 1):
        if inside:
            inside = "" if line.count(inside) % 2 else inside
            continue
        if head := re.match(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]", line):
            table = _names(head[2])
            if head[1] == "[[":
                place = tuple(table)
                counted[place] = counted.get(place, -1) + 1
                table = [*table, str(counted[place])]
            yield at, table
        elif setting := re.match(rf"\s*({_DOTTED})\s*=", line):
            yield at, [*table, *_names(setting[1])]
        for quotes in ('"""', "'''"):
            if line.count(quotes) % 2:
                inside = quotes


def _names(dotted: str) -> list[str]:
    return [name.strip("\"'") for name in re.findall(_KEY, dotted)]
