"""Several writes to an SQLite file, as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


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
