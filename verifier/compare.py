"""Whether two results of the same work agree, and if not, in what: the words go into the verdict.

All of it in whole numbers: whoever recomputes a verdict, in whatever language, comes to the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isqrt

from ..protocol.bundle import Tolerance
from ..protocol.work import Piece

_MILLION = 1_000_000
_EXACT = 2.0**149
"""Every float32 is a whole multiple of 2^-149."""


def values_disagreement(one: Sequence[int], other: Sequence[int], tolerance: Tolerance) -> str | None:
    """Why two lists of proof values (micro-nats, token by token) cannot both be honest, or None."""
    if len(one) != len(other):
        return f"{len(other)} proof values instead of {len(one)}"
    worst = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0)
    if worst > tolerance.value_micro:
        return f"log-probabilities differ by {worst} micro-nats (at most {tolerance.value_micro})"
    return None


def choice_disagreement(
    gaps_micro: Sequence[int], masses_ppm: Sequence[int], top_p_ppm: int, tolerance: Tolerance
) -> str | None:
    """Why the claimed tokens are not what the sampling gives, by a checker's figures for each of them, or None."""
    if (gap := max(gaps_micro, default=0)) > tolerance.gap_micro:
        return f"a token lies {gap} micro-nats below the best (at most {tolerance.gap_micro})"
    if (mass := max(masses_ppm, default=0)) > top_p_ppm + tolerance.mass_ppm:
        return f"a token lies outside the nucleus, behind {mass} ppm of the mass"
    return None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a function's output as whole multiples of 2^-149, and the sum of each one's squares."""

    rows: tuple[tuple[int, ...], ...]
    squares: tuple[int, ...]


def numbers_of(piece: Piece) -> tuple[tuple[float, ...], ...] | None:
    """The output of a `call`, row by row; None if its bytes are not finite numbers of the shape that it names."""
    if len(piece.shape) != 2 or not all(piece.shape) or len(piece.tensor) != 4 * piece.shape[0] * piece.shape[1]:
        return None
    flat, width = struct.unpack(f"<{len(piece.tensor) // 4}f", piece.tensor), piece.shape[1]
    if not all(map(isfinite, flat)):
        return None
    return tuple(flat[start : start + width] for start in range(0, len(flat), width))


def rows_of(piece: Piece) -> Rows | None:
    """The output of a `call` as it is compared; None if it is no array of numbers."""
    rows = tuple(tuple(int(number * _EXACT) for number in row) for row in numbers_of(piece) or ())
    squares = tuple(_dot(row, row) for row in rows)
    return Rows(rows, squares) if rows else None


def distance_ppm(one: Rows, other: Rows) -> int | None:
    """How far two outputs lie apart in millionths, rounded up; None if their shapes differ.

    The largest over the rows of 1 - cosine, and of 1 - the shorter's length over the longer's; a row of zeros is as any other
    row of zeros, and nothing like what is none.
    """
    if len(one.rows) != len(other.rows) or len(one.rows[0]) != len(other.rows[0]):
        return None
    worst = 0
    for a, square_a, b, square_b in zip(one.rows, one.squares, other.rows, other.squares, strict=True):
        if not square_a or not square_b:
            worst = max(worst, _MILLION if square_a or square_b else 0)
            continue
        cosine = _root_ppm(_dot(a, b), square_a * square_b)
        stretch = isqrt(_MILLION**2 * min(square_a, square_b) // max(square_a, square_b))
        worst = max(worst, _MILLION - min(cosine, stretch))
    return worst


def _dot(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _root_ppm(dot: int, squares: int) -> int:
    """dot / sqrt(squares) in millionths, rounded down."""
    scaled = (_MILLION * dot) ** 2
    root = isqrt(scaled // squares)
    if dot >= 0:
        return root
    return -root if root * root * squares == scaled else -root - 1
