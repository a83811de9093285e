"""A node's wall clock that can be put forward and back while it runs: a test network's, never a node's own.

The clock is off by what stands in a file of eight bytes, which its process maps: reading it costs no system call, and
whoever may write the file sets the clock. Everything in the process that asks Python for the time of day is told this one.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import Final

FILE = "clock"
"""In a node's state folder: milliseconds, signed, little-endian."""
_FORM: Final = struct.Struct("<q")
SKEW_MS_MAX: Final = 10**12
"""Thirty years: beyond that the time of day would be none that a record can carry."""


def prepare(state: Path) -> Path:
    """The file is there, and says what it said before, or that the clock is right."""
    path = state / FILE
    if not path.exists() or path.stat().st_size != _FORM.size:
        path.write_bytes(_FORM.pack(0))
    return path


def set_skew(state: Path, skew_ms: int) -> None:
    """The node's clock is off by so much from now on."""
    with (state / FILE).open("r+b") as file:
        file.write(_FORM.pack(max(-SKEW_MS_MAX, min(SKEW_MS_MAX, skew_ms))))


def install(path: Path) -> None:
    """This process's clock is the file's from now on, to its end."""
    with path.open("rb") as file:
        off = mmap.mmap(file.fileno(), _FORM.size, access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        return true_ns() + int(_FORM.unpack_from(off)[0]) * 1_000_000

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
