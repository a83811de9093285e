"""A file that is replaced as a whole: whenever the power fails, it is the old one or the new one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .private import stream


def put(path: Path, content: bytes) -> None:
    """The file has this content, on the disk, and nobody but its owner may read it. Blocks. Raises `OSError`."""
    scratch = path.with_name(f".{path.name}")
    with stream(scratch, "wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Whoever else asks for this path, in this process or another, waits until the block has ended, or is refused it
    (`BlockingIOError`): what is read of a file inside is still so when it is written. The lock is a file of its own beside it,
    which stays. Blocks. Raises `OSError`."""
    with stream(path.with_name(f".{path.name}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
