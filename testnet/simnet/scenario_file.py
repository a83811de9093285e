"""Scenarios as people write them: TOML in, one frozen record out, or an error that names the line and what was meant.

`changed` sets one value by its dotted name (`faults.churn`, `bundles.chat.held`, `population.0.share`); a last part alone does
if it means one thing only (`churn`). Sweeps are made of that.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

from ...protocol.errors import Code, ConfigError, Refused
from ...protocol.policy import Policy
from .scenario import LIST_MAX, TASKS, TASKS_NODES_MAX, WEEKDAYS, Scenario

R = TypeVar("R")

FILE_BYTES_MAX: Final = 256 * 1024
"""A scenario has some hundred lines."""
TEXT_MAX: Final = 2000
SWEEP_POINTS_MAX: Final = 1000
ADAPTIVE: Final = "adaptive"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


def shipped() -> tuple[str, ...]:
    """The names of the scenarios that come with the package."""
    folder = files(__package__).joinpath("scenarios")
    return tuple(sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml")))


def load(name: str) -> Scenario:
    """The scenario in the file, or the shipped one of that name. Raises `ConfigError(bad_config)`."""
    path = Path(name)
    if path.suffix == ".toml":
        try:
            with path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise _bad(f"{name} cannot be read: {error.strerror}") from None
    elif name in shipped():
        text = files(__package__).joinpath("scenarios", f"{name}.toml").read_bytes()
    else:
        raise _bad(f"there is none named {name[:80]!r}{_meant(name, shipped())}; a file's name ends in .toml")
    if len(text) > FILE_BYTES_MAX:
        raise _bad(f"{name} has more than {FILE_BYTES_MAX} bytes")
    try:
        return parse(text.decode(), name)
    except UnicodeDecodeError:
        raise _bad(f"{name} is not UTF-8") from None


def parse(text: str, name: str = "the scenario") -> Scenario:
    """The scenario that the TOML says. Raises `ConfigError(bad_config)` naming line and setting."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(f"{name} is not TOML: {error}") from None
    return checked(_record(Scenario, table, "", _Lines(text, name)), _Lines(text, name))


def dumps(scenario: Scenario) -> str:
    """TOML that reads as the same scenario; what is as usual is left out."""
    return "\n".join(_written(scenario, "")) + "\n"


def changed(scenario: Scenario, name: str, value: object) -> Scenario:
    """The scenario with one value another. Raises `ConfigError(bad_config)` for a name that means none, or several."""
    names = sorted(_names(scenario, ""))
    if name not in names:
        full = [each for each in names if each.endswith("." + name)]
        if len(full) != 1:
            problem = f"{name[:80]!r} may mean {', '.join(full)}" if full else f"there is no setting {name[:80]!r}"
            raise _bad(problem + ("" if full else _meant(name, names + [each.rpartition(".")[2] for each in names])))
        name = full[0]
    return checked(_set(scenario, name.split("."), value, name))


def sweep(text: str) -> tuple[str, tuple[float, ...]]:
    """`NAME=FROM:TO:COUNT` or `NAME=A,B,C` as the name and its values. Raises `ConfigError(bad_config)`."""
    name, _, values = text.partition("=")
    try:
        if ":" in values:
            first, last, count = values.split(":")
            steps = int(count)
            if not 2 <= steps <= SWEEP_POINTS_MAX:
                raise ValueError
            width = (float(last) - float(first)) / (steps - 1)
            points = [round(float(first) + width * step, 12) for step in range(steps)]
        else:
            points = [float(each) for each in values.split(",")]
    except ValueError:
        raise _bad(f"{text[:80]!r} is no sweep; say NAME=FROM:TO:COUNT or NAME=A,B,C") from None
    if not name or not 1 <= len(points) <= SWEEP_POINTS_MAX or not all(-1e15 < each < 1e15 for each in points):
        raise _bad(f"{text[:80]!r} is no sweep; say NAME=FROM:TO:COUNT with COUNT from 2 to {SWEEP_POINTS_MAX}")
    return name.strip(), tuple(points)


def checked(scenario: Scenario, lines: _Lines | None = None) -> Scenario:
    """The scenario, whose parts go together. Raises `ConfigError(bad_config)`."""
    where = lines or _Lines("", "the scenario")
    day, _, clock = scenario.start.partition(" ")
    if day not in WEEKDAYS or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", clock, re.ASCII):
        raise where.bad("start", f"{scenario.start[:40]!r} is no time of the week; say it as 'mon 07:30'")
    for name in ("population", "bundles"):
        if not getattr(scenario, name):
            raise where.bad(name, "there must be one at least")
    if scenario.fidelity == TASKS and scenario.nodes > TASKS_NODES_MAX:
        raise where.bad("nodes", f'with every task at most {TASKS_NODES_MAX}; `fidelity = "events"` takes more')
    if sum(each.share for each in scenario.population) <= 0 or sum(each.demand for each in scenario.bundles) < 0:
        raise where.bad("population.share", "somebody must be there")
    if not _NAME.fullmatch(scenario.name):
        raise where.bad("name", "it consists of small letters, digits and hyphens")
    named = [each.name for each in scenario.bundles]
    if len(set(named)) != len(named) or not all(_NAME.fullmatch(each) for each in named):
        raise where.bad("bundles.name", "each has a name of its own, of small letters, digits and hyphens")
    for event in scenario.events:
        if event.bundle and event.bundle not in named:
            raise where.bad("events.bundle", f"{event.bundle[:80]!r} is no bundle here{_meant(event.bundle, named)}")
    if scenario.assurance.policy != ADAPTIVE:
        try:
            Policy.parse(scenario.assurance.policy)
        except Refused as error:
            raise where.bad("assurance.policy", f"{error.message.rstrip('.')}, or adaptive") from None
    return scenario


