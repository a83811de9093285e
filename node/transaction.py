"""Several writes to an SQLite file, as one; and looking into a file that another process writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_S = 5.0
"""A writer holds an SQLite file for milliseconds; after so long something else is wrong."""


@contextmanager
def read_only(path: Path, wait_s: float = BUSY_S) -> Iterator[sqlite3.Connection]:
    """The file, for reading alone: nothing is created, whatever the path. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=wait_s)) as database:
        yield database


def is_full(error: BaseException) -> bool:
    """Whether the disk is what is wrong. (What this package raises as SQLite's own error has no code.)"""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside is on disk, or none of it is. The connection commits by itself outside of these."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:  # a full disk has SQLite roll back by itself
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
