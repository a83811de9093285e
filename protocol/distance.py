"""How far two outputs of a function lie apart (spec/04-assurance.md), in whole numbers.

Whoever recomputes a verdict, in whatever language, comes to the same; and a tolerance is measured by what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isqrt

MILLION = 1_000_000
_EXACT = 2.0**149
"""Every float32 is a whole multiple of 2^-149."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a function's output as whole multiples of 2^-149, and the sum of each one's squares."""

    rows: tuple[tuple[int, ...], ...]
    squares: tuple[int, ...]


def exact(rows: Iterable[Sequence[float]]) -> Rows:
    """Rows of float32, all of them finite, as they are compared."""
    whole = tuple(tuple(int(number * _EXACT) for number in row) for row in rows)
    return Rows(whole, tuple(_dot(row, row) for row in whole))


def distance(one: Rows, other: Rows, unit: int = MILLION) -> int | None:
    """How far two outputs lie apart in parts of `unit` (millionths, where nothing else is said), rounded up; None if their
    shapes differ.

    The largest over the rows of 1 - cosine, and of 1 - the shorter's length over the longer's; a row of zeros is as any other
    row of zeros, and nothing like what is none.
    """
    if len(one.rows) != len(other.rows) or len(one.rows[0]) != len(other.rows[0]):
        return None
    worst = 0
    for a, square_a, b, square_b in zip(one.rows, one.squares, other.rows, other.squares, strict=True):
        if not square_a or not square_b:
            worst = max(worst, unit if square_a or square_b else 0)
            continue
        cosine = _root(_dot(a, b), square_a * square_b, unit)
        stretch = isqrt(unit**2 * min(square_a, square_b) // max(square_a, square_b))
        worst = max(worst, unit - min(cosine, stretch))
    return worst


def _dot(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _root(dot: int, squares: int, unit: int) -> int:
    """dot / sqrt(squares) in parts of the unit, rounded down."""
    scaled = (unit * dot) ** 2
    root = isqrt(scaled // squares)
    if dot >= 0:
        return root
    return -root if root * root * squares == scaled else -root - 1
