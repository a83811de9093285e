"""What is this user's alone: files with keys, money, or with whom somebody deals. Each is made here, so that here alone it is
decided who may read it: its owner, and nobody else."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, Final, Literal

from .transaction import BUSY_S

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
OTHERS: Final = 0o077


def from_now_on() -> None:
    """Whatever this process and its children make, by whatever library, is its user's alone. For a process of ours, as a node:
    a program that uses this package decides for itself."""
    os.umask(OTHERS)


def database(path: Path | None, wait_s: float = BUSY_S) -> sqlite3.Connection:
    """The SQLite file, made if need be; SQLite's own files beside it take after it. None: one in memory. The connection commits
    by itself, and is for one thread at a time. Raises `sqlite3.Error`, for the system's words as well."""
    if path is not None:
        try:
            _make(path)
        except OSError as error:
            raise sqlite3.OperationalError(f"{error.filename or path}: {error.strerror}") from None
    return sqlite3.connect(path or ":memory:", timeout=wait_s, isolation_level=None, check_same_thread=False)


def folder(path: Path) -> None:
    """The directory is there. Raises `OSError`."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)


def stream(path: Path, mode: Literal["w", "a", "wb", "ab"]) -> IO[Any]:
    """The file to write to, or to append to. Raises `OSError`."""
    flags = os.O_APPEND if mode.startswith("a") else os.O_TRUNC
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, mode, encoding=None if mode.endswith("b") else "utf-8")


def replace(path: Path, content: bytes) -> None:
    """The file has this content: for whoever reads it, the old one or the new one as a whole. After a power cut, too, only by
    `durable.put`. Raises `OSError`."""
    scratch = path.with_name(f".{path.name}.{token_hex(4)}.part")  # another process may be replacing it, too
    try:
        with stream(scratch, "wb") as writing:
            writing.write(content)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _make(path: Path) -> None:
    # A file that is there is not opened: to close another descriptor of it would end SQLite's locks on it in this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError):
            _close_to_others(each)


def _close_to_others(path: Path) -> None:
    """An earlier version left it open to everybody."""
    if (mode := path.stat().st_mode) & OTHERS:
        path.chmod(mode & ~OTHERS & 0o7777)
