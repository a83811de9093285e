"""The wallet's file in use: one thread writes, and what was written is on disk when the call comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import trio

from ..node.machine import beside
from ..node.transaction import transaction
from ..protocol.errors import Code, StoreError
from .wallet_file import open_file

T = TypeVar("T")
Statement: TypeAlias = tuple[str, tuple[bytes | int | str | None, ...]]
"""SQL, and what its question marks stand for."""


class Disk:
    """One wallet's file, open."""

    def __init__(self, path: Path) -> None:
        """Raises `StoreError(corrupt_store)`."""
        self.database = open_file(path)
        self.writer = trio.CapacityLimiter(1)

    async def write(self, *statements: Statement) -> None:
        """All of them are on disk. Raises `StoreError(corrupt_store)`: then none is."""
        await self.in_thread(partial(_execute, self.database, statements))

    async def in_thread(self, call: Callable[[], T]) -> T:
        """A commit waits for the disk, so it may not run in the loop; and once begun it is not abandoned."""
        try:
            return await beside(call, self.writer)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                Code.CORRUPT_STORE, f"The wallet could not be written ({error}); what it held before is kept."
            ) from None


def _execute(database: sqlite3.Connection, statements: Sequence[Statement]) -> None:
    """All of them are on disk, or none is."""
    if len(statements) == 1:
        database.execute(*statements[0])
        return
    with transaction(database):
        for statement in statements:
            database.execute(*statement)