class _Lines:
    """Where in the text a setting stands."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def bad(self, path: str, problem: str) -> ConfigError:
        at = self._line(path)
        return _bad(f"{self._name}{f', line {at}' if at else ''}: setting `{path}`: {problem}")

    def _line(self, path: str) -> int | None:
        """Of the last part of the path under the table that the rest names; of several such tables, the first that has it."""
        parts = [part for part in path.split(".") if not part.isdecimal()]
        table = ""
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[\[?\s*([\w.\-\" ]+?)\s*\]\]?", line):
                table = header[1]
                if table == path:
                    return number
            elif (key := re.match(r"\s*([\w.\-\"]+)\s*=", line)) and [*filter(None, table.split(".")), key[1]] == parts:
                return number
        return None


def _record(cls: type[R], table: Mapping[str, object], path: str, lines: _Lines) -> R:
    hints = get_type_hints(cls)
    known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]  # R is a dataclass
    for name in table:
        if name not in known:
            raise lines.bad(path + name, f"there is no such setting{_meant(name, known)}")
    values = {name: _value(known[name], hints[name], value, path + name, lines) for name, value in table.items()}
    return cls(**values)


def _value(setting: Field[Any], hint: Any, value: object, path: str, lines: _Lines) -> object:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise lines.bad(path, "must be a table")
        return _record(hint, value, path + ".", lines)  # type: ignore[arg-type]  # a class, not an instance
    if inner := get_args(hint):
        if not isinstance(value, list) or len(value) > LIST_MAX or not all(isinstance(each, dict) for each in value):
            raise lines.bad(path, f"must be at most {LIST_MAX} tables, each under [[{path}]]")
        return tuple(_record(inner[0], each, f"{path}.{n}.", lines) for n, each in enumerate(value))
    return _plain(setting, hint, value, path, lines)


def _plain(setting: Field[Any], hint: Any, value: object, path: str, lines: _Lines) -> object:
    if hint is float and type(value) is int:
        value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not hint:
        raise lines.bad(path, f"must be {_KINDS[hint]}, not {value!r:.80}")
    if words := setting.metadata.get("words"):
        if value not in words:
            raise lines.bad(
                path, f"{value!r:.80} is none of {', '.join(filter(None, words))}{_meant(str(value), words)}"
            )
    elif isinstance(value, str) and len(value) > TEXT_MAX:
        raise lines.bad(path, f"has more than {TEXT_MAX} characters")
    least, most = setting.metadata.get("least"), setting.metadata.get("most")
    if least is not None and not least <= value <= most:  # type: ignore[operator]  # only numbers have bounds
        raise lines.bad(path, f"must be from {least:g} to {most:g}, not {value!r:.40}")
    return value


_KINDS: Final[Mapping[object, str]] = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
}


def _names(record: object, path: str) -> Iterator[str]:
    """Every single value's dotted name."""
    for each in fields(record):  # type: ignore[arg-type]  # a dataclass
        value = getattr(record, each.name)
        if is_dataclass(value):
            yield from _names(value, f"{path}{each.name}.")
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                for key in {str(number), getattr(item, "name", str(number))}:
                    yield from _names(item, f"{path}{each.name}.{key}.")
        else:
            yield path + each.name


def _written(record: Any, path: str) -> list[str]:
    usual = type(record)()
    plain: list[str] = []
    tables: list[str] = []
    for each in fields(record):
        value = getattr(record, each.name)
        if is_dataclass(value):
            if written := _written(value, f"{path}{each.name}."):
                tables += ["", f"[{path}{each.name}]", *written]
        elif isinstance(value, tuple):
            for item in value if value != getattr(usual, each.name) else ():
                tables += ["", f"[[{path}{each.name}]]", *_written(item, f"{path}{each.name}.")]
        elif value != getattr(usual, each.name):
            # JSON's strings, numbers and truths are TOML's too.
            plain.append(f"{each.name} = {json.dumps(value, ensure_ascii=False)}")
    return plain + tables


def _set(record: Any, names: Sequence[str], value: object, path: str) -> Any:
    name, *rest = names
    before = getattr(record, name)
    if isinstance(before, tuple):
        key, *rest = rest
        at = next(n for n, item in enumerate(before) if key in (str(n), getattr(item, "name", None)))
        after: object = (*before[:at], _set(before[at], rest, value, path), *before[at + 1 :])
    elif rest:
        after = _set(before, rest, value, path)
    else:
        setting = next(each for each in fields(record) if each.name == name)
        after = _plain(setting, get_type_hints(type(record))[name], value, path, _Lines("", "the scenario"))
    return replace(record, **{name: after})


def _meant(name: str, names: Sequence[str] | Mapping[str, object]) -> str:
    near = get_close_matches(name, [each for each in names if each], 1)
    return f"; did you mean {near[0]}?" if near else ""


def _bad(problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"This is no scenario: {problem}.")
