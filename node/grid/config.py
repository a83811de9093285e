"""The table `[grid]` of `node.toml`: whom the owner lets ask the machine for less, and with whom it shares the grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..settings import bad, only, public_keys, table_of, texts
from .feeder_config import FeederConfig, parse_feeder
from .openadr_config import OpenAdr, parse_openadr
from .site_config import SiteConfig, parse_site

ZONES_MAX: Final = 16
"""Of one machine: its house, its street, its program, and room for more."""
KEYS_MAX: Final = 8
ZONE_BYTES_MAX: Final = 64
"""The protocol's bound for a word."""


@dataclass(frozen=True, slots=True)
class GridConfig:
    """Nobody is heeded by default, and nothing is shared."""

    zones: tuple[str, ...] = ()
    """The owner's own names for what the machine is part of; a grid key knows them from the owner."""
    keys: tuple[bytes, ...] = ()
    """Whose shed orders count."""
    openadr: OpenAdr | None = None
    feeder: FeederConfig | None = None
    site: SiteConfig | None = None


def parse_grid(table: Mapping[str, object], base: Path) -> GridConfig:
    """Of the whole settings; paths count from `base`. Raises `SettingError`."""
    given = table_of(table, "grid")
    only(given, GridConfig.__dataclass_fields__, "grid.")
    zones = texts(given, "zones", (), ZONES_MAX, "grid.")
    if odd := next((zone for zone in zones if len(zone.encode()) > ZONE_BYTES_MAX), None):
        raise bad("grid.zones", f"{odd[:40]!r} has more than {ZONE_BYTES_MAX} bytes")
    keys = public_keys(given, "keys", KEYS_MAX, "grid.")
    if bool(zones) != bool(keys):
        missing, there = ("keys", "zones") if zones else ("zones", "keys")
        raise bad(f"grid.{missing}", f"must be set beside `{there}`: a shed order is signed by a key, and names a zone")
    shared = (parse_feeder(given, base), parse_site(given, base))
    return GridConfig(tuple(dict.fromkeys(zones)), keys, parse_openadr(given, base), *shared)
