"""The table `grid.site` of `node.toml`: the grid connection that accelerators share with chargers and a battery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...protocol.limits import WATTS_MAX
from ..sensors.config import SHIPPED
from ..settings import bad, number, only, table_of, text

KWH_MAX: Final = 1e6


@dataclass(frozen=True, slots=True)
class Battery:
    """What a site's battery can do, and what it should not."""

    kwh: float
    max_w: float
    """Into it and out of it."""
    min_pct: float = 10.0
    """Kept for chargers that come all at once: work is not planned on it."""
    max_pct: float = 95.0
    loss_pct: float = 10.0
    """Of what goes in, so much does not come out."""
    setpoint: Path | None = None
    """The file in which its controller finds what it should do; none: it does as it likes, and is only reckoned with."""


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """A grid connection that accelerators share with chargers, which come first."""

    limit_w: float
    """Of the connection; what a sensor gives holds as well."""
    compute_w: float
    """What all accelerators draw together, at most."""
    chargers_w: float
    """What all chargers draw together, at most."""
    charger_ramp_w_s: float
    """By so much more they may draw a second later."""
    ramp_w_s: float
    """By so much work's draw may change in a second."""
    reaction_s: float = 3.0
    """From a change at the meter until work has answered to it."""
    share_pct: float = 100.0
    """Of what the site leaves for work, this node's part."""
    expected: str = ""
    """The day that chargers and the rest are expected to have: one of `SHIPPED`, or a path. Empty: as they are now."""
    battery: Battery | None = None


def parse_site(grid: Mapping[str, object], base: Path) -> SiteConfig | None:
    """Of the table `grid`; None if there is none. Raises `SettingError`."""
    at = "grid.site."
    if "site" not in grid:
        return None
    table = table_of(grid, "site", "grid.")
    needed = ("limit_w", "compute_w", "chargers_w", "charger_ramp_w_s", "ramp_w_s")
    only(table, (*needed, "reaction_s", "share_pct", "expected", "battery"), at)
    for name in needed:
        if name not in table:
            raise bad(at + name, "must be set: without it nobody can say what is safe")
    day = text(table, "expected", "", at)
    if day and day not in SHIPPED:
        if not day.endswith(".toml"):
            raise bad(at + "expected", f"must be one of {', '.join(SHIPPED)}, or the path of a .toml file")
        day = str(base / day)
    return SiteConfig(
        number(table, "limit_w", 1, 1, WATTS_MAX, at),
        number(table, "compute_w", 1, 1, WATTS_MAX, at),
        number(table, "chargers_w", 0, 0, WATTS_MAX, at),
        number(table, "charger_ramp_w_s", 1, 1, WATTS_MAX, at),
        number(table, "ramp_w_s", 1, 1, WATTS_MAX, at),
        number(table, "reaction_s", 3.0, 1, 60, at),
        number(table, "share_pct", 100.0, 0.1, 100, at),
        day,
        _battery(table_of(table, "battery", at), base) if "battery" in table else None,
    )


def _battery(table: Mapping[str, object], base: Path) -> Battery:
    at = "grid.site.battery."
    only(table, ("kwh", "max_w", "min_pct", "max_pct", "loss_pct", "setpoint"), at)
    for name in ("kwh", "max_w"):
        if name not in table:
            raise bad(at + name, "must be set for a battery")
    min_pct, max_pct = number(table, "min_pct", 10, 0, 100, at), number(table, "max_pct", 95, 0, 100, at)
    if max_pct <= min_pct:
        raise bad(at + "max_pct", f"must be above `min_pct`, {min_pct:g}")
    path = text(table, "setpoint", "", at)
    return Battery(
        number(table, "kwh", 0, 0.001, KWH_MAX, at),
        number(table, "max_w", 0, 1, WATTS_MAX, at),
        min_pct,
        max_pct,
        number(table, "loss_pct", 10, 0, 90, at),
        base / path if path else None,
    )
