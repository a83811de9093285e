"""The table `grid.feeder` of `node.toml`: the feeder whose cap the machine shares with its neighbours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...protocol.limits import WATTS_MAX
from ..settings import bad, integer, only, table_of, text


@dataclass(frozen=True, slots=True)
class FeederConfig:
    """The feeder of which this node is a member by its own key."""

    name: str
    grid_key: bytes
    """Signs its rosters."""
    roster: Path | None = None
    """A file in which its operator puts the newest; members tell each other, too."""
    reserve_w: int = 0
    """Of the share, for what else hangs on the connection and no sensor sees: neither lent nor used for work."""


def parse_feeder(grid: Mapping[str, object], base: Path) -> FeederConfig | None:
    """Of the table `grid`; None if there is none. Raises `SettingError`."""
    at = "grid.feeder."
    if "feeder" not in grid:
        return None
    table = table_of(grid, "feeder", "grid.")
    only(table, ("name", "grid_key", "roster", "reserve_w"), at)
    name, key = text(table, "name", "", at, 64), text(table, "grid_key", "", at)
    if not re.fullmatch("[a-z0-9][a-z0-9._-]*", name):
        raise bad(
            at + "name", "must be the feeder's name as its rosters have it: letters, digits and - . _, in lower case"
        )
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise bad(at + "grid_key", "must be the public key of 64 hex digits that signs the feeder's rosters")
    path = text(table, "roster", "", at)
    reserve_w = integer(table, "reserve_w", 0, 0, WATTS_MAX, at)
    return FeederConfig(name, bytes.fromhex(key), base / path if path else None, reserve_w)
