"""The table `power` of `node.toml`: what the machine draws, as far as its owner knows, and who may cap its accelerator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..rules.worth import Draw
from ..settings import bad, flag, number, only, table_of, text

CORE_W: Final = 8.0
"""A core at work, with its share of memory and losses: desktop and server parts lie between 4 and 12. A guess."""


@dataclass(frozen=True, slots=True)
class PowerConfig:
    """What the owner knows of the machine's power."""

    idle_w: float | None = None
    """What waiting for work costs beyond what the machine draws anyway."""
    full_w: float | None = None
    """What it draws more when it computes without a pause."""
    measure: bool = True
    """Whether RAPL, NVML or the battery are asked, where they are."""
    helper: str = ""
    """Socket of the privileged helper that caps the accelerator (`fallow-power`); empty: nobody does."""
    sys_root: Path = Path("/sys")
    nvml: str = "libnvidia-ml.so.1"

    @property
    def said(self) -> Draw | None:
        """The owner's own figures, if both are there."""
        return None if self.idle_w is None or self.full_w is None else Draw(self.idle_w, self.full_w)

    @property
    def guess(self) -> Draw:
        """What is assumed until something is measured."""
        return self.said or Draw(self.idle_w or 0.0, self.full_w or CORE_W * (os.cpu_count() or 1))


def parse_power(table: Mapping[str, object]) -> PowerConfig:
    """The settings in the table of that name. Raises `SettingError`."""
    given = table_of(table, "power")
    only(given, ("idle_w", "full_w", "measure", "helper", "sys_root", "nvml"), "power.")
    idle_w, full_w = (
        number(given, name, 0, 0, 1e6, "power.") if name in given else None for name in ("idle_w", "full_w")
    )
    if idle_w is not None and full_w is not None and full_w < idle_w:
        raise bad("power.full_w", f"must be at least `idle_w`, {idle_w:g}")
    return PowerConfig(
        idle_w,
        full_w,
        flag(given, "measure", "power.", default=True),
        text(given, "helper", "", "power."),
        Path(text(given, "sys_root", "/sys", "power.")),
        text(given, "nvml", "libnvidia-ml.so.1", "power."),
    )
