"""Several writes to an SQLite file, as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


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
