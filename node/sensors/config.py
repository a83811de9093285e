"""The tables `[[sensors]]` of `node.toml`: what is asked of the machine, where, and how old its word may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from ..rules.hours import hour_of
from ..rules.readings import SOURCES_MAX
from ..rules.signals import Signal
from ..settings import bad, flag, number, only, table_of, tables_of, text, word

STALE_S: Final = 5.0
"""Age at which a reading counts for nothing any more: for so long a machine whose sensors broke may still be lent."""
AGE_S: Final = 300.0
"""Age, by the vehicle's own time, of what it last said of a signal: a value that nobody renews may be that of a dead sensor."""
SHIPPED: Final = ("commuter", "taxi", "warehouse", "humanoid", "site")
"""Example days that come with the package."""


@dataclass(frozen=True, slots=True)
class Viss:
    """A vehicle's signals by VISSv2 over WebSocket."""

    name: str
    url: str
    stale_s: float = STALE_S
    signal_age_s: float = AGE_S
    """0: the vehicle publishes changes only, and an old value is still a good one."""
    token: Path | None = None
    """A file with the access token that the server wants."""
    version: int | None = None
    """Of VSS, if the vehicle does not say."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Other paths for signals, by the signal's name."""


@dataclass(frozen=True, slots=True)
class Rosbridge:
    """A robot's battery and dock by rosbridge over WebSocket."""

    name: str
    url: str
    stale_s: float = 10.0
    """Batteries publish once a second, or slower."""
    battery_topic: str = "/battery_state"
    dock_topic: str = ""
    """A std_msgs/Bool; empty: on the dock is who charges or is full."""
    dock_type: str = "std_msgs/msg/Bool"


@dataclass(frozen=True, slots=True)
class Host:
    """This computer itself: battery, temperatures, its user, its accelerators."""

    name: str
    stale_s: float = 15.0
    interval_s: float = 2.0
    sys_root: Path = Path("/sys")
    upower: bool = True
    """Whether UPower is asked, whose word of a pulled plug comes at once."""
    input_root: Path = Path("/dev")
    user: bool = True
    """Whether its user's activity is looked at: when input devices and terminals were last used, never what was typed."""
    nvml: str = "libnvidia-ml.so.1"
    """NVIDIA's management library; empty: accelerators are not asked."""


@dataclass(frozen=True, slots=True)
class Site:
    """A site's meter, chargers and battery: a file that something else writes, a page, or OCPP's smart charging messages."""

    name: str
    url: str = ""
    """`http://...` of a JSON object, asked again and again."""
    file: Path | None = None
    """A TOML file of the same names."""
    ocpp: str = ""
    """ADDRESS:PORT at which a charging station, or the proxy before it, connects by WebSocket."""
    stale_s: float = 15.0
    interval_s: float = 2.0
    grid_limit_w: float = 0.0
    """The connection's own limit, where nothing gives it."""


@dataclass(frozen=True, slots=True)
class Scripted:
    """A day from a file: for test networks, and for looking at what rules would do."""

    name: str
    day: str
    """One of `SHIPPED`, or a path."""
    start_hour: float | None = None
    """Of the day, at the node's start; None: the real time of day."""
    speed: float = 1.0
    repeat: bool = True
    stale_s: float = STALE_S


SensorConfig: TypeAlias = Viss | Rosbridge | Host | Site | Scripted
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "viss": ("url", "stale_s", "signal_age_s", "token", "version", "paths"),
    "rosbridge": ("url", "stale_s", "battery_topic", "dock_topic", "dock_type"),
    "host": ("stale_s", "interval_s", "sys_root", "upower", "input_root", "user", "nvml"),
    "site": ("url", "file", "ocpp", "stale_s", "interval_s", "grid_limit_w"),
    "scripted": ("day", "start", "speed", "repeat", "stale_s"),
}


def parse_sensors(table: Mapping[str, object], base: Path) -> tuple[SensorConfig, ...]:
    """The sensors in the table; paths count from `base`. Raises `SettingError`."""
    found: list[SensorConfig] = []
    for index, each in enumerate(tables_of(table, "sensors", SOURCES_MAX - 1)):
        at = f"sensors[{index}]."
        kind = word(each, "kind", _WORDS, at)
        if kind is None:
            raise bad(at + "kind", f"must be set, to one of {', '.join(_WORDS)}")
        only(each, ("kind", "name", *_WORDS[kind]), at, f"setting of a {kind} sensor")
        name = text(each, "name", kind, at, 32)
        if name == "link" or name in [other.name for other in found]:
            raise bad(
                at + "name", f"{name!r} is taken: each sensor has a name of its own, its kind unless it says another"
            )
        found.append(_PARSE[kind](each, name, at, base))
    return tuple(found)


