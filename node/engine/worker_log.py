"""What workers write: all of them to the end of one file, and of each its last line, for who has to find out why it ended."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

_BYTES_MAX: Final = 4 * 2**20
"""A log that is longer when a worker starts becomes `<log>.1`. A worker's own limits bound what it adds."""

_LAST_BYTES: Final = 4096
_LAST_MAX: Final = 300
"""Of characters: what an owner reads of a worker's last line."""


class WorkerLog:
    """The log, as one worker sees it: its own part begins where that of those before it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begins = 0

    def open(self) -> BinaryIO:
        """To append to, from here on for this worker; a long one has been set aside."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_size > _BYTES_MAX:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        stream = self._path.open("ab")
        self._begins = stream.tell()
        return stream

    def last_words(self) -> str:
        """The last line since then, in a sentence.

        A program that the worker ran may have written it, so that nothing of it reaches a terminal but what can be printed.
        """
        lines = []
        with suppress(OSError), self._path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._begins, end - _LAST_BYTES))
            lines = log.read(_LAST_BYTES).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if not last:
            return f"It wrote nothing to {self._path}."
        said = "".join(each if each.isprintable() else "\ufffd" for each in last[:_LAST_MAX])
        return f'The last line of {self._path} is "{said}".'
