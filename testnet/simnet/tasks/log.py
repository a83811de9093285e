"""Everything that happens in one simulation, in order: hashed, and kept as lines if somebody wants to read them."""

from __future__ import annotations

import zlib
from typing import TextIO

import trio

from ..figures import Trace


class Log:
    """Lines of what happened: when, to which machine, what. The same for the same scenario, seed and commit."""

    def __init__(self, lines: TextIO | None = None) -> None:
        self.trace = Trace()
        self._lines = lines

    def write(self, machine: int, what: str, *values: int | str) -> None:
        """It happened now. Texts have no spaces."""
        now_us = round(trio.current_time() * 1_000_000)
        self.trace.add(what, now_us, machine, *values)  # type: ignore[arg-type]  # short words print in one way too
        if self._lines is not None:
            print(now_us, machine, what, *values, file=self._lines)

    def frame(self, machine: int, connection: int, frame: bytes) -> None:
        """A frame came out of the connection."""
        now_us = round(trio.current_time() * 1_000_000)
        self.trace.add_line(f"frame {now_us} {machine} {connection} {len(frame)} {zlib.crc32(frame)}\n")
        if self._lines is not None:
            print(now_us, machine, "frame", connection, len(frame), zlib.crc32(frame), file=self._lines)