def _viss(table: Mapping[str, object], name: str, at: str, base: Path) -> Viss:
    paths = table_of(table, "paths", at)
    only(paths, [signal.value for signal in Signal], f"{at}paths.", "signal")
    for signal in paths:
        path = text(paths, signal, "", f"{at}paths.")
        if not path or _private(path):
            raise bad(
                f"{at}paths.{signal}",
                "must be a path of the vehicle that tells neither where nor which one it is",
            )
    version = int(number(table, "version", 0, 0, 99, at))
    return Viss(
        name,
        _url(table, at, ("ws", "wss")),
        _stale(table, at, STALE_S),
        number(table, "signal_age_s", AGE_S, 0, 86400, at),
        base / text(table, "token", "", at) if "token" in table else None,
        version or None,
        {signal: str(path) for signal, path in paths.items()},
    )


def _private(path: str) -> bool:
    """Whether a path of VSS tells where the vehicle is, or which one."""
    return any(part in path for part in ("CurrentLocation", ".Location", "VehicleIdentification", "VIN", "*"))


def _rosbridge(table: Mapping[str, object], name: str, at: str, base: Path) -> Rosbridge:
    return Rosbridge(
        name,
        _url(table, at, ("ws", "wss")),
        _stale(table, at, 10.0),
        text(table, "battery_topic", "/battery_state", at, 256),
        text(table, "dock_topic", "", at, 256),
        text(table, "dock_type", "std_msgs/msg/Bool", at, 256),
    )


def _host(table: Mapping[str, object], name: str, at: str, base: Path) -> Host:
    return Host(
        name,
        _stale(table, at, 15.0),
        number(table, "interval_s", 2, 0.1, 60, at),
        base / text(table, "sys_root", "/sys", at),
        flag(table, "upower", at, default=True),
        base / text(table, "input_root", "/dev", at),
        flag(table, "user", at, default=True),
        text(table, "nvml", "libnvidia-ml.so.1", at),
    )


def _site(table: Mapping[str, object], name: str, at: str, base: Path) -> Site:
    ways = [way for way in ("url", "file", "ocpp") if way in table]
    if len(ways) != 1:
        raise bad(
            at + (ways[-1] if ways else "url"), "a site sensor has one of `url`, `file` and `ocpp`; write one for each"
        )
    ocpp = text(table, "ocpp", "", at)
    if ocpp:
        _address(ocpp, at)
    return Site(
        name,
        _url(table, at, ("http",)) if "url" in table else "",
        base / text(table, "file", "", at) if "file" in table else None,
        ocpp,
        _stale(table, at, 150.0 if ocpp else 15.0),  # stations send their meters' values each minute
        number(table, "interval_s", 2, 0.1, 60, at),
        number(table, "grid_limit_w", 0, 0, 1e9, at),
    )


def _scripted(table: Mapping[str, object], name: str, at: str, base: Path) -> Scripted:
    day = text(table, "day", "", at)
    if day not in SHIPPED:
        if not day.endswith(".toml"):
            raise bad(at + "day", f"must be one of {', '.join(SHIPPED)}, or the path of a .toml file")
        day = str(base / day)
    start = text(table, "start", "", at)
    start_hour = hour_of(start) if start else None
    if start and start_hour is None:
        raise bad(at + "start", f'must be a time of day such as "07:40", not {start!r}')
    speed = number(table, "speed", 1, 0.01, 100_000, at)
    return Scripted(name, day, start_hour, speed, flag(table, "repeat", at, default=True), _stale(table, at, STALE_S))


_PARSE: Final[Mapping[str, Callable[[Mapping[str, object], str, str, Path], SensorConfig]]] = {
    "viss": _viss,
    "rosbridge": _rosbridge,
    "host": _host,
    "site": _site,
    "scripted": _scripted,
}


def _stale(table: Mapping[str, object], at: str, default: float) -> float:
    return number(table, "stale_s", default, 0.5, 3600, at)


def _url(table: Mapping[str, object], at: str, schemes: tuple[str, ...]) -> str:
    url = text(table, "url", "", at)
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and parts.hostname and (parts.port or 1) > 0 and not parts.username
    except ValueError:
        good = False
    if not good:
        raise bad(
            at + "url",
            f"must begin with {schemes[0]}:// and a host, and have no password in it",
        )
    return url


def _address(written: str, at: str) -> None:
    host, _, port = written.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        if not 0 <= int(port) <= 65535:
            raise ValueError
    except ValueError:
        raise bad(at + "ocpp", f"must be ADDRESS:PORT to listen at, 127.0.0.1:9100 say, not {written!r}") from None
