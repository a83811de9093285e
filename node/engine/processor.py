"""This machine's processor, in the kernel's words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
_TITLES: Final = ("flags", "Features")
"""On x86 and on ARM."""


@cache
def features() -> frozenset[str]:
    """All that any of its cores can do (`avx512f`); nothing where the kernel does not say."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":")[2] for line in lines if line.startswith(_TITLES))
    return frozenset(word for words in named for word in words.split())
