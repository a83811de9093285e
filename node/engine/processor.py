"""This machine's processor, in the kernel's words."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
STAT: Final = Path("/proc/stat")
_TITLES: Final = ("flags", "Features")
"""On x86 and on ARM."""

_MODEL: Final = ("model name", "CPU implementer", "CPU part")
"""On x86; on ARM, as numbers."""


@cache
def features() -> frozenset[str]:
    """All that any of its cores can do (`avx512f`); nothing where the kernel does not say."""
    return frozenset(word for words in _said(_TITLES) for word in words.split())


def crowded(stat: Path = STAT) -> bool:
    """Whether, beside us who ask, more wants to run now than there are cores; False where the kernel does not say."""
    with suppress(OSError):
        for line in stat.read_text().splitlines():
            if line.startswith("procs_running "):
                return int(line.split()[1]) - 1 > (os.cpu_count() or 1)
    return False


@cache
def models() -> tuple[str, ...]:
    """What its cores are; nothing where the kernel does not say."""
    return tuple(sorted(_said(_MODEL)))


def _said(titles: tuple[str, ...]) -> set[str]:
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    return {line.partition(":")[2].strip() for line in lines if line.startswith(titles)}
