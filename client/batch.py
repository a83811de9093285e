"""Many inputs of a function, in parts: each part is one order, and what is done stays done.

A node that leaves costs the part that it was at: that is asked of another. With a checkpoint, a file, what is done is there for
the next process as well, and the batch goes on where this one ended, however it did.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio
from blake3 import blake3

from ..node.machine import beside
from ..node.private import database
from ..node.transaction import transaction
from ..protocol.bundle import Manifest
from ..protocol.codec import encode
from ..protocol.errors import Code, ConfigError, FallowError, ProtocolError, Refused, StoreError
from ..protocol.limits import CALL_INPUTS_MAX, MESSAGE_BYTES_MAX
from ..protocol.reading import read_untrusted
from ..protocol.work import Piece, Work
from .arrays import columns_of

PART_S: Final = 2.0
"""Of work in one part, at the rate of the slowest node that is known: what a node's leaving may cost."""
AT_ONCE: Final = 4
"""Parts under way: a few nodes work side by side, and a checkpoint is never far behind."""
TRIES_MAX: Final = 8
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 30.0
"""A part that nobody takes is tried again after a second, then after twice as long each time: two minutes in all, in which
machines come back from a short errand."""
UNMEASURED: Final = 8
"""Inputs in one part, where nobody says how fast it is."""
INPUTS_MAX: Final = 1_000_000
BYTES_MAX: Final = MESSAGE_BYTES_MAX // 2
"""Of the inputs of one part, and of its results: well within what one message carries."""

Ask = Callable[[Work], Awaitable[Piece]]
"""One order for this work, whoever does it, and its result. Raises `FallowError`."""
_PASSES: Final = frozenset({Code.NO_EXECUTOR, Code.BUSY, Code.OWNER_NEEDS_MACHINE, Code.UNSATISFIABLE_ASSURANCE})
"""Refusals that another minute may cure."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some inputs that follow one another."""

    first: int
    work: Work

    @property
    def after(self) -> int:
        """The index of the first input that is not in it."""
        return self.first + self.work.calls


@dataclass
class Done:
    """The results so far, by the index of their first input; the file has them before they count."""

    path: Path | None
    identity: bytes
    """Of bundle, assurance and all inputs: a checkpoint of other work is none of this one's."""
    pieces: dict[int, Piece] = field(default_factory=dict)

    def open(self) -> None:
        """What a former process had done is there. Raises `ConfigError` for a checkpoint of other work, `StoreError` for one
        that cannot be used."""
        if self.path is None:
            return
        try:
            with closing(database(self.path)) as db:  # results are the caller's own
                db.execute("CREATE TABLE IF NOT EXISTS batch (identity BLOB PRIMARY KEY) STRICT")
                db.execute("CREATE TABLE IF NOT EXISTS parts (first INTEGER PRIMARY KEY, piece BLOB NOT NULL) STRICT")
                known = [identity for (identity,) in db.execute("SELECT identity FROM batch")]
                if known and known != [self.identity]:
                    message = (
                        f"{self.path} holds other inputs, another bundle or another assurance; it was kept as it is."
                    )
                    raise ConfigError(Code.BAD_CONFIG, f"{message} Name another file.")
                db.execute("INSERT OR IGNORE INTO batch VALUES (?)", (self.identity,))
                for first, piece in db.execute("SELECT first, piece FROM parts"):
                    read = read_untrusted(Piece, piece, bytes_max=MESSAGE_BYTES_MAX)
                    if len(read.shape) != 2 or len(read.tensor) != 4 * read.shape[0] * read.shape[1]:
                        raise sqlite3.DatabaseError("what it holds is no result")
                    self.pieces[first] = read
        except (sqlite3.Error, OSError, ProtocolError) as error:
            raise StoreError(
                Code.CORRUPT_STORE, f"The checkpoint {self.path} cannot be used: {error}. It was kept."
            ) from None

    def add(self, part: Part, piece: Piece) -> None:
        """The part is done, and in the file. Raises `StoreError`."""
        if self.path is not None:
            try:
                with closing(database(self.path)) as db, transaction(db):
                    db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (part.first, piece.encode()))
            except sqlite3.Error as error:
                raise StoreError(Code.STORE_FULL, f"The checkpoint {self.path} cannot be written: {error}.") from None
        self.pieces[part.first] = piece

    def missing(self, count: int) -> Iterator[tuple[int, int]]:
        """The ranges of inputs without results, from the first on."""
        at = 0
        for first, piece in sorted(self.pieces.items()):
            if first > at:
                yield at, first
            at = max(at, first + piece.shape[0])
        if at < count:
            yield at, count


