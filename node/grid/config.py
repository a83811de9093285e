"""The table `[grid]` of `node.toml`: with whom the machine shares the grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..settings import only, table_of
from .feeder_config import FeederConfig, parse_feeder
from .site_config import SiteConfig, parse_site


@dataclass(frozen=True, slots=True)
class GridConfig:
    """Nothing is shared by default."""

    feeder: FeederConfig | None = None
    site: SiteConfig | None = None


def parse_grid(table: Mapping[str, object], base: Path) -> GridConfig:
    """Of the whole settings; paths count from `base`. Raises `SettingError`."""
    given = table_of(table, "grid")
    only(given, GridConfig.__dataclass_fields__, "grid.")
    return GridConfig(feeder=parse_feeder(given, base), site=parse_site(given, base))