async def run_batch(
    manifest: Manifest, inputs: Sequence[Work], done: Done, ask: Ask, calls_per_s: float
) -> list[Piece]:
    """Every input's result, in parts, in their order. `inputs` are of one call each, `calls_per_s` what a slow node does.

    A part that fails does not end the others that are under way. Raises the `FallowError` of the first that failed for good,
    with how many inputs are done.
    """
    await beside(done.open)
    resumed = sum(piece.shape[0] for piece in done.pieces.values())
    parts = iter([part for gap in done.missing(len(inputs)) for part in parts_of(manifest, inputs, *gap, calls_per_s)])
    failures: list[FallowError] = []

    async def work() -> None:
        for part in parts:
            if failures:
                return
            try:
                piece = await _asked(part, ask)
                await beside(lambda part=part, piece=piece: done.add(part, piece))  # type: ignore[misc]
            except FallowError as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)
    if failures:
        finished = sum(piece.shape[0] for piece in done.pieces.values())
        kept = f"; {done.path} keeps them, and the same call goes on from there" if done.path else ""
        error, what = failures[0], f"{finished} of {len(inputs)} inputs are done, {resumed} of them before{kept}."
        error.message = f"{error.message} {what}"
        raise error
    return [done.pieces[first] for first in sorted(done.pieces)]


def parts_of(manifest: Manifest, inputs: Sequence[Work], first: int, after: int, calls_per_s: float) -> Iterator[Part]:
    """The inputs from `first` to before `after`, in parts that take a slow node some seconds and that one order carries."""
    rows = max(1, BYTES_MAX // max(4, 4 * columns_of(manifest)))
    most = max(1, min(CALL_INPUTS_MAX, rows, int(PART_S * calls_per_s) or UNMEASURED))
    while first < after:
        taken, length_bytes = [inputs[first]], len(inputs[first].encode())
        for each in inputs[first + 1 : min(after, first + most)]:
            length_bytes += len(each.encode())
            if length_bytes > BYTES_MAX:
                break
            taken.append(each)
        yield Part(first, joined(taken))
        first += len(taken)


def joined(works: Sequence[Work]) -> Work:
    """One order's work of several."""
    sequences = tuple(sequence for work in works for sequence in work.sequences)
    return Work(sequences, arrays=tuple(array for work in works for array in work.arrays))


def identity_of(bundle: bytes, assurance: str, inputs: Sequence[Work]) -> bytes:
    """What a checkpoint is of."""
    hashed = blake3(encode([bundle, assurance, len(inputs)]))
    for each in inputs:
        hashed.update(each.encode())  # each says where it ends
    return hashed.digest()


def check_count(given: Sequence[object]) -> None:
    """Raises `Refused(too_large)` for none, and for more than anybody keeps in memory."""
    if isinstance(given, Mapping) or not 1 <= len(given) <= INPUTS_MAX:
        raise Refused(Code.TOO_LARGE, f"A batch has a list of 1 to {INPUTS_MAX} inputs.")


async def _asked(part: Part, ask: Ask) -> Piece:
    wait_s = RETRY_S
    for left in range(TRIES_MAX - 1, -1, -1):
        try:
            piece = await ask(part.work)
        except FallowError as error:
            if error.code not in _PASSES or not left:
                raise
            await trio.sleep(wait_s)
            wait_s = min(RETRY_S_MAX, 2 * wait_s)
        else:
            return piece
    raise AssertionError("the last try returns or raises")
